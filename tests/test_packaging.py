"""The wheel and the source distribution, built from a copy of the project and installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, SECONDS_FOR_A_COMMAND, Once, Workbench, copy_project
from flows import listening

GZIP = b"\x1f\x8b"
DECORATORS = """
import metaflow

class own_mutator(metaflow.FlowMutator):
    pass
"""


def python(folder: Path, *command: str | Path) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_FOR_A_COMMAND,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="session")
def project(once: Once) -> Path:
    """Return a copy of the project, with what was built from it in dist."""

    def fill(folder: Path) -> None:
        copy_project(folder)
        python(folder, "-m", "build", "--no-isolation")

    return once("built", fill)


def built(project: Path, pattern: str) -> Path:
    (file,) = (project / "dist").glob(pattern)
    return file


def new_environment(folder: Path, *installed: str | Path) -> Path:
    """Make an environment with Metaflow and what pip is told, and return its Python."""
    venv.create(folder, with_pip=False)
    (site_packages(folder) / "metaflow.pth").write_text(sysconfig.get_path("purelib"))
    own = folder / "bin" / "python"
    if installed:
        pip = ("-m", "pip", "--python", own, "install", "--no-deps", "--no-index")
        python(folder, *pip, "--no-build-isolation", *installed)
    return own


def site_packages(environment: Path) -> Path:
    (folder,) = environment.glob("lib/python*/site-packages")
    return folder


@pytest.fixture(scope="session")
def installed(project: Path, once: Once) -> Path:
    """Return the Python of an environment with the wheel, and with another library."""

    def fill(folder: Path) -> None:
        new_environment(folder, built(project, "*.whl"))
        own_decorators = site_packages(folder) / "own_decorators"
        own_decorators.mkdir()
        (own_decorators / "__init__.py").write_text(DECORATORS)
        metadata = site_packages(folder) / "own_decorators-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Name: own-decorators\n")
        (metadata / "RECORD").write_text("own_decorators/__init__.py,,\n")

    return once("installed", fill) / "bin" / "python"


@pytest.fixture(scope="session")
def editable(project: Path, once: Once) -> Path:
    """Return the Python of an environment with the project itself."""
    made = once("editable", lambda folder: new_environment(folder, "--editable", project))
    return made / "bin" / "python"


@pytest.fixture(scope="session")
def bare(once: Once) -> Path:
    """Return the Python of an environment with Metaflow alone."""
    return once("bare", new_environment) / "bin" / "python"


def test_the_source_distribution_has_the_whole_project(project: Path) -> None:
    with tarfile.open(built(project, "*.tar.gz")) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    own = {
        str(path.relative_to(project))
        for path in project.rglob("*")
        if path.is_file()
        and not {".venv", "dist", "__pycache__"} & set(path.relative_to(project).parts)
        and ".egg-info" not in str(path)
    }
    assert own - files == set()


def test_the_wheel_has_the_module_and_the_rehearsal(project: Path) -> None:
    with zipfile.ZipFile(built(project, "*.whl")) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == {
        "namespaced_trigger.py",
        "rehearsal/py.typed",
        *(f"rehearsal/{path.name}" for path in (ROOT / "rehearsal").glob("*.py")),
    }


def modules(bench: Workbench) -> Iterator[bytes]:
    """Return each copy of the module in the code packages that were uploaded."""
    for package in bench.packages.values():
        if package.startswith(GZIP):
            with tarfile.open(fileobj=io.BytesIO(package)) as archive:
                for name in archive.getnames():
                    if name.endswith("namespaced_trigger.py"):
                        file = archive.extractfile(name)
                        assert file is not None
                        yield file.read()


@pytest.mark.parametrize(
    ("environment", "is_beside"),
    [
        ("installed", False),
        ("editable", False),
        ("bare", True),
        ("installed", True),
        ("editable", True),
    ],
)
def test_the_module_arrives_in_the_code_package(
    bench: Workbench, request: pytest.FixtureRequest, environment: str, is_beside: bool
) -> None:
    if is_beside:
        shutil.copy(ROOT / "namespaced_trigger.py", bench.folder)
    bench.python = request.getfixturevalue(environment)
    bench.variables["PYTHONPATH"] = "(unset)"
    assert bench.listened(bench.flow(**listening())) == ["foo.user.alice.food"]
    assert set(modules(bench)) == {(ROOT / "namespaced_trigger.py").read_bytes()}


def test_a_flow_of_the_installed_library_is_rehearsed(
    bench: Workbench, installed: Path, tmp_path: Path
) -> None:
    bench.python = installed
    bench.variables["PYTHONPATH"] = "(unset)"
    parts = listening()
    parts["above"] = f"import own_decorators\n{parts['above']}"
    bench.flow(
        **parts, start="import namespaced_trigger as n; print(n.__file__, own_decorators.__file__)"
    )
    commands = "; ".join(
        f"python DemoFlow.py --no-pylint argo-workflows {each}" for each in ("create", "trigger")
    )
    options = ("--logs", tmp_path / "logs", "bash", "-e", "-c", commands)
    result = bench.run("-m", "rehearsal", *options)
    assert result.status == 0, result.output
    (log,) = (tmp_path / "logs").glob("*/start-0.txt")
    printed = log.read_text()
    assert "/.mf_code/namespaced_trigger.py" in printed
    assert "/.mf_code/own_decorators/" in printed


@pytest.mark.parametrize("is_beside", [True, False])
def test_the_flow_of_a_user_is_type_checked(
    request: pytest.FixtureRequest, tmp_path: Path, is_beside: bool
) -> None:
    consumer = shutil.copy(ROOT / "tests" / "typed_consumer.py", tmp_path)
    configuration = tmp_path / "mypy.ini"
    text = (
        "[mypy]\nstrict = true\ndisallow_subclassing_any = false\n"
        "[mypy-metaflow.*]\nignore_missing_imports = true\nfollow_imports = skip\n"
    )
    if is_beside:
        shutil.copy(ROOT / "namespaced_trigger.py", tmp_path)
    else:  # a module alone cannot say that it has types (PEP 561)
        text += "[mypy-namespaced_trigger]\nfollow_untyped_imports = true\n"
    configuration.write_text(text)
    installed = request.getfixturevalue("installed")
    mypy = ("-m", "mypy", "--config-file", configuration, "--python-executable", installed)
    python(tmp_path, *mypy, consumer)


def test_strict_type_checking_of_a_flow_finds_nothing_inside_the_module(tmp_path: Path) -> None:
    shutil.copy(ROOT / "namespaced_trigger.py", tmp_path)
    flow = tmp_path / "flow.py"
    flow.write_text(
        "from namespaced_trigger import namespaced_trigger\n\n"
        'namespaced_trigger.raise_event("food", project="foo", user="jane")\n'
    )
    python(tmp_path, "-m", "mypy", "--strict", flow)


def test_a_rehearsal_without_what_a_deployment_needs_says_what_to_install(tmp_path: Path) -> None:
    venv.create(tmp_path / "environment", with_pip=False)
    result = subprocess.run(
        [tmp_path / "environment" / "bin" / "python", "-m", "rehearsal", "true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    missing = "boto3 and kubernetes and flask and flask_cors and moto"
    assert f"error: {missing} cannot be imported by " in result.stderr
    advice = "Write: pip install boto3 'kubernetes<36' flask flask-cors 'moto[s3]'\n"
    assert result.stderr.endswith(advice)

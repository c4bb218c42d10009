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
from conftest import ROOT, SECONDS_FOR_A_COMMAND, Workbench, copy_project

GZIP = b"\x1f\x8b"
FLOW = """
@namespaced_trigger(event="food")
@project(name="foo")
class DemoFlow(FlowSpec):
    project = Config("project", default_value={})
"""


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


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project, with what was built from it in dist."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    python(folder, "-m", "build", "--no-isolation")
    return folder


def built(project: Path, pattern: str) -> Path:
    (file,) = (project / "dist").glob(pattern)
    return file


def new_environment(folder: Path, *installed: str | Path) -> Path:
    """Make an environment with Metaflow and what pip is told, and return its Python."""
    venv.create(folder, with_pip=False)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "metaflow.pth").write_text(sysconfig.get_path("purelib"))
    own = folder / "bin" / "python"
    if installed:
        pip = ("-m", "pip", "--python", own, "install", "--no-deps", "--no-index")
        python(folder, *pip, "--no-build-isolation", *installed)
    return own


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


def test_the_wheel_has_the_module_its_types_and_the_rehearsal(project: Path) -> None:
    with zipfile.ZipFile(built(project, "*.whl")) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == {
        "namespaced_trigger/__init__.py",
        "namespaced_trigger/py.typed",
        "rehearsal/py.typed",
        *(f"rehearsal/{path.name}" for path in (ROOT / "rehearsal").glob("*.py")),
    }


def test_a_project_without_symbolic_links_installs_the_module(tmp_path: Path) -> None:
    copy_project(tmp_path / "project")
    link = tmp_path / "project" / "installed" / "namespaced_trigger" / "__init__.py"
    target = "../../namespaced_trigger.py"  # what pip makes of the link in a ZIP file
    link.unlink()
    link.write_text(target)
    new_environment(tmp_path / "environment", tmp_path / "project")
    (module,) = tmp_path.glob(
        "environment/lib/python*/site-packages/namespaced_trigger/__init__.py"
    )
    assert module.read_bytes() == (ROOT / "namespaced_trigger.py").read_bytes()


def modules(bench: Workbench) -> Iterator[bytes]:
    """Return each copy of the module in the code packages that were uploaded."""
    for package in bench.stage.cluster.packages.values():
        if package.startswith(GZIP):
            with tarfile.open(fileobj=io.BytesIO(package)) as archive:
                for name in archive.getnames():
                    if name.endswith(("namespaced_trigger.py", "namespaced_trigger/__init__.py")):
                        file = archive.extractfile(name)
                        assert file is not None
                        yield file.read()


PLACES = {
    "in site-packages": ("installed",),
    "in an editable project": ("editable",),
    "beside the flow": ("beside",),
    "beside the flow and in site-packages": ("beside", "installed"),
    "beside the flow and in an editable project": ("beside", "editable"),
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_the_module_arrives_in_the_code_package(
    bench: Workbench, project: Path, tmp_path: Path, places: tuple[str, ...]
) -> None:
    installed: tuple[str | Path, ...] = ()
    if "installed" in places:
        installed = (built(project, "*.whl"),)
    elif "editable" in places:
        installed = ("--editable", project)
    if "beside" in places:
        shutil.copy(project / "namespaced_trigger.py", bench.folder)
    bench.python = new_environment(tmp_path / "environment", *installed)
    bench.variables["PYTHONPATH"] = "(unset)"
    assert bench.listened(bench.flow(FLOW)) == ["foo.user.alice.food"]
    assert set(modules(bench)) == {(ROOT / "namespaced_trigger.py").read_bytes()}


def test_a_flow_of_the_installed_library_is_rehearsed(
    bench: Workbench, project: Path, tmp_path: Path
) -> None:
    bench.python = new_environment(tmp_path / "environment", built(project, "*.whl"))
    (site_packages,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    (site_packages / "own_decorators").mkdir()
    (site_packages / "own_decorators" / "__init__.py").write_text(DECORATORS)
    (site_packages / "own_decorators-1.dist-info").mkdir()
    (site_packages / "own_decorators-1.dist-info" / "METADATA").write_text("Name: own-decorators\n")
    (site_packages / "own_decorators-1.dist-info" / "RECORD").write_text(
        "own_decorators/__init__.py,,\n"
    )
    bench.variables["PYTHONPATH"] = "(unset)"
    bench.flow(
        f"import own_decorators\n{FLOW}",
        start="import namespaced_trigger as n; print(n.__file__, own_decorators.__file__)",
    )
    commands = "; ".join(
        f"python flow.py --no-pylint argo-workflows {each}" for each in ("create", "trigger")
    )
    options = ("--logs", tmp_path / "logs", "bash", "-e", "-c", commands)
    result = bench.run("-m", "rehearsal", *options)
    assert result.status == 0, result.output
    printed = (tmp_path / "logs" / "run-1.txt").read_text()
    assert "/.mf_code/namespaced_trigger/" in printed
    assert "/.mf_code/own_decorators/" in printed


def test_a_consumer_of_the_wheel_is_type_checked(project: Path, tmp_path: Path) -> None:
    own = new_environment(tmp_path / "environment", built(project, "*.whl"))
    consumer = shutil.copy(ROOT / "tests" / "typed_consumer.py", tmp_path)
    configuration = tmp_path / "mypy.ini"
    configuration.write_text(
        "[mypy]\nstrict = true\ndisallow_subclassing_any = false\n"
        "[mypy-metaflow.*]\nignore_missing_imports = true\nfollow_imports = skip\n"
    )
    mypy = ("-m", "mypy", "--config-file", configuration, "--python-executable", own)
    python(tmp_path, *mypy, consumer)


def test_a_rehearsal_without_what_a_deployment_needs_says_what_to_install(tmp_path: Path) -> None:
    venv.create(tmp_path / "environment", with_pip=False)
    result = subprocess.run(
        [tmp_path / "environment" / "bin" / "python", "-m", "rehearsal", "true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "error: boto3 and kubernetes cannot be imported by " in result.stderr
    assert result.stderr.endswith("Write: pip install boto3 'kubernetes<36'\n")

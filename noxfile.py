"""The tests on every supported Metaflow and Python: `nox`, or `nox -s NAME`."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

# The oldest, those where Metaflow's ways with configs and decorators changed, and the
# platform's. The newest is in constraints.txt, and tests/run.sh tests it.
METAFLOWS = (
    "metaflow==2.16.6",
    "metaflow==2.17.1",
    "metaflow==2.18.13",
    "metaflow==2.19.0",
    "metaflow==2.19.9",
    "metaflow==2.19.10",
    "ob-metaflow==2.19.39.1",
)
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# What Metaflow's versions can do differently: the names of both sides, the forms of
# events, mutators and configs, a deployment, and what is compiled for the pods.
DIFFERS_BY_METAFLOW = (
    *("tests/test_both_sides.py", "tests/test_decorator.py", "tests/test_events.py"),
    "tests/test_own_flows.py::"
    "test_foreach_split_join_retry_catch_switch_and_recursion_run_as_on_argo",
    "tests/test_rehearsal.py::test_an_event_starts_the_listener_of_its_own_namespace_only",
)
# And Python's.
DIFFERS_BY_PYTHON = (
    *DIFFERS_BY_METAFLOW,
    *("tests/test_names.py", "tests/test_publishing.py", "tests/test_refusals.py"),
    *("tests/test_report.py", "tests/test_sensor.py", "tests/test_server.py"),
)

nox.options.error_on_missing_interpreters = False


def install(session: nox.Session, metaflow: str) -> None:
    """Install one Metaflow and the pinned rest."""
    pins = Path("constraints.txt").read_text().splitlines(keepends=True)
    constraints = Path(session.virtualenv.location) / "constraints.txt"
    constraints.write_text("".join(pin for pin in pins if not pin.startswith("metaflow==")))
    project = nox.project.load_toml("pyproject.toml")
    needed = (
        metaflow,
        *project["project"]["optional-dependencies"]["rehearsal"],
        *nox.project.dependency_groups(project, "test"),
    )
    session.install("--quiet", "--constraint", str(constraints), *needed)


def newest_metaflow() -> str:
    """Return what is pinned."""
    pins = Path("constraints.txt").read_text().splitlines()
    return next(pin for pin in pins if pin.startswith("metaflow=="))


@nox.session
@nox.parametrize("metaflow", METAFLOWS)
def metaflows(session: nox.Session, metaflow: str) -> None:
    """Run on one Metaflow what its versions can do differently."""
    install(session, metaflow)
    # ob-metaflow deploys to its own platform only.
    tests = [test for test in DIFFERS_BY_METAFLOW if "::" not in test or "ob-" not in metaflow]
    session.run("python", "-m", "pytest", *tests, *session.posargs)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run on one Python, with the newest Metaflow, what its versions can do differently."""
    install(session, newest_metaflow())
    session.run("python", "-m", "pytest", *DIFFERS_BY_PYTHON, *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Run on the installed wheel, in a folder that has nothing else to import."""
    install(session, newest_metaflow())
    folder = Path(session.create_tmp())
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder))
    session.install("--no-deps", "--force-reinstall", *map(str, folder.glob("*.whl")))
    shutil.copytree("tests", folder / "tests", dirs_exist_ok=True)
    shutil.copy("pyproject.toml", folder)
    session.chdir(folder)
    session.run("python", "-m", "pytest", *DIFFERS_BY_METAFLOW, *session.posargs)

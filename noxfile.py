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
TOOLS = (
    *("boto3", "kubernetes"),
    *("build", "hypothesis", "mypy", "pyte", "pytest", "pytest-xdist", "setuptools"),
)
ABOUT_THE_PROJECT = ("docs", "packaging", "setup")
# These are about the rehearsal itself; test_own_flows.py is about what Metaflow gives it.
SAME_ON_EACH_METAFLOW = ("cluster", "docs", "rehearsal", "sensor", "setup", "why")

nox.options.error_on_missing_interpreters = False


def install(session: nox.Session, metaflow: str) -> None:
    """Install one Metaflow and the pinned rest."""
    pins = Path("constraints.txt").read_text().splitlines(keepends=True)
    constraints = Path(session.virtualenv.location) / "constraints.txt"
    constraints.write_text("".join(pin for pin in pins if not pin.startswith("metaflow==")))
    session.install("--quiet", "--constraint", str(constraints), metaflow, *TOOLS)


def run_tests(session: nox.Session, *left_out: str) -> None:
    """Run the tests but for some files."""
    ignored = [f"--ignore=tests/test_{name}.py" for name in left_out]
    session.run("python", "-m", "pytest", *ignored, *session.posargs)


def newest_metaflow() -> str:
    """Return what is pinned."""
    pins = Path("constraints.txt").read_text().splitlines()
    return next(pin for pin in pins if pin.startswith("metaflow=="))


@nox.session
@nox.parametrize("metaflow", METAFLOWS)
def metaflows(session: nox.Session, metaflow: str) -> None:
    """Run the tests on one Metaflow."""
    # ob-metaflow deploys to its own platform only.
    own_flows = ["own_flows"] * metaflow.startswith("ob-")
    install(session, metaflow)
    run_tests(session, *SAME_ON_EACH_METAFLOW, *own_flows)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the tests on one Python, with the newest Metaflow."""
    install(session, newest_metaflow())
    run_tests(session, "docs", "setup")  # setup_flow.sh has a Python of its own


@nox.session
def wheel(session: nox.Session) -> None:
    """Run the tests on the installed wheel, in a folder that has nothing else to import."""
    install(session, newest_metaflow())
    folder = Path(session.create_tmp())
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder))
    session.install("--no-deps", "--force-reinstall", *map(str, folder.glob("*.whl")))
    shutil.copytree("tests", folder / "tests", dirs_exist_ok=True)
    shutil.copy("pyproject.toml", folder)
    session.chdir(folder)
    run_tests(session, *ABOUT_THE_PROJECT)

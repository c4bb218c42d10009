"""The tests on every supported Metaflow and Python: `nox`, or `nox -s NAME`."""

from __future__ import annotations

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
TOOLS = ("boto3", "kubernetes", "hypothesis", "pyte", "pytest", "pytest-xdist")
# These are about the rehearsal itself; test_own_flows.py is about what Metaflow gives it.
SAME_ON_EACH_METAFLOW = ("cluster", "docs", "rehearsal", "sensor", "setup", "why")

nox.options.error_on_missing_interpreters = False


def run_tests(session: nox.Session, metaflow: str, *left_out: str) -> None:
    """Install one Metaflow and the pinned rest, and run the tests with them."""
    pins = Path("constraints.txt").read_text().splitlines(keepends=True)
    constraints = Path(session.virtualenv.location) / "constraints.txt"
    constraints.write_text("".join(pin for pin in pins if not pin.startswith("metaflow==")))
    session.install("--quiet", "--constraint", str(constraints), metaflow, *TOOLS)
    ignored = [f"--ignore=tests/test_{name}.py" for name in left_out]
    session.run("python", "-m", "pytest", *ignored, *session.posargs)


@nox.session
@nox.parametrize("metaflow", METAFLOWS)
def metaflows(session: nox.Session, metaflow: str) -> None:
    """Run the tests on one Metaflow."""
    # ob-metaflow deploys to its own platform only.
    own_flows = ["own_flows"] * metaflow.startswith("ob-")
    run_tests(session, metaflow, *SAME_ON_EACH_METAFLOW, *own_flows)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the tests on one Python, with the newest Metaflow."""
    pins = Path("constraints.txt").read_text().splitlines()
    metaflow = next(pin for pin in pins if pin.startswith("metaflow=="))
    run_tests(session, metaflow, "docs", "setup")  # setup_flow.sh has a Python of its own

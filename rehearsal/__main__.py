"""`python -m rehearsal COMMAND [ARG...]`: see the package's docstring."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import why
from .report import show
from .stage import Stage

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def main() -> int:
    """Do what the command line says, and return the exit status."""
    if sys.argv[1:2] == ["why"]:
        return why.main(sys.argv[2:])
    return rehearse()


def rehearse() -> int:
    """Rehearse the command that the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal",
        description="Run COMMAND against a stand-in for Argo on this machine, run the "
        "workflows that it starts, and report which event started what. `python -m rehearsal "
        "why --help` is about one event and one Sensor.",
        epilog="Exit status: COMMAND's own if it failed, else 1 where a run failed or an "
        "event was heard by nobody, else 0.",
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the report as JSON")
    parser.add_argument(
        "command",
        metavar="COMMAND [ARG...]",
        nargs=argparse.REMAINDER,
        help="for example: python flow.py argo-workflows create",
    )
    options = parser.parse_args()
    if not options.command:
        parser.error("there is no COMMAND. Write, for example: python -m rehearsal bash deploy.sh")
    if options.report and not options.report.absolute().parent.is_dir():
        parser.error(f"the folder of --report {options.report} is not there")

    for number in ENDING_SIGNALS:
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True) as folder:
        stage = Stage(Path(folder))
        try:
            status = stage.rehearse(options.command)
        except OSError as error:
            problem = f"rehearsal: {options.command[0]!r} cannot be run: {error.strerror}"
            print(problem, file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126
        except Interrupted as interrupted:
            print("rehearsal: interrupted; all that it started is stopped", file=sys.stderr)
            status = 128 + interrupted.number
        report = stage.report()
    show("\n" + report.as_text())
    if options.report:
        report.write(options.report)
    return status or int(bool(report.failures or report.orphans or report.refusals))


class Interrupted(BaseException):
    """A signal that ends the rehearsal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, _frame: Any) -> None:
    for each in ENDING_SIGNALS:  # one is enough, and stopping takes a moment
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())

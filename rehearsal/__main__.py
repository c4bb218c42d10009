"""`python -m rehearsal COMMAND [ARG...]`: see the package's docstring."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import secret, why

# Metaflow imports the first two on `argo-workflows create`. Its own advice is kubernetes without
# a limit, which from 36 on asks for a newer python-dateutil than botocore allows.
NEEDED = {
    "boto3": "boto3",
    "kubernetes": "'kubernetes<36'",
    "flask": "flask",
    "flask_cors": "flask-cors",
    "moto": "'moto[s3]'",
}
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
        epilog="Exit status: COMMAND's own if it failed, 124 after --timeout, 128 and its number "
        "after a signal, else 1 where the report has a problem (a run that failed, an event that "
        "nobody heard), else 0.",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write the report: a page to FILE.html, its picture to FILE.svg, else JSON; may be "
        "given more than once",
    )
    parser.add_argument(
        "--logs",
        metavar="FOLDER",
        type=Path,
        help="keep what the runs print there (default: a new folder among the temporary ones)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive(float),
        help="stop everything after this time (default: never)",
    )
    parser.add_argument(
        "--cycle",
        metavar="N",
        type=_positive(int),
        default=10,
        help="stop a workflow that has started itself N times by the events that it causes "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--webhook-status",
        metavar="STATUS",
        type=_error_status,
        help="let the webhook answer every event with this status, 500 for example",
    )
    parser.add_argument(
        "--fail-create",
        metavar="N",
        type=_positive(int),
        default=0,
        help="let the creation of the next N workflows that events start fail",
    )
    parser.add_argument(
        "--secret",
        metavar="NAME=FILE",
        type=secret.read,
        action="append",
        default=[],
        help="let the steps that ask for the secret NAME have it, by @kubernetes(secrets=...) or "
        "@secrets; FILE has lines KEY=VALUE, and comments behind #; may be given more than once",
    )
    parser.add_argument(
        "command",
        metavar="COMMAND [ARG...]",
        nargs=argparse.REMAINDER,
        help="for example: python flow.py argo-workflows create; the options of the rehearsal "
        "stand before it",
    )
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command:
        parser.error("there is no COMMAND. Write, for example: python -m rehearsal bash deploy.sh")
    for path in options.report:
        if not path.absolute().parent.is_dir():
            parser.error(f"the folder of --report {path} is not there")
        if path.is_dir():
            parser.error(f"--report {path} is a folder. Write the name of a file")
    if options.logs and options.logs.exists() and not options.logs.is_dir():
        parser.error(f"--logs {options.logs} is a file. Write the name of a folder")
    try:
        options.secrets = secret.named(options.secret)
    except ValueError as error:
        parser.error(str(error))
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing:
        parser.error(
            f"{' and '.join(missing)} cannot be imported by {sys.executable}, and a rehearsal "
            f"needs {'it' if len(missing) == 1 else 'them'}. Write: pip install "
            f"{' '.join(NEEDED[name] for name in missing)}"
        )

    for number in ENDING_SIGNALS:
        signal.signal(number, _interrupt)
    try:
        return _rehearse(options)
    except OSError as error:  # there is no room on the disk, for example
        print(f"rehearsal: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return 128 + interrupted.number


def _rehearse(options: argparse.Namespace) -> int:
    # moto makes a session of boto3, which is not to read the user's settings.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    # They import what may be missing, and take a while.
    from .cluster import Faults
    from .display import Display
    from .stage import CannotRun, Stage, TimedOut

    logs = options.logs or Path(tempfile.mkdtemp(prefix="rehearsal-logs-"))
    logs.mkdir(parents=True, exist_ok=True)
    faults = Faults(options.webhook_status, options.fail_create)
    display = Display()
    try:
        with tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True) as folder:
            stage = Stage(
                Path(folder),
                logs,
                display,
                faults,
                options.timeout,
                options.cycle,
                options.secrets,
            )
            try:
                status = stage.rehearse(options.command)
            except CannotRun as problem:
                print(f"rehearsal: {problem}", file=sys.stderr)
                return problem.status
            except TimedOut as problem:
                print(
                    f"rehearsal: {problem} after {options.timeout:g} s; all that it started is "
                    "stopped",
                    file=sys.stderr,
                )
                status = 124  # as timeout(1) has it
            except Interrupted as interrupted:
                print("rehearsal: interrupted; all that it started is stopped", file=sys.stderr)
                status = 128 + interrupted.number
            report = stage.report()
        display.show(f"\n{report.as_text()}\n")
        for path in options.report:
            report.write(path)
    finally:
        if not options.logs and not any(logs.iterdir()):
            logs.rmdir()
    return status or int(bool(report.problems))


def _positive(number: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = number(text)
        if not value > 0:
            raise ValueError(text)
        return value

    parse.__name__ = "positive number"  # argparse says so of what is none
    return parse


def _error_status(text: str) -> int:
    if not re.fullmatch(r"[45]\d\d", text):
        raise argparse.ArgumentTypeError(f"{text} is not an HTTP status from 400 to 599")
    return int(text)


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

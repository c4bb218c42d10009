"""`python -m rehearsal COMMAND [ARG...]`: see the package's docstring."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from .stage import Stage


def main() -> int:
    """Rehearse the command that the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal",
        description="Run COMMAND against a stand-in for Argo on this machine, run the "
        "workflows that it starts, and report which event started what.",
        epilog="Exit status: COMMAND's own if it failed, else 1 where a run failed or an "
        "event was heard by nobody, else 0.",
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the report as JSON")
    parser.add_argument("command", metavar="COMMAND", help="for example: python flow.py ...")
    parser.add_argument("arguments", metavar="ARG", nargs=argparse.REMAINDER)
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, _terminate)
    with tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True) as folder:
        stage = Stage(Path(folder))
        try:
            status = stage.rehearse([options.command, *options.arguments])
        except FileNotFoundError as error:
            print(f"rehearsal: there is no command {error.filename!r}", file=sys.stderr)
            return 127
        except KeyboardInterrupt:
            print("rehearsal: interrupted; everything it started is stopped", file=sys.stderr)
            return 130
        report = stage.report()
    print("\n" + report.as_text(), flush=True)
    if options.report:
        report.write(options.report)
    return status or int(bool(report.failures or report.orphans))


def _terminate(*_: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

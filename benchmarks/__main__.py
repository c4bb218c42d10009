"""`python -m benchmarks`: measures everything in turns and prints a table in Markdown."""

from __future__ import annotations

import os
import platform
import time

import metaflow

from . import library, rehearsal_itself

HEAD = ("what", "first", "second", "ratio")


def main() -> None:
    """Print the table, each row as soon as it is known."""
    print(
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, Metaflow "
        f"{metaflow.__version__}, {platform.system()} on {os.cpu_count()} cores\n"
    )
    for cells in (HEAD, ["---"] * len(HEAD)):
        print(f"| {' | '.join(cells)} |")
    for measure in (library, rehearsal_itself):
        for pair in measure.pairs():
            print(f"| {' | '.join(pair.cells())} |", flush=True)


if __name__ == "__main__":
    main()

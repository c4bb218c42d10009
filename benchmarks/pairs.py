"""Compares two things in one run, since no two runs of a machine are alike."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """A row of the table: two things, and the seconds that each took in each turn."""

    what: str
    first: str
    second: str
    seconds: list[tuple[float, float]]

    def cells(self) -> list[str]:
        """Return what is compared, both medians with their spread, and the ratio with its own."""
        firsts, seconds = zip(*self.seconds, strict=True)
        ratios = [first / second for first, second in self.seconds]
        return [
            self.what,
            f"{self.first}: {_spread(firsts, 1000, '.2f')} ms",
            f"{self.second}: {_spread(seconds, 1000, '.2f')} ms",
            _spread(ratios, 1, ".3f"),
        ]


def in_turns(
    what: str,
    first: tuple[str, Callable[[], float]],
    second: tuple[str, Callable[[], float]],
    turns: int,
) -> Pair:
    """Measure both in each turn, and in every other turn the second one first."""
    seconds = []
    for turn in range(turns):
        if turn % 2:
            later = second[1]()
            seconds.append((first[1](), later))
        else:
            seconds.append((first[1](), second[1]()))
    return Pair(what, first[0], second[0], seconds)


def processor_seconds(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> float:
    """Run a command, and return how long it kept the processor busy."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} exited with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def _spread(values: Sequence[float], factor: float, form: str) -> str:
    """Return the median, and between which values the middle half lies."""
    low, middle, high = (factor * each for each in statistics.quantiles(values, n=4))
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"

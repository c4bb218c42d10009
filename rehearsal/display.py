"""The display: what a rehearsal says while it works.

In a terminal, a line for each run that has not ended stands below everything else, and
is kept up to date. Elsewhere there are plain lines only.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .run import Run
from .workflow import Ended, Pod

_SECONDS_BETWEEN_UPDATES = 0.25
_SECONDS_FOR_THE_REST = 1
_UP_AND_CLEAR_BELOW = "\x1b[{}F\x1b[J"


def how_it_ended(exit_code: int) -> str:
    """Return an exit code in words, as a shell has it: 137 is signal 9."""
    if exit_code > 128:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(exit_code - 128).name}"
    return f"exit status {exit_code}"


class Display:
    """Prints what happens, a whole text at a time, to the standard output."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # which may not have every character
            sys.stdout.reconfigure(errors="backslashreplace")
        self._is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._runs: dict[str, tuple[Run, float]] = {}  # those that have not ended, since when
        self._lines = 0  # how many of their lines stand above the cursor
        self._printing = threading.Lock()
        self._reader = threading.Thread()

    def say(self, what: str, about: str) -> None:
        """Print one line about something that has happened."""
        self.show(f"[rehearsal] {what:<9} {about}\n")

    def show(self, text: str) -> None:
        """Print text, above the lines of the runs."""
        with self._printing:
            self._print(self._cleared() + text + self._drawn())

    def show_failure(self, pod: Pod, ended: Ended, log: Path) -> None:
        """Print what a pod that failed has printed, and how it ended."""
        step = f"{pod.workflow}/{log.stem}"
        lines = log.read_text("utf-8", errors="replace").splitlines()
        self.show("".join(f"[{step}] {line}\n" for line in lines))
        self.say("failed", f"{step}: {ended.reason or how_it_ended(ended.exit_code)}")

    def add(self, run: Run) -> None:
        """Show a line for a run from now on."""
        with self._printing:
            self._runs[run.name] = (run, time.monotonic())

    def remove(self, run: Run) -> None:
        """Show no line for a run any more."""
        with self._printing:
            self._runs.pop(run.name, None)

    @contextmanager
    def updates(self) -> Iterator[None]:
        """Keep the lines of the runs up to date, in a terminal, and remove them at the end."""
        is_over = threading.Event()

        def update() -> None:
            while not is_over.wait(_SECONDS_BETWEEN_UPDATES):
                self.show("")

        thread = threading.Thread(target=update, daemon=True)
        if self._is_live:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            if thread.is_alive():
                thread.join()
            with self._printing:
                self._runs.clear()
            self.show("")

    def start(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a command whose output stays above the lines of the runs.

        It gets a session of its own, so that it ends with all that it has started.
        """
        if not self._is_live:
            return subprocess.Popen(command, env=environment, start_new_session=True)
        # A terminal of its own, so that it writes as it would to the user's.
        reading, writing = os.openpty()
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(writing, termios.TIOCSWINSZ, size)
        try:
            process = subprocess.Popen(
                command, env=environment, start_new_session=True, stdout=writing, stderr=writing
            )
        finally:
            os.close(writing)
        self._reader = threading.Thread(target=self._copy, args=(reading,), daemon=True)
        self._reader.start()
        return process

    def show_the_rest(self) -> None:
        """Show what a command that has ended wrote last."""
        if self._reader.is_alive():
            # Not for ever: what it has left running may keep its terminal open.
            self._reader.join(_SECONDS_FOR_THE_REST)

    def _copy(self, reading: int) -> None:
        line = b""
        while True:
            try:
                chunk = os.read(reading, 65536)
            except OSError:  # Linux says so where nobody can write any more
                chunk = b""
            *lines, line = (line + chunk).split(b"\n")
            if not chunk and line:
                lines.append(line)
            if lines:
                self.show("".join(each.decode(errors="replace") + "\n" for each in lines))
            if not chunk:
                os.close(reading)
                return

    def _cleared(self) -> str:
        cleared = _UP_AND_CLEAR_BELOW.format(self._lines) if self._lines else ""
        self._lines = 0
        return cleared

    def _drawn(self) -> str:
        if not self._is_live:
            return ""
        size = shutil.get_terminal_size()
        lines = [
            f"  {run.phase.lower():<8} {time.monotonic() - since:4.0f} s  {run.name}"
            for run, since in list(self._runs.values())[: size.lines - 2]
        ]
        self._lines = len(lines)
        return "".join(f"{line[: size.columns - 1]}\n" for line in lines)

    def _print(self, text: str) -> None:
        try:
            print(text, end="", flush=True)
        except OSError:
            # Nobody reads it any more, or there is no room: the rehearsal goes on
            # without, and its exit status says how it ended.
            self._is_live = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""`python -m rehearsal` from the outside; what its report says is in test_report.py."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
from dataclasses import replace
from pathlib import Path

import pyte
import pytest
from conftest import ROOT, SECONDS_FOR_A_COMMAND, Rehearse, Workbench, has_traceback
from flows import listening, publishing

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
CREATE_AND_TRIGGER = """
set -e
python Down.py --config-value project '{"branch": "bar"}' argo-workflows create
python Up.py --branch bar argo-workflows create
python Up.py --branch bar argo-workflows trigger
"""
TRIGGER_ALONE = "set -e; python Up.py argo-workflows create; python Up.py argo-workflows trigger"


def write_flows(bench: Workbench, start: str = publishing(), **down: str) -> None:
    bench.flow("Up", start=start)
    bench.flow("Down", **{**listening(), **down})


def test_an_event_starts_the_listener_of_its_own_namespace_only(
    bench: Workbench, rehearse: Rehearse
) -> None:
    write_flows(bench)
    other = (
        """python Down.py --config-value project '{"branch": "other"}' argo-workflows create\n"""
    )
    rehearsal = rehearse(other + CREATE_AND_TRIGGER)
    assert rehearsal.status == 0, rehearsal.output
    (event,) = rehearsal.report["events"]
    assert event["name"] == "foo.test.bar.food"
    assert event["listeners"] == ["foo-test-bar-down"]
    (started,) = event["started"]
    assert started.startswith("foo.test.bar.down-")
    for line in (
        "[rehearsal] deployed  foo.test.bar.up\n",
        "[rehearsal] listens   foo.test.bar.down to foo.test.bar.food\n",
        f"[rehearsal] triggered {event['publisher']}\n",
        f"[rehearsal] published foo.test.bar.food by {event['publisher']}\n",
        f"[rehearsal] started   {started} by foo.test.bar.food\n",
        f"[rehearsal] succeeded {started} after ",
    ):
        assert line in rehearsal.output
    (row,) = rehearsal.table[1:]
    assert row.split() == ["foo.test.bar.food", event["publisher"], started, "succeeded"]


def test_a_failed_step_is_shown_with_its_status_and_fails_the_rehearsal(
    bench: Workbench, rehearse: Rehearse
) -> None:
    write_flows(bench, start="raise ValueError('spoiled')")
    rehearsal = rehearse(TRIGGER_ALONE)
    assert rehearsal.status == 1
    (run,) = rehearsal.report["runs"]
    assert f"[{run['name']}/start-0] ValueError: spoiled\n" in rehearsal.output
    assert f"[rehearsal] failed    {run['name']}/start-0: exit status 1\n" in rehearsal.output
    assert f"Failed: {run['name']}\n" in rehearsal.output


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_status_of_the_command_is_the_status_of_the_rehearsal(
    rehearse: Rehearse, script: str, status: int
) -> None:
    rehearsal = rehearse(script)
    assert rehearsal.status == status
    assert "No event was published." in rehearsal.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["no-such-command"], 127, "rehearsal: 'no-such-command' cannot be run: No such file"),
        (["/"], 126, "rehearsal: '/' cannot be run: Permission denied"),
        ([], 2, "there is no COMMAND. Write, for example: python -m rehearsal bash deploy.sh"),
        (["--report", "/no/such.json", "true"], 2, "the folder of --report /no/such.json is not"),
        (["--timeout", "0", "true"], 2, "invalid positive number value: '0'"),
        (["--webhook-status", "200", "true"], 2, "200 is not an HTTP status from 400 to 599"),
        (["--webhook-status", "foo", "true"], 2, "foo is not an HTTP status from 400 to 599"),
        (["--report", "tests", "true"], 2, "--report tests is a folder. Write the name of a file"),
        (["--logs", "pyproject.toml", "true"], 2, "--logs pyproject.toml is a file. Write the"),
        (["--", "pyproject.toml"], 127, "No such file or directory. Write what runs it: python "),
    ],
)
def test_a_command_line_that_cannot_work_is_refused(
    rehearse: Rehearse, arguments: list[str], status: int, message: str
) -> None:
    rehearsal = replace(rehearse, folder=ROOT).command(*arguments)
    assert rehearsal.status == status
    assert message in rehearsal.output
    assert not has_traceback(rehearsal.output)


def test_a_rehearsal_goes_on_when_nobody_reads_its_output(bench: Workbench) -> None:
    write_flows(bench)
    report = bench.folder / "report.json"
    script = f"exec > /dev/null 2>&1\n{TRIGGER_ALONE}"
    with subprocess.Popen(
        [sys.executable, "-m", "rehearsal", "--report", report, "bash", "-c", script],
        cwd=bench.folder,
        env={**ENVIRONMENT, "TMPDIR": os.fspath(bench.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("[rehearsal] deployed")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(SECONDS_FOR_A_COMMAND) == 1  # nobody heard the event
    (run,) = json.loads(report.read_text())["runs"]
    assert run["phase"] == "Succeeded"


def test_the_user_s_own_settings_are_neither_used_nor_changed(
    bench: Workbench, rehearse: Rehearse, tmp_path: Path
) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    (home / ".metaflowconfig").mkdir(parents=True)
    settings = home / ".metaflowconfig" / "config.json"
    settings.write_text('{"METAFLOW_DEFAULT_DATASTORE": "azure", "METAFLOW_USER": "eve"}')
    temporary.mkdir()
    write_flows(bench)
    before = sorted(home.rglob("*"))
    rehearsal = rehearse(
        CREATE_AND_TRIGGER,
        HOME=os.fspath(home),
        TMPDIR=os.fspath(temporary),
        METAFLOW_PROFILE="production",
        METAFLOW_DEFAULT_METADATA="service",
        METAFLOW_SERVICE_URL="http://127.0.0.1:9",
        KUBECONFIG="/nowhere",
        AWS_PROFILE="production",
        http_proxy="http://127.0.0.1:9",
    )
    assert rehearsal.status == 0, rehearsal.output
    assert sorted(home.rglob("*")) == before
    written = sorted(path.name for path in bench.folder.iterdir())
    assert written == ["Down.py", "Up.py", "report.json"]
    (logs,) = temporary.iterdir()  # what the runs printed stays; the report says where
    assert [len(list(folder.iterdir())) for folder in logs.iterdir()] == [2, 2]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_an_interrupted_rehearsal_stops_what_it_started(bench: Workbench, number: int) -> None:
    marker = bench.folder / "pid"
    bench.flow(
        "Up",
        start=f"open({str(marker)!r}, 'w').write(str(__import__('os').getpid()))\n"
        "__import__('time').sleep(600)",
    )
    script = textwrap.dedent(
        f"""
        {TRIGGER_ALONE}
        for try in $(seq 600); do [ -s {marker} ] && break; sleep 0.1; done
        sleep 600 &
        echo child $!
        echo ready
        wait
        """
    )
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(
            [sys.executable, "-m", "rehearsal", "bash", "-c", script],
            cwd=bench.folder,
            env={**ENVIRONMENT, "TMPDIR": temporary},
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        lines = list(itertools.takewhile("ready\n".__ne__, process.stdout))
        try:
            assert marker.exists(), lines
            process.send_signal(number)
            output = process.stdout.read()
            assert process.wait(30) == 128 + number
        finally:
            process.kill()
        assert "No event was published." in output
        assert not Path(f"/proc/{marker.read_text()}").exists()
        assert not Path(f"/proc/{lines[-1].split()[1]}").exists()
        (logs,) = Path(temporary).iterdir()
        assert f"{logs}/Up-" in output


def test_what_a_run_prints_is_kept_by_step_and_attempt(
    bench: Workbench, rehearse: Rehearse
) -> None:
    start = "@retry(times=1, minutes_between_retries=0)\n@step\ndef start(self):\n"
    start += "    assert current.retry_count\n    self.next(self.end)\n"
    bench.flow("Up", steps=f"{start}@step\ndef end(self):\n    print('the end')\n")
    rehearsal = rehearse(TRIGGER_ALONE, "--logs", "logs/new")
    assert rehearsal.status == 0, rehearsal.output
    (run,) = rehearsal.report["runs"]
    assert run["output"] == f"logs/new/Up-{run['name']}"
    logs = {path.name: path.read_text() for path in (bench.folder / run["output"]).iterdir()}
    assert sorted(logs) == ["end-0.txt", "start-0.txt", "start-1.txt"]
    assert "AssertionError" in logs["start-0.txt"]
    assert "the end\n" in logs["end-0.txt"]
    (shown,) = (line for line in rehearsal.output.splitlines() if line.endswith(run["output"]))
    assert shown.split()[1] == "succeeded"


def test_a_command_that_hangs_is_stopped_after_the_timeout(rehearse: Rehearse) -> None:
    rehearsal = rehearse("sleep 600 & echo child $!; wait", "--timeout", "1")
    assert rehearsal.status == 124
    assert "rehearsal: 'bash' has not ended after 1 s; all that it started is stopped\n" in (
        rehearsal.output
    )
    (child,) = (line for line in rehearsal.output.splitlines() if line.startswith("child "))
    assert not Path(f"/proc/{child.split()[1]}").exists()


def test_a_run_that_never_ends_is_stopped_after_the_timeout(
    bench: Workbench, rehearse: Rehearse
) -> None:
    bench.flow("Up", start="print('begun', flush=True)\n__import__('time').sleep(600)")
    rehearsal = rehearse(TRIGGER_ALONE, "--timeout", "20")
    assert rehearsal.status == 124
    assert "rehearsal: not all runs have ended after 20 s" in rehearsal.output
    (run,) = rehearsal.report["runs"]
    assert run["phase"] == "Stopped"
    assert "begun" in (bench.folder / run["output"] / "start-0.txt").read_text()


@pytest.mark.parametrize(
    ("kilobytes", "message"), [(0, "rehearsal: [Errno "), (20_000, "OSError: [Errno 27] File too")]
)
def test_a_full_disk_ends_the_rehearsal_with_a_message(
    bench: Workbench, kilobytes: int, message: str
) -> None:
    write_flows(bench, start="open('large', 'wb').write(bytes(21_000_000))")
    script = f'ulimit -f {kilobytes}; exec "$0" -m rehearsal bash -c "$1"'
    process = subprocess.run(
        ["bash", "-c", script, sys.executable, CREATE_AND_TRIGGER],
        cwd=bench.folder,
        env={**ENVIRONMENT, "TMPDIR": os.fspath(bench.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_FOR_A_COMMAND,
    )
    assert process.returncode == 1
    assert message in process.stdout
    assert "rehearsal/__main__.py" not in process.stdout  # in a traceback of its own
    left = [path.name for path in bench.folder.iterdir()]
    assert sorted(name for name in left if "rehearsal-logs-" not in name) == ["Down.py", "Up.py"]


def test_a_terminal_shows_a_line_for_each_run_that_has_not_ended(bench: Workbench) -> None:
    bench.flow("Up")
    reading, writing = os.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "rehearsal", "bash", "-c", f"{TRIGGER_ALONE}; echo end"],
        cwd=bench.folder,
        env={**ENVIRONMENT, "TMPDIR": os.fspath(bench.folder), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=writing,
    ) as process:
        os.close(writing)
        screen = pyte.Screen(120, 40)
        stream = pyte.ByteStream(screen)
        seen: set[str] = set()
        with contextlib.suppress(OSError):  # what Linux says at the end
            while chunk := os.read(reading, 65536):
                stream.feed(chunk)
                seen.update(line.split()[0] for line in screen.display if " s  foo." in line)
        os.close(reading)
        assert process.wait() == 0
    shown = [line.rstrip() for line in screen.display]
    assert "running" in seen
    assert "end" in shown  # what the command has printed
    assert not any(" s  foo." in line for line in shown), shown
    assert sum("succeeded foo." in line for line in shown) == 1

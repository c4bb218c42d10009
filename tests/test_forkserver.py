"""The `python` of a fork server is as a new Python: what goes in, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal.forkserver import fork_server

MODULES = ("json", "metaflow")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fork_server(tmp_path_factory.mktemp("fork") / "python", os.environ, MODULES) as python:
        yield python


def run(python: Path | str, *arguments: str, **options: Any) -> tuple[int, str, str]:
    options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
    result = subprocess.run([python, *arguments], capture_output=True, text=True, **options)
    return result.returncode, result.stdout, result.stderr


PROGRAMS = {
    "arguments": "import sys; print(sys.argv, sys.path[0], __name__)",
    "a status": "import sys; sys.exit(3)",
    "a text as status": "raise SystemExit('the reason')",
    "an error": "def f():\n    1 / 0\nf()",
    "a signal": "import os; os.kill(os.getpid(), 9)",
    "standard input": "print(input() * 2)",
    "a thread": "import threading, time\nthreading.Timer(0.1, lambda: print('late')).start()",
    "at exit": "import atexit; atexit.register(print, 'last')",
    "the environment": "import os; print(os.environ['GIVEN'], 'HOME' in os.environ)",
    "the folder": "import os, tempfile; print(os.getcwd(), tempfile.gettempdir())",
    "imported": "import sys; print('own' in sys.modules); import own; print(own.__file__)",
    "a class": "import pickle\nclass A: pass\nprint(pickle.loads(pickle.dumps(A())).__class__)",
}


@pytest.mark.parametrize("kind", ["-c", "file", "-m"])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_command_does_in_a_fork_what_it_does_in_a_new_python(
    python: Path, tmp_path: Path, program: str, kind: str
) -> None:
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "own.py").write_text("")
    own = {"-c": ["-c", program], "file": ["program.py"], "-m": ["-m", "program"]}[kind]
    environment = {"GIVEN": "value", "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    kept = ("PYTHON", "LANG", "LC_")  # what differs in these gets a new Python
    environment.update({key: os.environ[key] for key in os.environ if key.startswith(kept)})
    options = {"cwd": tmp_path, "env": environment, "input": "text"}
    assert run(python, *own, "given", **options) == run(sys.executable, *own, "given", **options)


def is_forked(python: Path, *arguments: str, **options: Any) -> bool:
    """Whether a command sees what the server has imported."""
    code = "import sys; print('metaflow' in sys.modules)"
    status, output, errors = run(python, *arguments, "-c", code, **options)
    assert status == 0, errors
    return output == "True\n"


def test_a_fork_is_a_new_python_if_it_could_differ(python: Path, tmp_path: Path) -> None:
    assert is_forked(python)
    assert is_forked(python, env={**os.environ, "GIVEN": "1", "METAFLOW_OWNER": "jane"})
    assert not is_forked(python, "-B")
    for variable in ("METAFLOW_USER", "METAFLOW_PROFILE_X", "PYTHONHASHSEED", "LC_ALL"):
        differs = is_forked(python, env={**os.environ, variable: "7"})
        assert differs == (variable == "METAFLOW_PROFILE_X"), variable
    (tmp_path / "json.py").write_text("print('another')")
    assert not is_forked(python, cwd=tmp_path)
    assert not is_forked(python, env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd="/")


def test_a_script_that_is_not_there_is_told_as_python_does(python: Path) -> None:
    status, output, errors = run(python, "nowhere.py")
    assert (status, output) == (2, "")
    assert "can't open file" in errors
    assert "Traceback" not in errors


def test_a_signal_reaches_the_command(python: Path) -> None:
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(5))\n"
    code += "print('ready', flush=True)\ntime.sleep(600)"
    with subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 5


def test_killing_a_command_kills_what_it_started(python: Path) -> None:
    code = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
    code += "print(child.pid, flush=True)\nchild.wait()"
    with subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == ""  # which ends when nobody can write any more


def test_a_file_that_is_handed_on_is_open(python: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", f"{python} <(echo 'print(1 + 1)')"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, "2\n"), result.stderr


def test_without_its_server_it_is_a_new_python(tmp_path: Path) -> None:
    with fork_server(tmp_path / "python", os.environ, ()) as python:
        pass
    assert run(python, "-c", "print('here')") == (0, "here\n", "")

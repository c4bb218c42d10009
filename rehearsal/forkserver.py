"""The fork server: a Python that has imported Metaflow, and forks for each command.

Importing Metaflow and the clients of its cluster takes most of the time of a short
command. `fork_server` yields a `python` that runs a command in a fork of a process which
has imported them already. What is the command's own, its arguments, its environment, its
working folder, its streams and how it ends, is as with a new Python. A command that a
fork cannot run as a new Python would, gets a new Python.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import marshal
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from . import forkclient

SECONDS_TO_STOP = 5
LONGEST_INTERPRETER = 100  # that the first line of a script can name everywhere
MOST_FILES = 253  # that Linux passes at once

# What a Python reads when it starts, or Metaflow and kubernetes while they are imported,
# beside the settings that Metaflow itself lists.
READ_AT_START = ("PYTHON", "LANG", "LC_", "METAFLOW_ENV_ESCAPE_", "METAFLOW_EXTENSIONS_")
READ_ON_IMPORT = ("METAFLOW_DEBUG_EXT", "DISABLE_TRACING", "TEST_S3_RETRY", "KUBECONFIG")
# Of these, what a fork can still obey, and whether Metaflow warns of its escape hatch.
READ_BY_A_FORK = ("PYTHONPATH", "PYTHONUNBUFFERED", "METAFLOW_ESCAPE_HATCH_WARNING")
# Metaflow's default is the working folder, as an absolute path; the fork has its own.
WORKING_FOLDER = {"METAFLOW_ARTIFACT_LOCALROOT": "."}

Request = tuple[list[str], dict[str, str], str, int, list[int]]


@contextlib.contextmanager
def fork_server(
    folder: Path,
    environment: Mapping[str, str],
    modules: Sequence[str],
    *,
    prepare: Callable[[], Callable[[], None]] | None = None,
    prepared: Sequence[str] = (),
    twins: Sequence[str] = (),
) -> Iterator[Path]:
    """Run a fork server for the time of the context.

    Parameters
    ----------
    folder : Path
        A new folder for its address, its `python` and its `python3`.
    environment : mapping
        The environment in which the modules are imported.
    modules : sequence of str
        What the commands need: none that builds on a command's own arguments.
    prepare : callable, optional
        A function of a module, called in the server when it has imported the modules.
        What it returns is called in each fork before its command.
    prepared : sequence of str
        Variables that it obeys, so that they may differ from the server's.
    twins : sequence of str
        Modules that a command may find elsewhere, since they are the same there.

    Yields
    ------
    Path
        The `python`. Killing one kills its command and what that has started.
    """
    folder.mkdir()
    listener = _listener(folder)
    python = folder / "python"
    python.write_text(_client(folder))
    python.chmod(0o755)
    (folder / "python3").symlink_to(python)
    own = os.fspath(Path(__file__).parent.parent)
    options = {
        "python": os.fspath(python),
        "modules": list(modules),
        "prepare": prepare and (prepare.__module__, prepare.__name__),
        "prepared": tuple(prepared),
        "twins": tuple(twins),
    }
    # It binds no names: what it runs in is the __main__ of each command.
    code = (
        f"__import__('sys').path.insert(0, {own!r}); __import__('rehearsal.forkserver')"
        f".forkserver.serve({listener.fileno()}, **{options!r})"
    )
    with listener:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**WORKING_FOLDER, **environment},
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        yield python
    finally:
        process.terminate()
        process.stdin.close()  # which tells it as well, if this process is killed
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _client(folder: Path) -> str:
    """Return the text of the `python`: a script for the interpreter itself, which starts fast."""
    interpreter = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(forkclient.__file__)!r})\n"
        f"import forkclient; forkclient.main({os.fspath(folder)!r}, {sys.executable!r})\n"
    )
    if " " in interpreter or len(interpreter) > LONGEST_INTERPRETER:
        return f'#!/bin/sh\nexec {shlex.join([interpreter, "-ISc", code])} "$@"\n'
    return f"#!{interpreter} -IS\n{code}"


def _listener(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A path can be too long for an address; one by the number of its folder is not.
    number = os.open(folder, os.O_RDONLY)
    own = Path(f"/proc/self/fd/{number}")
    listener.bind(os.fspath((own if own.exists() else folder) / forkclient.ADDRESS))
    os.close(number)
    listener.listen(128)
    return listener


def serve(
    listener: int,
    python: str,
    modules: Sequence[str],
    prepare: tuple[str, str] | None,
    prepared: Sequence[str],
    twins: Sequence[str],
) -> None:
    """Fork for each command, until the standard input ends."""
    function = prepare and getattr(importlib.import_module(prepare[0]), prepare[1])
    del sys.path[0]
    for name in modules:
        importlib.import_module(name)
    in_a_fork = function and function()
    for name in [name for name in sys.modules if name.split(".")[0] == "rehearsal"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()
    _Server(socket.socket(fileno=listener), python, in_a_fork, prepared, twins).serve()


class _Server:
    def __init__(
        self,
        listener: socket.socket,
        python: str,
        prepare: Callable[[], None] | None,
        prepared: Sequence[str],
        twins: Sequence[str],
    ) -> None:
        self.listener = listener
        self.python = python
        self.prepare = prepare
        self.prepared = prepared
        self.twins = twins
        self.environment = dict(os.environ)
        self.path = [each for each in sys.path[1:] if each not in _python_path(self.environment)]
        self.commands: dict[int, socket.socket] = {}  # by the number of the process
        self.selector = selectors.DefaultSelector()
        self.ended, self.wakeup = socket.socketpair()

    def serve(self) -> None:
        """Accept commands, forward signals, and answer how a command has ended."""
        self.wakeup.setblocking(False)
        signal.set_wakeup_fd(self.wakeup.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        for readable in (self.listener, sys.stdin, self.ended):
            self.selector.register(readable, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    self._stop()
                elif key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is self.ended:
                    self.ended.recv(4096)
                    self._reap()
                elif key.data in self.commands:  # else it has just been reaped
                    self._forward(key.data)

    def close(self) -> None:
        """Close what only the server needs."""
        for each in (self.listener, self.selector, self.ended, self.wakeup):
            each.close()
        for connection in self.commands.values():
            connection.close()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        with contextlib.ExitStack() as opened:
            opened.enter_context(connection)
            try:
                request, files = _receive(connection)
            except (EOFError, OSError):  # it was killed meanwhile
                return
            for file in files:
                opened.callback(os.close, file)
            number = os.fork()
            if not number:
                connection.close()
                _Command(request, self).run(files)
            connection = connection.dup()
        self.commands[number] = connection
        self.selector.register(connection, selectors.EVENT_READ, number)

    def _forward(self, number: int) -> None:
        """Send on what signals a client got; one that is gone was killed."""
        signals: Sequence[int] = ()
        with contextlib.suppress(ConnectionError):
            signals = self.commands[number].recv(64)
        for each in signals or (signal.SIGKILL,):
            _signal_group(number, each)
        if not signals:
            self.selector.unregister(self.commands[number])
            self.commands.pop(number).close()

    def _reap(self) -> None:
        while True:
            try:
                number, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not number:
                return
            if connection := self.commands.pop(number, None):
                self.selector.unregister(connection)
                answer = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(OSError), connection:
                    connection.send(answer.to_bytes(forkclient.SIZE_BYTES, "big", signed=True))

    def _stop(self) -> NoReturn:
        for number in self.commands:
            _signal_group(number, signal.SIGKILL)
        os._exit(0)


class _Command:
    """A command, in the fork that runs it."""

    def __init__(self, request: Request, server: _Server) -> None:
        self.arguments, self.environment, self.folder, self.umask, self.files = request
        self.server = server
        self.is_unbuffered = bool(self.environment.get("PYTHONUNBUFFERED"))
        if self.arguments[:1] == ["-u"]:
            self.is_unbuffered = True
            del self.arguments[0]

    def run(self, received: Sequence[int]) -> NoReturn:
        """Become the command: with its streams, its environment, and its folder."""
        status = 1
        try:
            os.setsid()  # so that all that it starts can be ended with it
            signal.set_wakeup_fd(-1)
            for each in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(each, signal.SIG_DFL)
            self.server.close()
            self._take_files(received)
            os.umask(self.umask)
            os.chdir(self.folder)
            os.environ.clear()
            os.environ.update(self.environment)
            tempfile.tempdir = None  # it is another one
            if self._needs_a_new_python():
                unbuffered = ["-u"] * self.is_unbuffered
                os.execv(sys.executable, [sys.executable, *unbuffered, *self.arguments])
            sys.executable = self.server.python
            sys.path[:] = [
                self._first_folder(),
                *_python_path(self.environment),
                *self.server.path,
            ]
            if self.server.prepare:
                self.server.prepare()
            status = self._execute()
            threading._shutdown()  # type: ignore[attr-defined]  # as Python does at its end
            atexit._run_exitfuncs()
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        finally:
            os._exit(status)

    def _take_files(self, received: Sequence[int]) -> None:
        """Open what the client had open, under the same numbers."""
        above = max([2, *self.files]) + 1
        copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, above) for each in received]
        for each in received:
            os.close(each)
        for number, copy in zip(self.files, copies, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            if number not in self.files:
                os.close(number)
                setattr(sys, name, None)
                continue
            stream = self._new_stream(number, name, getattr(sys, name))
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def _new_stream(self, number: int, name: str, own: TextIO) -> TextIO:
        """Return a stream as at the start of a Python: the server's own knows if it can seek."""
        is_direct = self.is_unbuffered and number > 0
        mode, buffering = ("wb" if number else "rb"), (0 if is_direct else -1)
        binary: Any = os.fdopen(number, mode, buffering, closefd=False)
        getattr(binary, "raw", binary).name = f"<{name}>"
        return io.TextIOWrapper(
            binary,
            own.encoding,
            own.errors,
            line_buffering=number > 0 and (os.isatty(number) or name == "stderr"),
            write_through=is_direct,
        )

    def _needs_a_new_python(self) -> bool:
        """Whether a new Python would differ from this fork."""
        if not self.arguments or (
            self.arguments[0].startswith("-") and self.arguments[0] not in ("-c", "-m")
        ):
            return True
        if self.arguments[0] not in ("-c", "-m") and not os.path.isfile(self.arguments[0]):
            return True
        own, given = self.server.environment, {**WORKING_FOLDER, **self.environment}
        names = {name for name in {*own, *given} if name.startswith(READ_AT_START)}
        names.update(READ_ON_IMPORT)
        settings: Any = sys.modules.get("metaflow.metaflow_config_funcs")
        if settings:
            names.update(settings._all_configs)
            if settings.init_local_config() != settings.METAFLOW_LOCAL_CONFIG:
                return True
        names.difference_update(READ_BY_A_FORK, self.server.prepared)
        if any(own.get(name) != given.get(name) for name in names):
            return True
        folders = [self._first_folder(), *_python_path(given)]
        return any(_has_another_module(each, self.server.twins) for each in folders)

    def _first_folder(self) -> str:
        """Return the first entry of sys.path."""
        if self.arguments[0] == "-c":
            return ""
        if self.arguments[0] == "-m":
            return self.folder
        return os.path.dirname(os.path.realpath(self.arguments[0]))

    def _execute(self) -> int:
        """Run it in __main__, where Metaflow has left classes; return its exit status."""
        kind, *rest = self.arguments
        main = sys.modules["__main__"].__dict__
        sys.argv = self.arguments if kind not in ("-c", "-m") else ["-c", *rest[1:]]
        try:
            if kind == "-m":
                sys.argv = rest
                runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]  # as -m does
            elif kind == "-c":
                exec(compile(rest[0], "<string>", "exec"), main)
            else:
                main["__file__"] = path = os.path.abspath(kind)
                with open(path, "rb") as file:
                    exec(compile(file.read(), path, "exec"), main)
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                return (end.code or 0) & 0xFF
            print(end.code, file=sys.stderr)
            return 1
        except BaseException as error:
            own = error.__traceback__
            sys.excepthook(type(error), error.with_traceback(own and own.tb_next), own)
            if isinstance(error, KeyboardInterrupt):
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            return 1
        return 0


def _receive(connection: socket.socket) -> tuple[Request, list[int]]:
    """Return a command and its open files."""
    message, files, _, _ = socket.recv_fds(connection, 65536, MOST_FILES)
    while not message or len(message) < _size(message):
        chunk = connection.recv(1024 * 1024)
        if not chunk:
            for file in files:
                os.close(file)
            raise EOFError
        message += chunk
    return marshal.loads(message[forkclient.SIZE_BYTES :]), files


def _size(message: bytes) -> int:
    return forkclient.SIZE_BYTES + int.from_bytes(message[: forkclient.SIZE_BYTES], "big")


def _signal_group(number: int, each: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(number, each)


def _python_path(environment: Mapping[str, str]) -> list[str]:
    text = environment.get("PYTHONPATH")
    return [os.path.abspath(each) for each in text.split(os.pathsep)] if text else []


def _has_another_module(folder: str, twins: Sequence[str]) -> bool:
    """Whether a folder has a module with the name of one that was imported from elsewhere."""
    folder = os.path.realpath(folder)
    try:
        entries = os.listdir(folder)
    except OSError:
        return False
    for entry in entries:
        name = entry.partition(".")[0]
        module = None if name in twins else sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if not file or not (entry.endswith((".py", ".so")) or "." not in entry):
            continue
        is_package = os.path.basename(file) == "__init__.py"
        home = os.path.dirname(os.path.dirname(file) if is_package else file)
        if os.path.realpath(home) != folder:
            return True
    return False

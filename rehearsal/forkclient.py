"""The `python` of a fork server: hands its command over, and ends as the command ends.

It is started for each command, so it imports modules of the interpreter only.
"""

import _signal
import _socket
import marshal
import os
import sys

FORWARDED_SIGNALS = (
    *(_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM),
    *(_signal.SIGUSR1, _signal.SIGUSR2),
)
ADDRESS = "socket"
SIZE_BYTES = 4


def _connect(folder: str) -> _socket.socket:
    """Return a connection to the server, whose path may be too long for an address."""
    present = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    try:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.connect(ADDRESS)
    finally:
        os.fchdir(present)
        os.close(present)
    return connection


def _send(connection: _socket.socket, arguments: list[str]) -> None:
    files = [number for number in map(int, os.listdir("/dev/fd")) if _is_inherited(number)]
    umask = os.umask(0)
    os.umask(umask)
    request = marshal.dumps((arguments, dict(os.environ), os.getcwd(), umask, files))
    message = len(request).to_bytes(SIZE_BYTES, "big") + request
    numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in files)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)] if files else []
    sent = connection.sendmsg([message], rights)
    while sent < len(message):
        sent += connection.send(message[sent:])


def _is_inherited(number: int) -> bool:
    """Whether a file is open, and was not opened here."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def main(folder: str, python: str) -> None:
    """Run the command in a fork of the server, or by a Python if there is no server any more."""
    arguments = sys.argv[1:]
    try:
        connection = _connect(folder)
    except OSError:
        os.execv(python, [python, *arguments])
    for number in FORWARDED_SIGNALS:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, lambda number, _: connection.send(bytes([number])))
    _send(connection, arguments)
    answer = connection.recv(SIZE_BYTES)
    status = int.from_bytes(answer, "big", signed=True) if answer else 1
    if status < 0:  # it was ended by a signal
        if -status in FORWARDED_SIGNALS:
            _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)

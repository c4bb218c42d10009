"""The `python` of a fork server: hands its command over, and ends as the command ends.

Started for each command, as `python -IS forkclient.py FOLDER [ARG...]`, so it imports
modules of the interpreter only.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import os
import sys

FORWARDED_SIGNALS = (
    *(_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM),
    *(_signal.SIGUSR1, _signal.SIGUSR2),
)
ADDRESS = "forkserver.socket"
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
    streams = [int(name) for name in os.listdir("/dev/fd") if _is_inherited(int(name))]
    umask = os.umask(0)
    os.umask(umask)
    request = marshal.dumps((arguments, dict(os.environ), os.getcwd(), umask, streams))
    message = len(request).to_bytes(SIZE_BYTES, "big") + request
    numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in streams)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)] if streams else []
    sent = connection.sendmsg([message], rights)
    while sent < len(message):
        sent += connection.send(message[sent:])


def _is_inherited(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # it was that of the listing
        return False


def main(folder: str, arguments: list[str]) -> None:
    """Run a command in a fork of the server, or here if there is no server any more."""
    try:
        connection = _connect(folder)
    except OSError:
        os.execv(sys.executable, [sys.executable, *arguments])
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


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

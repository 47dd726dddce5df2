"""Ports for servers that tests start, kill and start again at the same place."""

import fcntl
import os
import random
import socket
import tempfile
from functools import cache

FIRST, BEYOND = 12_000, 32_000
"""Below the range from which systems take the ports of clients: while a server is down, a client that knocks at its
port could otherwise be given that very port, and the server could not come back."""

_ours: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody listens on now, and that no other process of the tests is given meanwhile."""
    while True:
        port = random.randrange(FIRST, BEYOND)
        if port in _ours or not _reserved(port):
            continue
        _ours.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _reserved(port: int) -> bool:
    """A record lock on the port's byte of a file that all share: it ends with this process."""
    try:
        fcntl.lockf(_book(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _book() -> int:
    path = os.path.join(tempfile.gettempdir(), f"blacktree-test-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

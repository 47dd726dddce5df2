"""A lock that tasks, processes and their children share: flock(2) on a file, waited for without blocking the loop."""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """The open descriptor of a lock that is now held, or None if another holds it. Close it to let go.

    A child that inherits the descriptor keeps the lock until it ends, too.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return file


@asynccontextmanager
async def hold(path: Path, *, shared: bool = False) -> AsyncIterator[int]:
    """Wait for the lock and hold it; yields its descriptor."""
    pause = 0.005
    while (file := try_lock(path, shared=shared)) is None:
        await trio.sleep(pause)
        pause = min(0.1, pause * 1.5)
    try:
        yield file
    finally:
        os.close(file)

"""The state directory: made for its owner alone, and locked, so that one process at a time works on it."""

import fcntl
import os
from pathlib import Path

from blacktree.errors import StorageFailed
from blacktree.storage.trouble import storage_failed


class Directory:
    """A locked state directory. `database` and `logs` are inside; everything is 0700 and 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "blacktree.db"
        self.logs = path / "logs"
        self._lock = -1

    def open(self) -> None:
        """Make what is missing and take the lock. Raises `StorageFailed`, with `state_in_use` if another has it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_failed(error, self.path) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise StorageFailed(
                f"the state directory {self.path} is in use by another process" + (f" (pid {owner})" if owner else ""),
                code="state_in_use",
                advice="stop that one first, or give this one a state directory of its own",
                again=False,
            ) from None
        except OSError as error:
            os.close(lock)
            raise storage_failed(error, self.path) from error
        self._lock = lock
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            # SQLite gives its own files the modes of the database.
            os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            self.close()
            raise storage_failed(error, self.path) from error

    def close(self) -> None:
        """Give the lock back; twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def segment(self, job_id: str, number: int, *, packed: bool = False) -> Path:
        """Where a job's segment file lies."""
        return self.job(job_id) / f"{number:06d}.{'z' if packed else 'seg'}"

    def job(self, job_id: str) -> Path:
        """Where a job's segments lie."""
        return self.logs / job_id[:2] / job_id


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

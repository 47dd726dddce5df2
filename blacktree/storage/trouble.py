"""What can go wrong with a disk, as our errors: the one table from errno and SQLite codes, and the free space."""

import errno
import os
import sqlite3
import time
from pathlib import Path

from blacktree.errors import StorageFailed
from blacktree.inodes import files_short

_FULL = ("disk_full", "the disk of the state directory is full", "free some space; the farm goes on by itself then")
_READ_ONLY = (
    "read_only",
    "the state directory cannot be written",
    "make it writable for this user and its file system mounted read-write",
)
_FAULT = ("io_error", "the disk of the state directory reports an input/output error", "look at the kernel's log")
_FILES = ("too_many_files", "too many open files", "raise the limit (ulimit -n, LimitNOFILE=)")
_BUSY = ("state_busy", "the database is locked by another program", "end whatever else has the database open")
_DAMAGED = (
    "state_damaged",
    "the database is damaged",
    "stop the farm, keep a copy of the state directory, and put back a backup, or save what can be read with "
    "`sqlite3 DATABASE .recover`",
)
_OTHER = ("storage_failed", "the state directory cannot be used", "")

_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EIO: _FAULT,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
}
# The low byte of an extended result code is the primary one.
_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_IOERR: _FAULT,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


def storage_failed(error: OSError | sqlite3.Error, where: Path) -> StorageFailed:
    """The error as the farm's own; `where` is the file or directory a person should look at."""
    if isinstance(error, OSError):
        code, message, advice = _ERRNO.get(error.errno or 0, _OTHER)
    else:
        number = getattr(error, "sqlite_errorcode", None) or 0
        code, message, advice = _SQLITE.get(number & 0xFF, _OTHER)
    return StorageFailed(f"{message} ({where}: {error})", code=code, advice=advice, again=code != "state_damaged")


class Space:
    """How much room the disk has, asked at most once a second."""

    def __init__(self, directory: Path, minimum_free_bytes: int) -> None:
        self._directory = directory
        self._minimum = minimum_free_bytes
        self._asked = -1.0
        self._reason = ""

    def reason(self) -> str:
        """Why nothing new should be written, or empty."""
        moment = time.monotonic()
        if self._asked < 0 or moment - self._asked >= 1.0:
            self._asked, self._reason = moment, self._look()
        return self._reason

    def check(self) -> None:
        """Raises `StorageFailed` when there is a reason."""
        reason = self.reason()
        if reason:
            raise StorageFailed(reason, code="disk_full", advice="free some space; the farm goes on by itself then")

    def _look(self) -> str:
        try:
            found = os.statvfs(self._directory)
        except OSError as error:
            return f"the state directory cannot be read: {error.strerror}"
        if found.f_flag & os.ST_RDONLY:
            return f"the file system of {self._directory} is mounted read-only"
        free = found.f_bavail * found.f_frsize
        if free < self._minimum:
            return f"{self._directory} has {free >> 20} MiB free, the minimum is {self._minimum >> 20} MiB"
        files = files_short(found) if self._minimum else ""
        return f"on the disk of {self._directory} {files}" if files else ""

"""A connection to the database, and how a job lies in its row."""

import sqlite3

import msgspec

from blacktree.errors import StorageFailed
from blacktree.job import Job
from blacktree.storage.directory import Directory
from blacktree.strict import UNREADABLE

encode_job = msgspec.msgpack.Encoder().encode
_decode_job = msgspec.msgpack.Decoder(Job).decode


def decode_job(body: bytes) -> Job:
    """The job of a row. Raises `StorageFailed` (code `state_damaged`) for a row that is not what was written."""
    try:
        return _decode_job(body)
    except UNREADABLE as error:
        raise StorageFailed(
            f"a job on record cannot be read: {error}",
            code="state_damaged",
            advice="put back a backup of the state directory",
            again=False,
        ) from error


def connect(directory: Directory, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to the database, durable at each commit. Raises `OSError` and `sqlite3.Error`."""
    connection = sqlite3.connect(directory.database, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        if read_only:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA cache_size = -1024")
        else:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 2000")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            connection.execute("PRAGMA cache_size = -8192")
    except BaseException:
        connection.close()
        raise
    return connection

"""The small writes: the farm's own log, settings, the outbox, retention. Each runs inside the writer's transaction."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from blacktree.clock import now
from blacktree.errors import BadRequest
from blacktree.event import FarmEvent
from blacktree.job import JobState
from blacktree.storage.cursor import micros
from blacktree.storage.tables import encode_event
from blacktree.storage.writer import Writer

# More than most batches of lines: a disk where only crumbs fit is full.
_PROBE_BYTES = 1024 * 1024


def note(
    writer: Writer,
    type: str,
    text: str,
    subject: str,
    time: datetime | None,
    data: dict[str, str | int | float | bool | None] | None,
) -> FarmEvent:
    """As `FarmLog.note`."""
    seq = writer.connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM farm").fetchone()[0]
    event = FarmEvent(seq=seq, time=time or now(), type=type, text=text, subject=subject, data=data or {})
    try:
        body = encode_event(event)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"this cannot be stored: {error}", code="invalid_record") from error
    writer.connection.execute("INSERT INTO farm VALUES (?, ?)", (seq, body))
    return event


def meta(writer: Writer, key: str, value: str) -> str:
    """As `Store.meta` with a value."""
    writer.connection.execute("INSERT INTO setting VALUES (?, ?) ON CONFLICT DO NOTHING", (key, value))
    winner: str = writer.connection.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()[0]
    return winner


def setting(writer: Writer, key: str, value: str | None) -> None:
    """As `Store.setting`."""
    if value is None:
        writer.connection.execute("DELETE FROM setting WHERE key = ?", (key,))
    else:
        writer.connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (key, value))


def published(writer: Writer, ids: Sequence[int]) -> None:
    """As `Outbox.published`."""
    writer.connection.executemany("DELETE FROM outbox WHERE id = ?", [(id,) for id in ids])


class Gone(NamedTuple):
    """A job that was forgotten."""

    id: str
    pool: str
    state: JobState


def forget(writer: Writer, before: datetime, limit: int) -> list[Gone]:
    """The rows of `JobTable.forget`, readable or not; answers the jobs whose files may go once this is committed."""
    one = writer.connection.execute
    rows = one(
        "SELECT number, id, pool, state FROM job WHERE finished < ? AND id NOT IN (SELECT job_id FROM outbox) "
        "ORDER BY finished, id LIMIT ?",
        (micros(before), max(0, limit)),
    ).fetchall()
    gone = []
    for number, id, pool, state in rows:
        segments = [row[0] for row in one("SELECT number FROM segment WHERE job = ?", (number,))]
        writer.drop(id)
        writer.logs.forget(id, segments)
        for table in ("mark", "block", "segment"):
            one(f"DELETE FROM {table} WHERE job = ?", (number,))
        one("DELETE FROM job WHERE number = ?", (number,))
        gone.append(Gone(id, pool, JobState(state)))
    return gone


def probe(writer: Writer) -> None:
    """Whether both halves of the store can grow: raises what a write would raise."""
    path = writer.directory.logs / "probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < _PROBE_BYTES:
            # A disk with a little room writes a little: only the next call says that it is full.
            written += os.pwrite(handle, bytes(_PROBE_BYTES - written), written)
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)
    version = writer.connection.execute("PRAGMA user_version").fetchone()[0]
    writer.connection.execute(f"PRAGMA user_version = {version}")

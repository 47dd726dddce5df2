"""Streams in SQLite: the oldest segments go, and the stream remembers where it begins now; or all of it goes."""

from blacktree.errors import NotFound
from blacktree.storage.base import Decision
from blacktree.storage.rules import begun
from blacktree.storage.writer import Change, Writer


def discard(writer: Writer, stream_id: str) -> bool:
    """As `StreamTable.discard`; whether there was one, whose files may go once this is committed."""
    one = writer.connection.execute
    row = one("SELECT number FROM job WHERE id = ? AND state = 'stream'", (stream_id,)).fetchone()
    if row is None:
        return False
    number: int = row[0]
    segments = [each[0] for each in one("SELECT number FROM segment WHERE job = ?", (number,))]
    writer.drop(stream_id)
    writer.logs.forget(stream_id, segments)
    for table in ("mark", "block", "segment"):
        one(f"DELETE FROM {table} WHERE job = ?", (number,))
    one("DELETE FROM job WHERE number = ?", (number,))
    return True


def trim(writer: Writer, stream_id: str, keep_bytes: int) -> bool:
    """As `StreamTable.trim`; the files may go once this is committed."""
    one = writer.connection.execute
    row = one("SELECT number FROM job WHERE id = ? AND state = 'stream'", (stream_id,)).fetchone()
    if row is None:
        raise NotFound(f"no stream {stream_id!r}")
    number: int = row[0]
    size, kept, gone = 0, 0, []
    for segment, length in one("SELECT number, length FROM segment WHERE job = ? ORDER BY number DESC", (number,)):
        size += length
        if kept and size > keep_bytes:
            gone.append(segment)
        else:
            kept = segment
    if not gone:
        return False
    first_seq, text_first = one(
        "SELECT first_seq, text_first FROM block WHERE job = ? AND segment = ? ORDER BY offset LIMIT 1", (number, kept)
    ).fetchone()
    one("DELETE FROM segment WHERE job = ? AND number < ?", (number, kept))
    one("DELETE FROM block WHERE job = ? AND segment < ?", (number, kept))
    one("DELETE FROM mark WHERE job = ? AND seq < ?", (number, first_seq))
    writer.logs.forget(stream_id, gone)
    writer.change(Change(stream_id, lambda job: Decision(job=begun(job, first_seq, text_first))))
    return True

"""Reading a job's numbers back: marks and segments merged, damage said aloud, memory as small as what is asked for.

A number that was committed and cannot be read any more is a `Notice` with the code `log_damaged`, one for each lost
number: so the sequence stays without a gap, and every reader sees the loss where it is. In the plain log lost bytes
are question marks, so that offsets stay what they were.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec

from blacktree.errors import Broken, NotFound
from blacktree.event import Notice, Record, span
from blacktree.storage.cut import Reading, plain
from blacktree.storage.database import decode_job
from blacktree.storage.directory import Directory
from blacktree.storage.segment import Block, block_at, decode_record, records_of

T = TypeVar("T")


class Found(msgspec.Struct):
    """What a reading gave. `damage` says in words what could not be read, if anything."""

    records: list[tuple[int, Record]] = []
    text: bytes = b""
    damage: str = ""


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements inside see the same commit."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def read(
    connection: sqlite3.Connection, directory: Directory, job_id: str, from_seq: int, limit: int, size: int
) -> Found:
    """As `LogTable.read`."""
    return _settled(lambda patient: _read(connection, directory, job_id, Reading(from_seq, limit, size), patient))


def read_text(connection: sqlite3.Connection, directory: Directory, job_id: str, offset: int, size: int) -> Found:
    """As `LogTable.read_text`."""
    return _settled(lambda patient: _read_text(connection, directory, job_id, max(0, offset), size, patient))


def text_size(connection: sqlite3.Connection, job_id: str) -> int:
    """As `LogTable.text_size`."""
    return _row(connection, job_id).text_size


def _settled(attempt: Callable[[bool], T]) -> T:
    # A segment may be replaced by its packed form between a look at the rows and the opening of the file.
    for _ in range(3):
        with suppress(FileNotFoundError):
            return attempt(True)
    return attempt(False)


class _Row(NamedTuple):
    number: int
    next_seq: int
    text_size: int
    first_seq: int = 1
    text_first: int = 0


def _row(connection: sqlite3.Connection, job_id: str) -> _Row:
    row = connection.execute(
        "SELECT number, next_seq, text_size, iif(state = 'stream', body, NULL) FROM job WHERE id = ?", (job_id,)
    ).fetchone()
    if row is None:
        raise NotFound(f"no job {job_id!r}")
    stream = decode_job(row[3]).stream if row[3] is not None else None
    if stream is None:
        return _Row(row[0], row[1], row[2])
    return _Row(row[0], row[1], row[2], stream.first_seq, stream.text_first)


def _read(connection: sqlite3.Connection, directory: Directory, job_id: str, reading: Reading, patient: bool) -> Found:
    with snapshot(connection):
        number, next_seq, _, first_seq, _ = _row(connection, job_id)
        reading.position = max(reading.position, first_seq)
        marks = connection.execute(
            "SELECT seq, body FROM mark WHERE job = ? AND seq >= ? ORDER BY seq", (number, reading.position)
        )
        blocks = _Blocks(connection, directory, job_id, number, patient)
        found = Found()
        mark = marks.fetchone()
        walk = blocks.walk(
            "SELECT segment, offset FROM block WHERE job = ? AND first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
            reading.position,
        )
        try:
            block = next(walk, None)
            while reading.position < next_seq and not reading.full:
                while block is not None and block.end_seq <= reading.position:
                    block = next(walk, None)
                while mark is not None and mark[0] < reading.position:
                    mark = marks.fetchone()
                if mark is not None and mark[0] == reading.position:
                    reading.take(mark[0], decode_record(mark[1]))
                elif block is not None and block.first_seq <= reading.position:
                    records = blocks.records(block)
                    if records is None:
                        lost = min(block.end_seq, next_seq)
                        _lose(connection, number, reading, lost, found, f"a block of segment {blocks.segment}")
                        continue
                    seq, before = block.first_seq, reading.position
                    for record in records:
                        reading.take(seq, record)
                        seq += span(record)
                    if reading.position == before:
                        raise Broken(f"a block of job {job_id} does not hold number {before}")
                else:
                    known = [each for each in (mark and mark[0], block and block.first_seq) if each]
                    _lose(connection, number, reading, min([*known, next_seq]), found, "part of the log")
        finally:
            walk.close()
        found.records = reading.taken
        return found


def _lose(connection: sqlite3.Connection, number: int, reading: Reading, until: int, found: Found, what: str) -> None:
    job = decode_job(connection.execute("SELECT body FROM job WHERE number = ?", (number,)).fetchone()[0])
    if not found.damage:
        found.damage = f"{what} of job {job.id} cannot be read: numbers {reading.position} to {until - 1} are lost"
    text = "this event was stored and can no longer be read: the log is damaged here"
    notice = Notice(job.created_at, job.attempt, "log_damaged", text)
    while reading.position < until and not reading.full:
        reading.take(reading.position, notice)


def _read_text(
    connection: sqlite3.Connection, directory: Directory, job_id: str, offset: int, size: int, patient: bool
) -> Found:
    with snapshot(connection):
        number, _, text_size, _, text_first = _row(connection, job_id)
        offset = max(offset, text_first)
        end = min(offset + max(0, size), text_size)
        blocks = _Blocks(connection, directory, job_id, number, patient)
        found = Found()
        pieces: list[bytes] = []
        position = offset
        walk = blocks.walk(
            "SELECT segment, offset FROM block WHERE job = ? AND text_first <= ? "
            "ORDER BY text_first DESC, first_seq DESC LIMIT 1",
            offset,
        )

        def lose(until: int) -> None:
            nonlocal position
            if until > position:
                found.damage = found.damage or f"bytes {position} to {until - 1} of job {job_id}'s log cannot be read"
                pieces.append(b"?" * (until - position))
                position = until

        try:
            while position < end:
                block = next(walk, None)
                if block is None:
                    break
                if block.text_end <= position:
                    continue
                lose(min(block.text_first, end))
                if position >= end:
                    break
                records = blocks.records(block)
                if records is None:
                    lose(min(block.text_end, end))
                    continue
                text = b"".join(map(plain, records))[position - block.text_first : end - block.text_first]
                pieces.append(text)
                position += len(text)
        finally:
            walk.close()
        lose(end)
        found.text = b"".join(pieces)
        return found


class _Blocks:
    """The blocks of one job in order, from a place that the index knows."""

    def __init__(
        self, connection: sqlite3.Connection, directory: Directory, job_id: str, number: int, patient: bool
    ) -> None:
        self._connection = connection
        self._directory = directory
        self._job_id = job_id
        self._number = number
        self._patient = patient
        self._file: BinaryIO | None = None
        self.segment = 0

    def walk(self, start: str, value: int) -> Generator[Block, None, None]:
        """Headers in order; where one is broken, on from the next place the index knows."""
        row = self._connection.execute(start, (self._number, value)).fetchone()
        segment, offset = row if row is not None else (1, 0)
        segments = self._connection.execute(
            "SELECT number, length, packed FROM segment WHERE job = ? AND number >= ? ORDER BY number",
            (self._number, segment),
        ).fetchall()
        for number, length, packed in segments:
            place = offset if number == segment else 0
            path = self._directory.segment(self._job_id, number, packed=bool(packed))
            self.segment = number
            try:
                # What was found at this place is known to be the newest, or the caller looks again.
                self._file = path.open("rb")
            except FileNotFoundError:
                if self._patient:
                    raise
                continue
            try:
                while place < length:
                    block = block_at(self._file, place)
                    if block is not None and block.end <= length:
                        yield block
                        place = block.end
                        continue
                    known = self._connection.execute(
                        "SELECT min(offset) FROM block WHERE job = ? AND segment = ? AND offset > ?",
                        (self._number, number, place),
                    ).fetchone()[0]
                    if known is None:
                        break
                    place = known
            finally:
                self._file.close()

    def records(self, block: Block) -> list[Record] | None:
        """The records of the block that `walk` gave last."""
        assert self._file is not None
        return records_of(self._file, block)

"""Compresses the segments of ended jobs in the background, and clears away what a crash left lying about.

A packed segment holds the same records in larger, deflated blocks, so any place in it is still cheap to reach. It is
written beside the old one and synced; one transaction then makes readers look there; the old one goes last.
"""

import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import structlog
import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import StorageFailed
from blacktree.event import Record
from blacktree.storage.directory import Directory, sync_directory
from blacktree.storage.segment import BLOCK_BYTES, block_at, frame, records_of
from blacktree.storage.writer import Call, Item, Writer

LEAST_BYTES = 8 * 1024
_INDEX_BYTES = 16 * 1024
_PAUSE_SECONDS = 0.5
_LOOKED_AT = 200

log = structlog.get_logger()


class Packer:
    """`ended` names a job that has ended; `run` does the work, one segment at a time."""

    def __init__(
        self,
        directory: Directory,
        group: Callable[[Item], Awaitable[Any]],
        ask: Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]],
    ) -> None:
        self._directory = directory
        self._group = group
        self._ask = ask
        self._jobs: dict[str, None] = {}
        self._more = trio.Event()
        self._stopped = False

    def ended(self, job_id: str) -> None:
        """This job's segments may be packed."""
        self._jobs[job_id] = None
        self._more.set()

    async def run(self) -> None:
        """Until cancelled. Trouble with one job's files is logged and leaves them as they are."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop)
            await self._sweep()
            for job_id in await self._ask(_unpacked):
                self.ended(job_id)
            while True:
                await self._more.wait()
                # Jobs that end together are looked up together.
                await trio.sleep(_PAUSE_SECONDS)
                self._more = trio.Event()
                jobs, self._jobs = list(self._jobs), {}
                for start in range(0, len(jobs), 500):
                    part = jobs[start : start + 500]
                    for row in await self._ask(partial(_segments, job_ids=part)):
                        await self._pack(*row)

    async def _stop(self) -> None:
        # A thread cannot be cancelled; it looks at this once a block, so that the end does not wait for 64 MiB.
        try:
            await trio.sleep_forever()
        finally:
            self._stopped = True

    async def _pack(self, job_id: str, job: int, number: int, length: int) -> None:
        try:
            await self._pack_one(job_id, job, number, length)
        except (StorageFailed, OSError) as error:
            log.warning("log not compressed", job=job_id, error=str(error))

    async def _pack_one(self, job_id: str, job: int, number: int, length: int) -> None:
        result = await in_thread(lambda: pack(self._directory, job_id, number, length, stopped=lambda: self._stopped))
        if result is None:
            return
        size, rows = result

        def flip(writer: Writer) -> bool:
            writer.drop(job_id)
            writer.logs.forget(job_id, [number])
            one = writer.connection.execute
            if not one(
                "UPDATE segment SET packed = 1, length = ? WHERE job = ? AND number = ? AND length = ? AND packed = 0",
                (size, job, number, length),
            ).rowcount:
                return False
            one("DELETE FROM block WHERE job = ? AND segment = ?", (job, number))
            writer.connection.executemany(
                "INSERT INTO block VALUES (?, ?, ?, ?, ?)", [(job, seq, text, number, at) for seq, text, at in rows]
            )
            return True

        flipped = await self._group(Call(flip))
        old = self._directory.segment(job_id, number, packed=not flipped)
        await in_thread(lambda: old.unlink(missing_ok=True))

    async def _sweep(self) -> None:
        logs = self._directory.logs
        jobs = (job for shelf in logs.iterdir() if shelf.is_dir() for job in shelf.iterdir())
        looked = True
        while looked:
            began = trio.current_time()
            looked, found = await self._ask(partial(_lying_about, jobs=jobs))
            for path in found:
                with suppress(StorageFailed):
                    await self._group(Call(partial(clear, path=path)))
            # Of a million jobs this takes minutes: half of the time is left to those who start beside it.
            await trio.sleep(trio.current_time() - began)


def _unpacked(connection: sqlite3.Connection) -> list[str]:
    # CROSS: the segments first. Few of them are not packed, and jobs are many.
    rows = connection.execute(
        "SELECT DISTINCT job.id FROM segment CROSS JOIN job ON job.number = segment.job "
        "WHERE segment.packed = 0 AND segment.length >= ? AND job.finished IS NOT NULL",
        (LEAST_BYTES,),
    )
    return [row[0] for row in rows]


def _segments(connection: sqlite3.Connection, job_ids: Sequence[str]) -> list[tuple[str, int, int, int]]:
    return connection.execute(
        "SELECT job.id, segment.job, segment.number, segment.length "
        "FROM segment JOIN job ON job.number = segment.job "
        f"WHERE job.id IN ({', '.join('?' * len(job_ids))}) "
        "AND segment.packed = 0 AND segment.length >= ? AND job.finished IS NOT NULL",
        (*job_ids, LEAST_BYTES),
    ).fetchall()


def pack(
    directory: Directory, job_id: str, number: int, length: int, *, stopped: Callable[[], bool] = lambda: False
) -> tuple[int, list[tuple[int, int, int]]] | None:
    """Write the packed form of a segment; answers its length and its index (number, byte of text, offset).

    None when it was stopped, or when a block cannot be read: what is damaged stays as it is.
    """
    source = directory.segment(job_id, number)
    target = directory.segment(job_id, number, packed=True)
    fresh = target.with_suffix(".new")
    try:
        with source.open("rb") as old, fresh.open("wb") as new:
            fresh.chmod(0o600)
            rows = _copy(old, new, length, stopped)
            size = new.tell()
            if rows is not None:
                new.flush()
                os.fsync(new.fileno())
                fresh.rename(target)
                sync_directory(target.parent)
    finally:
        fresh.unlink(missing_ok=True)
    return (size, rows) if rows is not None else None


def _copy(old: BinaryIO, new: BinaryIO, length: int, stopped: Callable[[], bool]) -> list[tuple[int, int, int]] | None:
    rows: list[tuple[int, int, int]] = []
    held: list[Record] = []
    first_seq = next_seq = text_first = text_end = 0

    def put() -> None:
        if held:
            offset = new.tell()
            if not rows or offset - rows[-1][2] >= _INDEX_BYTES:
                rows.append((first_seq, text_first, offset))
            new.write(frame(first_seq, text_first, held, deflate=True)[0])
            held.clear()

    place = 0
    while place < length:
        block = block_at(old, place)
        records = records_of(old, block) if block is not None and block.end <= length else None
        if block is None or records is None or stopped():
            return None
        # Numbers that are marks lie between blocks; a block's own numbers have no gap.
        if not held or block.first_seq != next_seq or block.text_end - text_first > BLOCK_BYTES:
            put()
            first_seq, text_first = block.first_seq, block.text_first
        held.extend(records)
        next_seq, text_end = block.end_seq, block.text_end
        if text_end - text_first >= BLOCK_BYTES or len(held) >= 4096:
            put()
        place = block.end
    put()
    return rows


def _lying_about(connection: sqlite3.Connection, jobs: Iterator[Path]) -> tuple[bool, list[Path]]:
    """Of the next of these directories those where there seems to be something to clear away (`clear` looks again); and
    whether there were any. A few at a time: a thread cannot be cancelled, and the end does not wait for all of them.
    """
    part = list(islice(jobs, _LOOKED_AT))
    return bool(part), [path for path in part if path.is_dir() and _left(connection, path) != []]


def _left(connection: sqlite3.Connection, path: Path) -> list[Path] | None:
    """Files that no row names; None when the whole job is not on record."""
    row = connection.execute("SELECT number FROM job WHERE id = ?", (path.name,)).fetchone()
    if row is None:
        return None
    packed = dict(connection.execute("SELECT number, packed FROM segment WHERE job = ?", row).fetchall())
    try:
        files = list(path.iterdir())
    except FileNotFoundError:
        # Forgotten since the look at its row.
        return []
    return [
        file
        for file in files
        if file.suffix == ".new"
        or (file.stem.isdigit() and packed.get(int(file.stem), -1) != (0 if file.suffix == ".seg" else 1))
    ]


def clear(writer: Writer, path: Path) -> None:
    """Remove files that no row names. In the writer's thread, so that no job can begin between look and removal."""
    left = _left(writer.connection, path)
    if left is None:
        shutil.rmtree(path, ignore_errors=True)
    for file in left or ():
        file.unlink(missing_ok=True)

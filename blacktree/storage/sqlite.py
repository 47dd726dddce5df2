"""The store's promises kept in SQLite, and in segment files for what jobs print."""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import StorageFailed
from blacktree.event import FarmEvent, Record
from blacktree.histogram import Histogram
from blacktree.job import Job, JobState
from blacktree.storage import documents, keeping, streams, tables
from blacktree.storage.base import Commit, Decide, Listener, Outgoing, QueueItem, Revise
from blacktree.storage.database import connect
from blacktree.storage.directory import Directory
from blacktree.storage.group import Group, closed
from blacktree.storage.lookups import Lookups
from blacktree.storage.migrate import migrate
from blacktree.storage.pack import Packer, clear
from blacktree.storage.trouble import Space, storage_failed
from blacktree.storage.writer import Call, Change, Create, Item, Pair, Writer, unfolded

T = TypeVar("T")

log = structlog.get_logger()

SEGMENT_BYTES = 64 * 1024 * 1024
_CHECKED_BYTES = 256 * 1024 * 1024


class SqliteStore(Lookups):
    """`Store` in a directory: `blacktree.db` (SQLite, WAL) and `logs/` (segment files).

    To back it up while it runs: first `sqlite3 blacktree.db ".backup COPY"` (or `VACUUM INTO`), then copy `logs/`.
    In that order the files hold at least what the database names; what they hold beyond it is cut off when the copy is
    opened. Pack and retention may replace files between the two steps: copy again if a file vanished meanwhile.

    Numbers that were stored and can no longer be read (a damaged file) come back as `Notice` records with the code
    `log_damaged`, one each, and the farm's log tells once a job. A job whose row cannot be read is passed over by what
    looks for many (`job_damaged` in the farm's log); asking for it by its id raises.

    `minimum_free_bytes`: below it `create` is refused; changes of jobs that are on record still try.
    """

    def __init__(self, directory: Path, *, minimum_free_bytes: int = 0, segment_bytes: int = SEGMENT_BYTES) -> None:
        super().__init__(Directory(directory))
        self._segment_bytes = segment_bytes
        self._space = Space(directory, minimum_free_bytes)
        self._group = Group(self._commit, self._told)
        self._packer = Packer(self._directory, self._write, self._ask)
        self._listeners: list[tuple[Listener, bool]] = []
        self._writer: Writer | None = None
        self._census: tables.Census
        self._damaged: set[tuple[str, str]] = set()
        self._failing = False
        self._news, self._heard = trio.open_memory_channel[tuple[str, str, str]](100)

    # Its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Store.run`. Raises `StorageFailed`: `state_in_use`, `state_too_new`, `state_damaged`, `read_only`, …"""
        await in_thread(self._open)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._group.run)
                nursery.start_soon(self._background)
                task_status.started()
        finally:
            with trio.move_on_after(30, shield=True):
                await in_thread(self._close)

    async def _background(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_damage)
            # Compressing is a convenience: without it everything stays readable.
            try:
                await self._packer.run()
            except* StorageFailed as group:
                log.warning("logs are not compressed", error=str(group.exceptions[0]))

    def _open(self) -> None:
        self._directory.open()
        try:
            writer = connect(self._directory)
            try:
                if self._directory.database.stat().st_size <= _CHECKED_BYTES:
                    found = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
                    if found != "ok":
                        raise sqlite3.DatabaseError(f"database disk image is malformed: {found}")
                migrate(writer)
            finally:
                writer.close()
            self._writer = Writer(self._directory, self._space, segment_bytes=self._segment_bytes)
            self._open_readers()
            self._census = tables.Census(self._readers[0])
        except BaseException as error:
            self._close()
            if isinstance(error, sqlite3.Error | OSError):
                raise _unusable(error, self._directory.database) from error
            raise

    def _close(self) -> None:
        self._close_readers()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._directory.close()

    # Writing

    def _commit(self, items: Sequence[Item]) -> list[Any]:
        assert self._writer is not None
        return self._writer.commit(items)

    def _told(self, results: Sequence[Any]) -> None:
        """On the Trio thread, in commit order, before any caller goes on."""
        for result in unfolded(results):
            if type(result) is Commit:
                if result.changed:
                    stream = result.job.stream is not None
                    if not stream:
                        self._census.moved(result.job.spec.pool, result.previous, result.job.state)
                    if result.job.ended:
                        self._packer.ended(result.job.id)
                    for listener, also_streams in self._listeners:
                        if also_streams or not stream:
                            listener(result)
            elif isinstance(result, StorageFailed):
                self._failing = True
        assert self._writer is not None
        while self._writer.damaged:
            self._damage(*self._writer.damaged.pop())

    async def _write(self, item: Item) -> Any:
        return await self._group(item)

    async def create(
        self, job: Job, records: Sequence[Record], outgoing: Sequence[Outgoing], *, then: Decide | None = None
    ) -> Commit:
        """As `JobTable.create`."""
        result = await self._group(Create(job, records, outgoing, then))
        commit: Commit | Exception = result.second if isinstance(result, Pair) else result
        if isinstance(commit, Exception):
            raise commit
        return commit

    async def change(self, job_id: str, decide: Decide) -> Commit:
        """As `JobTable.change`."""
        commit: Commit = await self._group(Change(job_id, decide))
        return commit

    def listen(self, listener: Listener, *, streams: bool = False) -> None:
        """As `JobTable.listen`."""
        self._listeners.append((listener, streams))

    async def trim(self, stream_id: str, keep_bytes: int) -> bool:
        """As `StreamTable.trim`."""
        gone: bool = await self._group(Call(lambda writer: streams.trim(writer, stream_id, keep_bytes)))
        if gone:
            # What cannot go now goes at the next start.
            with suppress(StorageFailed):
                await self._group(Call(partial(clear, path=self._directory.job(stream_id))))
        return gone

    async def discard(self, stream_id: str) -> None:
        """As `StreamTable.discard`."""
        if await self._group(Call(lambda writer: streams.discard(writer, stream_id))):
            with suppress(StorageFailed):
                await self._group(Call(partial(clear, path=self._directory.job(stream_id))))

    async def forget(self, before: datetime, *, limit: int = 100) -> int:
        """As `JobTable.forget`."""
        gone: list[keeping.Gone] = await self._group(Call(lambda writer: keeping.forget(writer, before, limit)))
        for job in gone:
            self._census.moved(job.pool, job.state, None)
        for job in gone:
            # What cannot go now goes at the next start.
            with suppress(StorageFailed):
                await self._group(Call(partial(clear, path=self._directory.job(job.id))))
        return len(gone)

    async def published(self, ids: Sequence[int]) -> None:
        """As `Outbox.published`."""
        await self._group(Call(lambda writer: keeping.published(writer, ids)))

    async def queue_put(self, queue: str, items: Sequence[QueueItem], *, maximum: int | None = None) -> list[int]:
        """As `QueueTable.queue_put`."""
        ids: list[int] = await self._group(Call(lambda writer: writer.queues.put(queue, items, maximum)))
        return ids

    async def queue_delete(self, ids: Sequence[int]) -> None:
        """As `QueueTable.queue_delete`."""
        await self._group(Call(lambda writer: writer.queues.delete(ids)))

    async def queue_return(self, ids: Sequence[int]) -> None:
        """As `QueueTable.queue_return`."""
        await self._group(Call(lambda writer: writer.queues.give_back(ids)))

    async def queue_move(self, id: int, to: str, headers: dict[str, str], *, body: bytes | None = None) -> None:
        """As `QueueTable.queue_move`."""
        await self._group(Call(lambda writer: writer.queues.move(id, to, headers, body)))

    async def queue_purge(self, queue: str) -> int:
        """As `QueueTable.queue_purge`."""
        count: int = await self._group(Call(lambda writer: writer.queues.purge(queue)))
        return count

    async def note(
        self,
        type: str,
        text: str,
        *,
        subject: str = "",
        time: datetime | None = None,
        data: dict[str, str | int | float | bool | None] | None = None,
    ) -> FarmEvent:
        """As `FarmLog.note`."""
        event: FarmEvent = await self._group(Call(lambda writer: keeping.note(writer, type, text, subject, time, data)))
        return event

    async def meta(self, key: str, value: str | None = None) -> str | None:
        """As `Store.meta`."""
        if value is None:
            return (await self._ask(lambda connection: tables.settings(connection, key))).get(key)
        winner: str = await self._group(Call(lambda writer: keeping.meta(writer, key, value)))
        return winner

    async def setting(self, key: str, value: str | None) -> None:
        """As `Store.setting`."""
        await self._group(Call(lambda writer: keeping.setting(writer, key, value)))

    async def revise(self, kind: str, name: str, decide: Revise) -> bytes | None:
        """As `DocumentTable.revise`."""
        body: bytes | None = await self._group(
            Call(lambda writer: documents.revise(writer.connection, kind, name, decide))
        )
        return body

    # Reading

    async def get(self, job_id: str) -> Job:
        """As `JobTable.get`."""
        job = self._writer.job(job_id) if self._writer is not None else None
        if job is not None:
            await trio.lowlevel.checkpoint()
            return job
        return await self._ask(lambda connection: tables.job(connection, job_id))

    async def _counted(self) -> tables.Census:
        await trio.lowlevel.checkpoint()
        if self._writer is None:
            raise closed()
        return self._census

    async def counts(self) -> dict[JobState, int]:
        """As `JobTable.counts`."""
        return dict(+(await self._counted()).states)

    async def queued_by_pool(self) -> dict[str, int]:
        """As `JobTable.queued_by_pool`."""
        return dict(+(await self._counted()).queued)

    async def pools(self) -> list[str]:
        """As `JobTable.pools`."""
        return sorted(+(await self._counted()).alive)

    @property
    def commit_seconds(self) -> Histogram:
        """As `Store.commit_seconds`."""
        return self._group.seconds

    # Trouble

    async def health(self) -> str:
        """As `Store.health`. After a failed write it tries a small one, until that succeeds."""
        if self._writer is None:
            await trio.lowlevel.checkpoint()
            return "the store is not running"
        reason = await in_thread(self._space.reason, limiter=self._limiter)
        if not reason and self._failing:
            try:
                await self._group(Call(keeping.probe))
                self._failing = False
            except StorageFailed as error:
                reason = error.message
        return reason

    def _damage(self, job_id: str, text: str, type: str = "log_damaged") -> None:
        if (job_id, type) not in self._damaged:
            self._damaged.add((job_id, type))
            log.error(type.replace("_", " "), job=job_id, damage=text)
            with suppress(trio.WouldBlock):
                self._news.send_nowait((type, job_id, text))

    async def _put_aside(self, ids: list[int]) -> None:
        await self._group(Call(lambda writer: writer.queues.put_aside(ids)))

    async def _tell_damage(self) -> None:
        while True:
            type, job_id, text = await self._heard.receive()
            with suppress(StorageFailed):
                await self.note(type, text, subject=job_id)


def _unusable(error: sqlite3.Error | OSError, database: Path) -> StorageFailed:
    # At the start a database that says no without a code (quick_check) is a damaged one.
    if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", None) is None:
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return storage_failed(error, database)

"""The SQLite store's reading half: every look runs in a thread, on a connection of its own."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TypeVar

import trio

from blacktree.concurrency.threads import in_thread
from blacktree.event import FarmEvent, Record
from blacktree.job import Job, JobState
from blacktree.storage import documents, queues, reader, tables
from blacktree.storage.base import Outgoing, Page, QueueItem
from blacktree.storage.database import connect
from blacktree.storage.directory import Directory
from blacktree.storage.group import closed
from blacktree.storage.trouble import storage_failed

T = TypeVar("T")

_READERS = 4


class Lookups(ABC):
    """What `SqliteStore` answers from the database alone."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._readers: list[sqlite3.Connection] = []
        self._limiter = trio.CapacityLimiter(_READERS)
        self._reading = False

    def _open_readers(self) -> None:
        for _ in range(_READERS):
            self._readers.append(connect(self._directory, read_only=True))
        self._reading = True

    def _close_readers(self) -> None:
        # One that a thread still holds is closed by that thread.
        self._reading = False
        while self._readers:
            self._readers.pop().close()

    @abstractmethod
    def _damage(self, job_id: str, text: str, type: str = "log_damaged") -> None:
        """Told of what cannot be read any more: of a job's log, or its whole row (`job_damaged`)."""

    @abstractmethod
    async def _put_aside(self, ids: list[int]) -> None:
        """Take messages that cannot be read out of their queues."""

    async def _ask_of_jobs(self, function: Callable[[sqlite3.Connection, tables.Damaged], T]) -> T:
        damaged: tables.Damaged = []
        found = await self._ask(lambda connection: function(connection, damaged))
        for job_id, why in damaged:
            self._damage(job_id, f"passed over: {why}", "job_damaged")
        return found

    async def _ask(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if not self._reading:
            raise closed()

        def look() -> T:
            try:
                connection = self._readers.pop()
            except IndexError:
                raise closed() from None
            try:
                return function(connection)
            except (sqlite3.Error, OSError) as error:
                raise storage_failed(error, self._directory.path) from error
            finally:
                if not self._reading:
                    connection.close()
                else:
                    self._readers.append(connection)

        return await in_thread(look, limiter=self._limiter)

    async def find(self, states: Collection[JobState], *, limit: int, cursor: str | None = None) -> Page:
        """As `JobTable.find`."""
        return await self._ask_of_jobs(
            lambda connection, damaged: tables.find(connection, states, limit, cursor, damaged)
        )

    async def unfinished(self) -> list[Job]:
        """As `JobTable.unfinished`."""
        return await self._ask_of_jobs(tables.unfinished)

    async def queued(self, *, after: str = "", limit: int = 1000, pool: str | None = None) -> list[Job]:
        """As `JobTable.queued`."""
        return await self._ask_of_jobs(
            lambda connection, damaged: tables.queued(connection, after, limit, pool, damaged)
        )

    async def oldest_queued(self) -> dict[str, datetime]:
        """As `JobTable.oldest_queued`."""
        return await self._ask_of_jobs(tables.oldest_queued)

    async def ahead(self, job: Job) -> int:
        """As `JobTable.ahead`."""
        return await self._ask(lambda connection: tables.ahead(connection, job))

    async def read(
        self, job_id: str, from_seq: int, *, limit: int = 1000, max_bytes: int = 256 * 1024
    ) -> list[tuple[int, Record]]:
        """As `LogTable.read`."""
        found = await self._ask(
            lambda connection: reader.read(connection, self._directory, job_id, from_seq, limit, max_bytes)
        )
        if found.damage:
            self._damage(job_id, found.damage)
        return found.records

    async def text_size(self, job_id: str) -> int:
        """As `LogTable.text_size`."""
        return await self._ask(lambda connection: reader.text_size(connection, job_id))

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes:
        """As `LogTable.read_text`."""
        found = await self._ask(
            lambda connection: reader.read_text(connection, self._directory, job_id, offset, max_bytes)
        )
        if found.damage:
            self._damage(job_id, found.damage)
        return found.text

    async def outgoing(self, *, after: int = 0, limit: int = 1000) -> list[Outgoing]:
        """As `Outbox.outgoing`."""
        damaged: tables.Damaged = []
        found = await self._ask(lambda connection: tables.outgoing(connection, after, limit, damaged))
        for job_id, why in damaged:
            # It stays where it is: what it said may be found out from there.
            self._damage(job_id, f"passed over: {why}", "outbox_damaged")
        return found

    async def queue_take(self, queue: str, limit: int, held: Collection[int]) -> list[QueueItem]:
        """As `QueueTable.queue_take`."""
        taken = await self._ask(lambda connection: queues.take(connection, queue, limit, held))
        if taken.damaged:
            for id, why in taken.damaged.items():
                self._damage(f"{queue}/{id}", f"put aside: {why}", "message_damaged")
            await self._put_aside(list(taken.damaged))
        return taken.items

    async def queue_depth(self, queue: str) -> int:
        """As `QueueTable.queue_depth`."""
        return await self._ask(lambda connection: queues.depth(connection, queue))

    async def noted(self, from_seq: int, *, limit: int = 1000) -> list[FarmEvent]:
        """As `FarmLog.noted`."""
        return await self._ask(lambda connection: tables.noted(connection, from_seq, limit))

    async def document(self, kind: str, name: str) -> bytes | None:
        """As `DocumentTable.document`."""
        return await self._ask(lambda connection: documents.get(connection, kind, name))

    async def documents(self, kind: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """As `DocumentTable.documents`."""
        return await self._ask(lambda connection: documents.page(connection, kind, after, limit))

    async def settings(self, prefix: str) -> dict[str, str]:
        """As `Store.settings`."""
        return await self._ask(lambda connection: tables.settings(connection, prefix))

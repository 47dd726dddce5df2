"""The memory store's lesser half: its life, the queues, the farm's own log, the settings."""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
import trio

from blacktree.clock import now
from blacktree.errors import StorageFailed
from blacktree.event import FarmEvent
from blacktree.storage.base import QueueItem, Revise
from blacktree.storage.documents import checked


class MemoryQueues:
    """What `MemoryStore` keeps besides jobs."""

    def __init__(self) -> None:
        self._queues: dict[int, tuple[str, QueueItem]] = {}
        self._next_item = 1
        self._farm: list[FarmEvent] = []
        self._meta: dict[str, str] = {}
        self._documents: dict[tuple[str, str], bytes] = {}
        self._running = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Store.run`."""
        self._running = True
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._running = False

    async def _turn(self) -> None:
        # The one checkpoint, before anything happens: a cancelled caller changed nothing, any other everything.
        await trio.lowlevel.checkpoint()
        if not self._running:
            raise StorageFailed("the store is not running", code="storage_closed", again=False)

    # Queues

    async def queue_put(self, queue: str, items: Sequence[QueueItem], *, maximum: int | None = None) -> list[int]:
        """As `QueueTable.queue_put`."""
        await self._turn()
        ids = []
        for item in items:
            ids.append(self._next_item)
            self._queues[self._next_item] = (queue, msgspec.structs.replace(item, id=self._next_item))
            self._next_item += 1
        if maximum is not None:
            rows = sorted(id for id, (name, _) in self._queues.items() if name == queue)
            for id in rows[: max(0, len(rows) - maximum)]:
                del self._queues[id]
        return ids

    async def queue_take(self, queue: str, limit: int, held: Collection[int]) -> list[QueueItem]:
        """As `QueueTable.queue_take`."""
        await self._turn()
        rows = [item for name, item in self._queues.values() if name == queue and item.id not in held]
        return sorted(rows, key=lambda item: (-item.priority, item.id))[: max(0, limit)]

    async def queue_delete(self, ids: Sequence[int]) -> None:
        """As `QueueTable.queue_delete`."""
        await self._turn()
        for id in ids:
            self._queues.pop(id, None)

    async def queue_return(self, ids: Sequence[int]) -> None:
        """As `QueueTable.queue_return`."""
        await self._turn()
        for id in ids:
            if id in self._queues:
                name, item = self._queues[id]
                self._queues[id] = (name, msgspec.structs.replace(item, deliveries=item.deliveries + 1))

    async def queue_move(self, id: int, to: str, headers: dict[str, str], *, body: bytes | None = None) -> None:
        """As `QueueTable.queue_move`."""
        await self._turn()
        if id in self._queues:
            item = self._queues[id][1]
            body = item.body if body is None else body
            self._queues[id] = (to, msgspec.structs.replace(item, headers=item.headers | headers, body=body))

    async def queue_depth(self, queue: str) -> int:
        """As `QueueTable.queue_depth`."""
        await self._turn()
        return sum(1 for name, _ in self._queues.values() if name == queue)

    async def queue_purge(self, queue: str) -> int:
        """As `QueueTable.queue_purge`."""
        await self._turn()
        rows = [id for id, (name, _) in self._queues.items() if name == queue]
        for id in rows:
            del self._queues[id]
        return len(rows)

    # The farm

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
        await self._turn()
        event = FarmEvent(
            seq=len(self._farm) + 1, time=time or now(), type=type, text=text, subject=subject, data=data or {}
        )
        self._farm.append(event)
        return event

    async def noted(self, from_seq: int, *, limit: int = 1000) -> list[FarmEvent]:
        """As `FarmLog.noted`."""
        await self._turn()
        start = max(1, from_seq) - 1
        return self._farm[start : start + max(1, limit)]

    async def meta(self, key: str, value: str | None = None) -> str | None:
        """As `Store.meta`."""
        await self._turn()
        return self._meta.get(key) if value is None else self._meta.setdefault(key, value)

    async def setting(self, key: str, value: str | None) -> None:
        """As `Store.setting`."""
        await self._turn()
        if value is None:
            self._meta.pop(key, None)
        else:
            self._meta[key] = value

    async def settings(self, prefix: str) -> dict[str, str]:
        """As `Store.settings`."""
        await self._turn()
        return {key: value for key, value in sorted(self._meta.items()) if key.startswith(prefix)}

    async def document(self, kind: str, name: str) -> bytes | None:
        """As `DocumentTable.document`."""
        await self._turn()
        return self._documents.get((kind, name))

    async def documents(self, kind: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """As `DocumentTable.documents`."""
        await self._turn()
        found = [(name, body) for (each, name), body in self._documents.items() if each == kind and name > after]
        return sorted(found)[: max(0, limit)]

    async def revise(self, kind: str, name: str, decide: Revise) -> bytes | None:
        """As `DocumentTable.revise`."""
        await self._turn()
        after = checked(decide(self._documents.get((kind, name))), kind, name)
        if after is None:
            self._documents.pop((kind, name), None)
        else:
            self._documents[kind, name] = after
        return after

    async def health(self) -> str:
        """As `Store.health`."""
        await trio.lowlevel.checkpoint()
        return "" if self._running else "the store is not running"

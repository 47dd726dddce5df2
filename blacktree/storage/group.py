"""Group commit, the Trio side: whatever arrives while a transaction is under way shares the next one."""

from collections.abc import Callable, Sequence
from typing import Any

import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import StorageFailed
from blacktree.histogram import QUICK, Histogram
from blacktree.storage.writer import Item

_MOST = 512


class _Ticket:
    __slots__ = ("done", "item", "result")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.done = trio.Event()
        self.result: Any = None


class Group:
    """`await group(item)` answers with what `commit` (in its thread) says of this item, once `told` has seen it.

    A cancelled caller whose item was not taken yet takes it back; one that was taken is done all the same.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], list[Any]], told: Callable[[Sequence[Any]], None]) -> None:
        self._commit = commit
        self._told = told
        self._waiting: list[_Ticket] = []
        self._arrived = trio.Event()
        self._open = False
        # A limiter of its own: the writer never waits behind other threads' work.
        self._limiter = trio.CapacityLimiter(1)
        self.seconds = Histogram(QUICK)

    async def __call__(self, item: Item) -> Any:
        if not self._open:
            raise closed()
        ticket = _Ticket(item)
        self._waiting.append(ticket)
        self._arrived.set()
        try:
            await ticket.done.wait()
        except trio.Cancelled:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            raise
        if isinstance(ticket.result, BaseException):
            raise ticket.result
        return ticket.result

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then commit what was handed in before, and refuse what comes after."""
        self._open = True
        task_status.started()
        try:
            while True:
                await self._arrived.wait()
                await self._next()
        finally:
            self._open = False
            with trio.move_on_after(30, shield=True):
                while self._waiting:
                    await self._next()
            for ticket in self._waiting:
                ticket.result = closed()
                ticket.done.set()

    async def _next(self) -> None:
        tickets, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        if not self._waiting:
            self._arrived = trio.Event()
        if not tickets:
            return
        items = [ticket.item for ticket in tickets]
        results: list[Any] = []
        began = trio.current_time()
        try:
            # A group under way is finished, and told, whatever is cancelled: half of it may be durable already.
            with trio.move_on_after(30, shield=True):
                results = await in_thread(lambda: self._commit(items), limiter=self._limiter)
            self.seconds.observe(trio.current_time() - began)
            self._told(results)
        finally:
            for index, ticket in enumerate(tickets):
                ticket.result = results[index] if index < len(results) else closed()
                ticket.done.set()


def closed() -> StorageFailed:
    """For whoever calls a store that does not run."""
    return StorageFailed("the store is not running", code="storage_closed", again=False)

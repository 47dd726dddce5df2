"""`Gather`: many callers, one call under way; whatever arrives meanwhile shares the next one.

The group commit of databases, for anything that is cheaper by the dozen: transactions, RPCs, acknowledgements.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

import trio

T = TypeVar("T")
R = TypeVar("R")


class _Ticket(Generic[T, R]):
    __slots__ = ("done", "error", "item", "result")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = trio.Event()
        self.result: R | None = None
        self.error: BaseException | None = None


class Gather(Generic[T, R]):
    """`await gather(item)` answers with this item's result of `call(items)`.

    `call` gets up to `most` items in order of arrival and returns one result each: a value, or an exception instance
    that is raised to that item's caller alone. Calls begin at least `pace_seconds` apart: the first one after a
    silence goes at once, under load they are fewer and larger. An exception raised by `call` itself (an `Exception`)
    is raised to every caller of that group. A caller that is cancelled leaves; its item is done all the same if it
    was taken.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        most: int = 256,
        pace_seconds: float = 0.0,
    ) -> None:
        self._call = call
        self._most = most
        self._pace_seconds = pace_seconds
        self._waiting: list[_Ticket[T, R]] = []
        self._arrived = trio.Event()
        self._closed: Exception | None = None

    async def __call__(self, item: T) -> R:
        if self._closed is not None:
            raise self._closed
        ticket: _Ticket[T, R] = _Ticket(item)
        self._waiting.append(ticket)
        self._arrived.set()
        try:
            await ticket.done.wait()
        except trio.Cancelled:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        # `done` without an error: there is a result, and it may rightly be None.
        return cast("R", ticket.result)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. A group under way is finished if `call` shields itself; who waits then is told."""
        task_status.started()
        group: list[_Ticket[T, R]] = []
        began = -self._pace_seconds
        try:
            while True:
                await self._arrived.wait()
                await trio.sleep_until(began + self._pace_seconds)
                began = trio.current_time()
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                if not self._waiting:
                    self._arrived = trio.Event()
                if group:
                    await self._serve(group)
                    group = []
        finally:
            self._closed = trio.ClosedResourceError("this part has ended")
            for ticket in [*group, *self._waiting]:
                if not ticket.done.is_set():
                    ticket.error = self._closed
                    ticket.done.set()

    async def _serve(self, group: list[_Ticket[T, R]]) -> None:
        try:
            results = await self._call([ticket.item for ticket in group])
            for ticket, result in zip(group, results, strict=True):
                if isinstance(result, Exception):
                    ticket.error = result
                else:
                    ticket.result = result
        except Exception as error:
            for ticket in group:
                ticket.error = error
        for ticket in group:
            # A cancelled `call` leaves its tickets to `run`, which says that this part has ended.
            ticket.done.set()

"""`Rows`: the outbox's rows that are notifications, each handed on until it is on record elsewhere, then cleared."""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from blacktree.errors import StorageFailed
from blacktree.orchestrator.herald import ROW, Event
from blacktree.storage.base import Commit, Outgoing, Store

MOST_ROWS = 10_000
GROUP = 128
STORE_SECONDS = 1.0

log = structlog.get_logger()


class Rows:
    """From memory while there are few; beyond that, and at the start, from the store. `keep` puts one on record,

    several at a time; `enter` then lets it go on, in order. Either may be told one twice."""

    def __init__(
        self,
        store: Store,
        keep: Callable[[Event], Awaitable[None]],
        enter: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._store = store
        self._keep = keep
        self._enter = enter
        self._rows: deque[Outgoing] = deque()
        self._overflow = True
        self._arrived = trio.Event()
        self._taken: OrderedDict[str, None] = OrderedDict()

    def on_commit(self, commit: Commit) -> None:
        """Take the rows that are ours."""
        rows = [row for row in commit.outgoing if row.kind == ROW]
        if rows:
            if self._overflow or len(self._rows) + len(rows) > MOST_ROWS:
                self._overflow = True
            else:
                self._rows.extend(rows)
            self._arrived.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, beginning with what an earlier life left."""
        task_status.started()
        while True:
            if self._rows:
                await self._take([self._rows.popleft() for _ in range(min(GROUP, len(self._rows)))])
            elif self._overflow:
                # What is committed from here on comes to memory; it may be on a page as well, and is taken once.
                self._overflow = False
                await self._sweep()
            else:
                await self._arrived.wait()
                self._arrived = trio.Event()

    async def _sweep(self) -> None:
        after = 0
        try:
            while page := await self._store.outgoing(after=after, limit=GROUP):
                after = page[-1].id
                await self._take([row for row in page if row.kind == ROW])
        except StorageFailed as error:
            log.error("outbox cannot be read", reason=str(error))
            await trio.sleep(STORE_SECONDS)
            self._overflow = True

    async def _take(self, rows: list[Outgoing]) -> None:
        """All of them in few transactions; then the rows go."""
        events = [msgspec.json.decode(row.body, type=Event) for row in rows]
        fresh = [event for event in events if event.id not in self._taken]
        while fresh:
            try:
                async with trio.open_nursery() as nursery:
                    for event in fresh:
                        nursery.start_soon(self._keep, event)
                for event in fresh:
                    await self._enter(event)
                await self._store.published([row.id for row in rows])
                break
            except* StorageFailed as errors:
                # The rows are still there, and what was written is only written again.
                log.error("notifications cannot be put on record", reason=str(errors.exceptions[0]))
            await trio.sleep(STORE_SECONDS)
        self._taken.update(dict.fromkeys(event.id for event in fresh))
        while len(self._taken) > 2 * MOST_ROWS:
            self._taken.popitem(last=False)

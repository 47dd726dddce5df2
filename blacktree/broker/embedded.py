"""A broker for one machine: durable queues over the store; in memory is only which rows are held."""

from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio

from blacktree.broker.base import DEAD_QUEUE, BrokerStatus, Consumer, Delivery, Message
from blacktree.broker.handed import Handed, Settlement
from blacktree.broker.topology import REASON_HEADER, REASON_LIMIT, Topology
from blacktree.clock import now
from blacktree.concurrency.gather import Gather
from blacktree.errors import BrokerLost, Conflict, StorageFailed
from blacktree.storage.base import QueueItem, QueueTable

PROBE_SECONDS = 1.0
SETTLE_SECONDS = 5.0


class EmbeddedBroker:
    """Keeps the promises of `Broker` over a `QueueTable`. Away only while the store fails."""

    def __init__(self, queues: QueueTable, *, status_maximum: int, event_maximum: int) -> None:
        self._queues = queues
        self._topology = Topology(status_maximum=status_maximum, event_maximum=event_maximum, events=True)
        self._held: dict[int, _Consumer] = {}
        self._consumed: set[str] = set()
        self._published: dict[str, trio.Event] = {}
        self._first_id: int | None = None
        self._ended = False
        self._changed = trio.Event()
        self._failed = trio.Event()
        self._status = BrokerStatus(connected=False, kind="embedded", reason="not started", since=now())
        self._acknowledge: Gather[int, None] = Gather(self._delete, most=512)
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stand("")
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._acknowledge.run)
                task_status.started()
                while True:
                    await self._failed.wait()
                    await self._probe()
        finally:
            # What is held is lost with this object: its rows are still in the table.
            self._ended = True
            self._stand("ended")

    def status(self) -> BrokerStatus:
        return self._status

    async def wait_changed(self) -> None:
        await self._changed.wait()

    async def publish(self, messages: Sequence[Message]) -> None:
        by_queue: dict[str, list[QueueItem]] = {}
        for message in messages:
            self._topology.queue(message.queue)
            item = QueueItem(
                body=message.body, priority=message.priority, message_id=message.message_id, headers=message.headers
            )
            by_queue.setdefault(message.queue, []).append(item)
        for queue, items in by_queue.items():
            try:
                with self._storing():
                    ids = await self._queues.queue_put(queue, items, maximum=self._topology.queue(queue).maximum)
                if self._first_id is None and ids:
                    self._first_id = min(ids)
            finally:
                # A cancelled call may have been committed all the same.
                self._wake(queue)

    @asynccontextmanager
    async def deliveries(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        self._topology.queue(queue)
        while not self._status.connected:
            await self._changed.wait()
        if queue in self._consumed:
            raise Conflict(
                f"another consumer reads {queue}", code="queue_taken", advice="end it, or give this one another pool"
            )
        self._consumed.add(queue)
        consumer = _Consumer(self, queue, prefetch)
        try:
            yield consumer
        finally:
            self._consumed.discard(queue)
            consumer.give_back()

    async def depth(self, queue: str) -> int | None:
        try:
            with self._storing():
                rows = await self._queues.queue_depth(queue)
        except BrokerLost:
            return None
        return max(0, rows - sum(1 for consumer in self._held.values() if consumer.queue == queue))

    # What consumers and deliveries need.

    async def settle(self, key: int, how: Settlement, reason: str, body: bytes | None) -> None:
        try:
            with trio.move_on_after(SETTLE_SECONDS, shield=True) as scope, self._storing():
                match how:
                    case Settlement.ACK:
                        await self._acknowledge(key)
                    case Settlement.REQUEUE:
                        await self._queues.queue_return([key])
                    case Settlement.REJECT:
                        headers = {REASON_HEADER: reason[:REASON_LIMIT]}
                        await self._queues.queue_move(key, DEAD_QUEUE, headers, body=body)
            if scope.cancelled_caught:
                raise BrokerLost("the store did not answer in time; the message will be delivered again")
        finally:
            self.release([key])
            if how is Settlement.REJECT:
                self._wake(DEAD_QUEUE)

    def forgotten(self, key: int) -> None:
        self.release([key])

    def release(self, keys: Sequence[int]) -> None:
        """These rows are held no more; whatever is still in the table is delivered again."""
        for key in keys:
            consumer = self._held.pop(key, None)
            if consumer is not None:
                consumer.outstanding -= 1
                self._wake(consumer.queue)

    def check(self) -> None:
        if self._ended:
            raise BrokerLost("the embedded broker has ended")

    async def take(self, consumer: "_Consumer", limit: int) -> list[QueueItem]:
        with self._storing():
            items = await self._queues.queue_take(consumer.queue, limit, frozenset(self._held))
        for item in items:
            self._held[item.id] = consumer
        consumer.outstanding += len(items)
        return items

    def hand(self, item: QueueItem) -> Handed:
        assert self._token is not None
        # Rows of an earlier life may have been in someone's hands when it ended.
        old = self._first_id is None or item.id < self._first_id
        return Handed(
            self,
            item.id,
            body=item.body,
            message_id=item.message_id,
            redelivered=old or item.deliveries > 0,
            token=self._token,
        )

    def news(self, queue: str) -> trio.Event:
        """Set when something is published to this queue or given back."""
        return self._published.setdefault(queue, trio.Event())

    async def _delete(self, keys: Sequence[int]) -> list[Exception | None]:
        await self._queues.queue_delete(keys)
        return [None] * len(keys)

    def _wake(self, queue: str) -> None:
        event = self._published.pop(queue, None)
        if event is not None:
            event.set()

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """The border to the store: its failure is the broker's."""
        self.check()
        try:
            yield
        except StorageFailed as error:
            self._stand(f"the store failed: {error}")
            self._failed.set()
            raise BrokerLost(f"the embedded broker's store failed: {error.message}", advice=error.advice) from error
        except trio.ClosedResourceError as error:
            raise BrokerLost("the embedded broker has ended") from error

    async def _probe(self) -> None:
        while True:
            await trio.sleep(PROBE_SECONDS)
            try:
                # A write that changes nothing: reading may work while writing does not.
                await self._queues.queue_return([0])
                await self._queues.queue_depth(DEAD_QUEUE)
            except StorageFailed:
                continue
            self._failed = trio.Event()
            self._stand("")
            return

    def _stand(self, reason: str) -> None:
        connected = not reason
        since = self._status.since if connected == self._status.connected else now()
        sessions = self._status.sessions + (connected and not self._status.connected)
        self._status = BrokerStatus(connected=connected, kind="embedded", reason=reason, since=since, sessions=sessions)
        self._changed.set()
        self._changed = trio.Event()
        # Whoever waits for a message looks again, and meets the failure there.
        for queue in list(self._published):
            self._wake(queue)


class _Consumer:
    """The iterator of one `deliveries()`: takes up to `prefetch` rows ahead, counting those not yet settled."""

    def __init__(self, broker: EmbeddedBroker, queue: str, prefetch: int) -> None:
        self.queue = queue
        self.outstanding = 0
        self._broker = broker
        self._prefetch = prefetch
        self._ready: deque[QueueItem] = deque()

    def __aiter__(self) -> "_Consumer":
        return self

    async def __anext__(self) -> Delivery:
        await trio.lowlevel.checkpoint()
        self._broker.check()
        while not self._ready:
            # Before the look: a message that arrives during it must not be slept over.
            news = self._broker.news(self.queue)
            room = self._prefetch - self.outstanding
            if room > 0:
                self._ready.extend(await self._broker.take(self, room))
            if not self._ready:
                await news.wait()
        # Nothing awaits between here and the caller: what leaves the buffer arrives.
        return self._broker.hand(self._ready.popleft())

    async def park(self) -> None:
        # Rows are only taken when one is asked for.
        await trio.lowlevel.checkpoint()
        self.give_back()

    def give_back(self) -> None:
        """What was taken and never handed out; nobody saw it, so it counts as no delivery."""
        self._broker.release([item.id for item in self._ready])
        self._ready.clear()

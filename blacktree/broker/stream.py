"""One consumer on a channel of its own: messages arrive in asyncio, are read in Trio, and are settled in groups.

Both flavours run in one thread, so what arrives is only put into a list and what waits is woken: nothing crosses.
Methods named `_on_…`, `open` and `close` belong to asyncio, the others to Trio.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import trio
from pamqp.header import ContentHeader

from blacktree.broker.base import DEAD_QUEUE, Delivery, Message
from blacktree.broker.frames import settle_frames
from blacktree.broker.handed import Handed, Settlement
from blacktree.broker.topology import REASON_HEADER, REASON_LIMIT
from blacktree.errors import BrokerLost

KEEP_SECONDS = 600.0
HEADERS_BYTES = 64 * 1024


class Arrived(Protocol):
    """A delivered message, as aiormq hands it to a consumer."""

    body: bytes
    header: ContentHeader

    @property
    def delivery_tag(self) -> int | None: ...

    @property
    def redelivered(self) -> bool | None: ...


class Line(Protocol):
    """The channel, as seen from here: what of asyncio this file needs, the session does."""

    async def consume(self, on_message: Callable[[Any], Coroutine[Any, Any, None]], prefetch: int) -> None:
        """Exclusively, with at most so many unsettled deliveries."""
        ...

    async def cancel(self) -> None: ...

    async def hold_back(self) -> bool:
        """At most one unsettled delivery from now on; False where RabbitMQ cannot do that."""
        ...

    async def let_go(self, prefetch: int) -> None:
        """The end of `hold_back`."""
        ...

    def not_held_back(self) -> None:
        """More than one came all the same, and came again after it was given back."""
        ...

    async def call(self, function: Callable[[], Awaitable[None]]) -> None:
        """Trio: await this asyncio function of the stream; raises `BrokerLost` if the channel is lost in it."""
        ...

    async def write(self, payload: bytes) -> None: ...

    @property
    def number(self) -> int: ...

    def start(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As a task of the channel, which ends with it."""
        ...

    def close_soon(self) -> None: ...


class _Flush:
    """A group of settlements on its way: `done` is set when it was written or the session was lost."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: BrokerLost | None = None


class Stream:
    """The iterator of one `deliveries()`, and the source of its deliveries until the last one is settled."""

    def __init__(
        self, queue: str, line: Line, prefetch: int, publish: Callable[[list[Message]], Awaitable[None]]
    ) -> None:
        self.queue = queue
        self.lost: BrokerLost | None = None
        self._line = line
        self._prefetch = prefetch
        self._parked = False
        self._parked_since = 0.0
        self._held_back = False
        self._given_back: set[int] = set()
        self._publish = publish
        self._token = trio.lowlevel.current_trio_token()
        self._ready: deque[Arrived] = deque()
        self._news = trio.Event()
        self._left = False
        # Every tag that the broker holds unacknowledged for us, ascending, with what a dead letter must carry on.
        self._outstanding: dict[int, Arrived] = {}
        self._acks: set[int] = set()
        self._requeues: set[int] = set()
        self._flush = _Flush()
        self._in_flight: _Flush | None = None
        self._flushing = False

    # Trio

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Delivery:
        await trio.lowlevel.checkpoint()
        if self._parked and self.lost is None:
            await self._line.call(self._unpark)
        while not self._ready or self.lost is not None:
            if self.lost is not None:
                raise self.lost
            self._news = trio.Event()
            await self._news.wait()
        # Nothing awaits between here and the caller: what leaves the buffer arrives.
        message = self._ready.popleft()
        assert message.delivery_tag is not None
        return Handed(
            self,
            message.delivery_tag,
            body=message.body,
            message_id=message.header.properties.message_id or "",
            redelivered=bool(message.redelivered),
            token=self._token,
        )

    async def park(self) -> None:
        if self.lost is not None:
            raise self.lost
        if not self._parked:
            self._parked = True
            self._parked_since = trio.current_time()
            self._given_back.clear()
            await self._line.call(self._park)

    def refresh(self) -> None:
        """Give back what came while parked and has waited long: RabbitMQ ends channels that keep something.

        Called about once a second. More than one at that time was on its way when the limit was set and goes back
        too, whenever it comes; if more than one of those is there again, there is no limit.
        """
        if self.lost is not None or not self._parked:
            return
        if trio.current_time() - self._parked_since > KEEP_SECONDS:
            self._parked_since = trio.current_time()
            self._give_back()
        elif self._held_back and len(self._ready) > 1:
            if sum(_identity(each) in self._given_back for each in self._ready) > 1:
                self._held_back = False
                self._line.not_held_back()
            else:
                self._given_back.update(map(_identity, self._ready))
                self._give_back()

    def _give_back(self) -> None:
        while self._ready:
            self.forgotten(self._ready.popleft().delivery_tag or 0)

    async def settle(self, key: int, how: Settlement, reason: str, body: bytes | None) -> None:
        if how is Settlement.REJECT:
            if self.lost is not None:
                raise self.lost
            try:
                await self._publish([_dead_letter(self._outstanding[key], reason, body)])
            except BaseException:
                # Not confirmed as a dead letter: then it must not leave the queue.
                self._ask(key, self._requeues)
                raise
        flush = self._ask(key, self._requeues if how is Settlement.REQUEUE else self._acks)
        await flush.done.wait()
        if flush.error is not None:
            raise flush.error

    def forgotten(self, key: int) -> None:
        if self.lost is None:
            self._ask(key, self._requeues)

    def end(self, error: BrokerLost) -> None:
        """The session is gone: nothing of it can be settled any more."""
        if self.lost is None:
            self.lost = error
        self._ready.clear()
        self._outstanding.clear()
        for flush in (self._in_flight, self._flush):
            if flush is not None and not flush.done.is_set():
                flush.error = self.lost
                flush.done.set()
        self._news.set()

    def _ask(self, key: int, which: set[int]) -> _Flush:
        if self.lost is not None:
            raise self.lost
        which.add(key)
        flush = self._flush
        if not self._flushing:
            self._start_flush()
        return flush

    def _start_flush(self) -> None:
        self._flushing = True
        self._line.start(self._on_flush)

    # asyncio

    async def open(self) -> None:
        """Raises what aiormq raises; the channel is then closed by the caller."""
        await self._line.consume(self._on_message, self._prefetch)

    async def _park(self) -> None:
        self._held_back = await self._line.hold_back()
        if self._held_back:
            self._give_back()
        # Else it would come back at once; it goes back when the next one is asked for.

    async def _unpark(self) -> None:
        # What was kept first goes back to its place: something with a higher priority may have arrived since.
        self._parked = self._held_back = False
        self._give_back()
        await self._line.let_go(self._prefetch)

    async def close(self) -> None:
        """Take nothing more and give back what nobody was handed; the channel lives until the rest is settled."""
        self._left = True
        if self.lost is not None:
            return
        await self._line.cancel()
        self._give_back()
        self._on_settled()

    def drop(self) -> None:
        """Close the channel; RabbitMQ delivers what it held again."""
        self._line.close_soon()

    async def _on_message(self, message: Arrived) -> None:
        if self.lost is not None or message.delivery_tag is None:
            return
        self._outstanding[message.delivery_tag] = message
        if self._left:
            self.forgotten(message.delivery_tag)
        else:
            self._ready.append(message)
            self._news.set()

    async def _on_flush(self) -> None:
        # A turn of the loop after the first request, so that what settles in the same moment shares the group.
        flush, self._flush = self._flush, _Flush()
        self._in_flight = flush
        acks, self._acks = self._acks, set()
        requeues, self._requeues = self._requeues, set()
        payload = settle_frames(self._line.number, self._outstanding, acks, requeues)
        await self._line.write(payload)
        for tag in acks | requeues:
            self._outstanding.pop(tag, None)
        flush.done.set()
        self._in_flight = None
        self._flushing = False
        if self._acks or self._requeues:
            self._start_flush()
        else:
            self._on_settled()

    def _on_settled(self) -> None:
        if self._left and not self._outstanding and self.lost is None:
            self.lost = BrokerLost("this consumer has ended")
            self._line.close_soon()


def _identity(message: Arrived) -> int:
    """The same for a message that comes again."""
    return hash((message.header.properties.message_id, message.body))


def _dead_letter(message: Arrived, reason: str, body: bytes | None) -> Message:
    properties = message.header.properties
    headers = {name: value for name, value in (properties.headers or {}).items() if isinstance(value, str)}
    if sum(len(name.encode()) + len(value.encode()) for name, value in headers.items()) > HEADERS_BYTES:
        # All headers go in one frame; with the reason they must still fit.
        headers = {}
    return Message(
        queue=DEAD_QUEUE,
        body=message.body if body is None else body,
        message_id=properties.message_id or "",
        priority=properties.priority or 0,
        headers=headers | {REASON_HEADER: reason[:REASON_LIMIT]},
    )

"""One consumer's channel on the island: what of asyncio a `Stream` needs."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
import trio
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError

from blacktree.broker.border import FOREIGN, refuses_channel_limit, within_border
from blacktree.concurrency.island import on_island
from blacktree.errors import BrokerLost

CALL_SECONDS = 5.0

log = structlog.get_logger()


class ChannelLimit:
    """Whether this RabbitMQ limits a whole channel (`global_qos`); what is found out holds until the program ends.

    Deprecated since 3.12. Where it is switched off, as by default since 4.3, RabbitMQ says yes and does nothing
    (`handle_method` of `basic.qos` in its rabbit_channel.erl); a later one may refuse, which closes the channel.
    """

    def __init__(self) -> None:
        self.works = True

    def missing(self, reason: str) -> None:
        if self.works:
            self.works = False
            log.warning(
                "rabbitmq does not limit whole channels",
                reason=reason,
                effect="while no worker is free, up to queue.prefetch tickets stay fetched, for 10 minutes at a time",
            )


class Line:
    """A consumer's channel, for its `Stream`."""

    def __init__(self, channel: Channel, queue: str, channel_limit: ChannelLimit, tag: str) -> None:
        self._channel = channel
        self._queue = queue
        self._tag = tag
        self._channel_limit = channel_limit
        self._close: asyncio.Task[None] | None = None

    @property
    def number(self) -> int:
        return self._channel.number

    async def consume(self, on_message: Callable[[DeliveredMessage], Coroutine[Any, Any, None]], prefetch: int) -> None:
        await self._channel.basic_qos(prefetch_count=prefetch)
        await self._channel.basic_consume(self._queue, on_message, exclusive=True, consumer_tag=self._tag)

    async def cancel(self) -> None:
        await self._channel.basic_cancel(self._tag)

    async def hold_back(self) -> bool:
        # The channel's own limit is the only one that can change while a consumer runs. None at all would mean no
        # limit, so one message may come.
        if not self._channel_limit.works:
            return False
        try:
            await self._channel.basic_qos(prefetch_count=1, global_=True)
        except FOREIGN as error:
            if refuses_channel_limit(error):
                self._channel_limit.missing(str(error))
            raise
        return True

    async def let_go(self, prefetch: int) -> None:
        # The consumer's limit once more; this ends the channel's.
        await self._channel.basic_qos(prefetch_count=prefetch)

    def not_held_back(self) -> None:
        self._channel_limit.missing("it takes the limit and does not keep to it")

    async def call(self, function: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(CALL_SECONDS, shield=True):
            await on_island(within_border, function)
            return
        raise BrokerLost("RabbitMQ did not answer in time")

    async def write(self, payload: bytes) -> None:
        await write(self._channel, payload)

    def start(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._channel.create_task(self._run(call))

    async def _run(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await call()
        except ChannelInvalidStateError:
            pass  # the stream is told by its channel's end

    def close_soon(self) -> None:
        # Not a task of the channel: closing ends those.
        self._close = self._channel.loop.create_task(self._channel.close())


async def write(channel: Channel, payload: bytes) -> None:
    """Returns when the socket's buffer has room again; raises when the channel is closed."""
    drained = channel.create_future()
    await channel.write_queue.put(ChannelFrame(payload=payload, should_close=False, drain_future=drained))
    # Waited for beside, not awaited: a closing channel puts a bare Exception or CancelledError into it.
    await asyncio.wait([drained])
    if drained.cancelled() or drained.exception() is not None:
        raise ChannelInvalidStateError("the channel was closed")

"""One session with RabbitMQ: two connections, the channels on them, and what was declared; asyncio.

Two, because RabbitMQ stops reading from one that publishes while its memory or disk alarm is on, and deliveries must
be settled all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiormq.channel import Channel
from aiormq.connection import Connection
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed
from pamqp.common import FieldTable
from yarl import URL

from blacktree.broker.base import Message
from blacktree.broker.border import border, not_declared, outcome
from blacktree.broker.frames import new_message_id
from blacktree.broker.line import ChannelLimit, Line
from blacktree.broker.oddities import bear_odd_properties
from blacktree.broker.publisher import Publisher
from blacktree.broker.stream import Stream
from blacktree.broker.topology import EXCHANGE, QueueSpec, Topology
from blacktree.errors import BlacktreeError, BrokerLost, Conflict

bear_odd_properties()

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 0.7
WATCH_SECONDS = 1.0


class Session:
    """Two connections and what lives on them; asyncio throughout. Over with the first connection that is lost."""

    def __init__(self, topology: Topology, channel_limit: ChannelLimit, on_blocked: Callable[[bool], None]) -> None:
        self._topology = topology
        self._channel_limit = channel_limit
        self._on_blocked = on_blocked
        self._connections: list[Connection] = []
        self._publisher: Publisher | None = None
        self._gauge: Channel | None = None
        self._gauging = asyncio.Lock()
        self._streams: set[Stream] = set()
        self._closing: list[asyncio.Future[object]] = []
        self._is_blocked = False
        self._name = ""

    async def open(self, url: URL, farm_id: str, queues: Sequence[QueueSpec]) -> None:
        """Connect and declare. Raises `BrokerLost`."""
        with border(url):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._open(url, farm_id, queues)

    async def _open(self, url: URL, farm_id: str, queues: Sequence[QueueSpec]) -> None:
        self._name = f"blacktree.{farm_id}"
        for part in ("publish", "consume"):
            properties: FieldTable = {"connection_name": f"blacktree {farm_id} {part}"}
            connection = Connection(url, client_properties=properties)
            self._connections.append(connection)
            await connection.connect()
        for spec in queues:
            await self.declare(spec)
        self._publisher = Publisher(await self._open_channel(0, confirms=True), self.declare)
        self._closing = [*(each.closing for each in self._connections), self._publisher.closing]

    async def wait_lost(self) -> BrokerLost:
        """Returns when the session is over, with the reason; meanwhile looks whether RabbitMQ holds publishers back."""
        while True:
            done, _ = await asyncio.wait(self._closing, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return outcome(done.pop())
            await self._watch_alarm()
            for stream in self._streams:
                stream.refresh()

    async def close(self, error: BlacktreeError) -> None:
        reason = error if isinstance(error, BrokerLost) else BrokerLost(str(error))
        for stream in list(self._streams):
            stream.end(reason)
        if self._publisher is not None:
            self._publisher.fail(reason)
        for future in self._closing:
            future.cancel()
        await asyncio.gather(*(self._hang_up(connection) for connection in self._connections))

    async def _hang_up(self, connection: Connection) -> None:
        try:
            with border():
                async with asyncio.timeout(CLOSE_SECONDS):
                    await connection.close()
        except BrokerLost:
            pass

    async def declare(self, spec: QueueSpec) -> None:
        """Exchange, queue and binding, on a channel of its own: a refusal closes it."""
        # Not where publishes go: an alarm holds everything back there.
        channel = await self._open_channel(1)
        try:
            await channel.exchange_declare(EXCHANGE, exchange_type="direct", durable=True)
            await channel.queue_declare(spec.name, durable=True, arguments=dict(spec.arguments) or None)
            await channel.queue_bind(spec.name, EXCHANGE, spec.key)
        except (ChannelPreconditionFailed, ChannelAccessRefused) as error:
            raise not_declared(spec, error) from error
        await channel.close()

    async def publish(self, messages: Sequence[tuple[QueueSpec, Message]]) -> None:
        """As `Publisher.publish`."""
        if self._publisher is None:
            raise BrokerLost("RabbitMQ's connection is gone")
        await self._publisher.publish(messages)

    async def open_stream(
        self, spec: QueueSpec, prefetch: int, publish: Callable[[list[Message]], Awaitable[None]]
    ) -> Stream:
        with border():
            await self.declare(spec)
            channel = await self._open_channel(1)
            line = Line(channel, spec.name, self._channel_limit, f"{self._name}.{new_message_id()}")
            stream = Stream(spec.name, line, prefetch, publish)
            self._streams.add(stream)
            channel.closing.add_done_callback(lambda future: self._end_stream(stream, outcome(future)))
            channel.on_consumer_cancel_callbacks.add(
                lambda _: self._drop_stream(stream, BrokerLost(f"RabbitMQ ended the consumer: is {spec.name} deleted?"))
            )
            try:
                await stream.open()
            except ChannelAccessRefused as error:
                if "exclusive" not in str(error):
                    raise
                raise Conflict(
                    f"another consumer reads {spec.name}",
                    code="queue_taken",
                    advice="one farm a queue: end the other orchestrator, or give this one a virtual host of its own",
                ) from error
        return stream

    async def close_stream(self, stream: Stream) -> None:
        try:
            with border():
                await stream.close()
        except BrokerLost as error:
            self._drop_stream(stream, error)

    async def depth(self, queue: str) -> int | None:
        async with self._gauging:
            try:
                with border():
                    if self._gauge is None or self._gauge.is_closed:
                        self._gauge = await self._open_channel(1)
                    answer = await self._gauge.queue_declare(queue, passive=True)
            except BrokerLost:
                return None
            return answer.message_count

    def _end_stream(self, stream: Stream, error: BrokerLost) -> None:
        stream.end(error)
        self._streams.discard(stream)

    def _drop_stream(self, stream: Stream, error: BrokerLost) -> None:
        """Closing its channel gives back all that it holds."""
        self._end_stream(stream, error)
        stream.drop()

    async def _open_channel(self, number: int, *, confirms: bool = False) -> Channel:
        channel = await self._connections[number].channel(publisher_confirms=confirms, on_return_raises=True)
        assert isinstance(channel, Channel)
        return channel

    async def _watch_alarm(self) -> None:
        ready = asyncio.ensure_future(self._connections[0].ready())
        await asyncio.wait([ready], timeout=0.05)
        blocked = not ready.done()
        ready.cancel()
        if blocked != self._is_blocked:
            self._is_blocked = blocked
            if self._publisher is not None:
                self._publisher.block(blocked)
            self._on_blocked(blocked)

"""RabbitMQ under our own supervision: sessions one after the other, and what the farm asks of them.

Spoken by aiormq, the AMQP layer of aio-pika, itself: what crosses to asyncio is a group (of publishes, of
settlements), written in one piece, and aio-pika knows single messages only. Its own reconnecting stays out as well:
a lost session must be told to everybody who holds something of it.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from blacktree.broker.address import Address, checked
from blacktree.broker.backoff import Backoff
from blacktree.broker.base import BrokerStatus, Consumer, Message
from blacktree.broker.line import CALL_SECONDS, ChannelLimit
from blacktree.broker.session import Session
from blacktree.broker.stream import Stream
from blacktree.broker.topology import QueueSpec, Topology
from blacktree.clock import now
from blacktree.concurrency.gather import Gather
from blacktree.concurrency.island import on_island
from blacktree.errors import BrokerLost

STEADY_SECONDS = 5.0
RETRY_FIRST_SECONDS, RETRY_LIMIT_SECONDS = 0.1, 10.0
REFUSED_SECONDS = 1.0
LEAVE_SECONDS = 0.7

log = structlog.get_logger()


class RabbitBroker:
    """Keeps the promises of `Broker` over RabbitMQ 3.10 or later. The island must be open around `run`.

    `deliveries` raises `Conflict` (code `queue_taken`) also while an earlier connection of our own still holds the
    queue (half dead, or RabbitMQ just restarted): try again, at least for as long as three heartbeats.
    A delivery counts as taken once the iterator gave it out; it goes back when settled so, when the session ends,
    or when nobody refers to it any more.
    Parking uses RabbitMQ's limit of a whole channel. Where that is switched off (see `ChannelLimit`), a parked
    consumer keeps what it has fetched, at most its prefetch, and gives it back every 10 minutes and before the next
    delivery; it stays the exclusive consumer. One that refuses the limit costs one session, once.
    """

    def __init__(self, url: str, *, status_maximum: int, event_maximum: int, events: bool, farm_id: str) -> None:
        self._address = Address(checked(url))
        self._topology = Topology(status_maximum=status_maximum, event_maximum=event_maximum, events=events)
        self._farm_id = farm_id
        self._queues = {spec.name: spec for spec in self._topology.standing()}
        self._channel_limit = ChannelLimit()
        self._session: Session | None = None
        self._changed = trio.Event()
        self._status = BrokerStatus(connected=False, kind="rabbitmq", reason="not started", since=now())
        self._refused: dict[str, str] = {}
        self._publishing: Gather[Sequence[Message], None] = Gather(self._publish, most=256)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        # Each of its failures reaches our own log and status, without a line a try.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)
        self._stand(False, "connecting")
        backoff = Backoff(RETRY_FIRST_SECONDS, RETRY_LIMIT_SECONDS)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._publishing.run)
                task_status.started()
                while True:
                    started = trio.current_time()
                    await on_island(self._serve_session)
                    if trio.current_time() - started > STEADY_SECONDS:
                        backoff.reset()
                    await trio.sleep(backoff.next())
        finally:
            self._stand(False, "ended")

    def status(self) -> BrokerStatus:
        return self._status

    async def wait_changed(self) -> None:
        await self._changed.wait()

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.queue not in self._queues:
                self._queues[message.queue] = self._topology.queue(message.queue)
        if self._session is None:
            raise self._away()
        try:
            await self._publishing(messages)
        except trio.ClosedResourceError as error:
            raise BrokerLost("the broker has ended") from error

    @asynccontextmanager
    async def deliveries(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        spec = self._queues.setdefault(queue, self._topology.queue(queue))
        while (session := self._session) is None:
            await self._changed.wait()
        stream = await self._open_stream(session, spec, prefetch)
        try:
            yield stream
        finally:
            # A shutdown has two seconds; the end of the session gives back all the same what this does not.
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await on_island(session.close_stream, stream)

    async def depth(self, queue: str) -> int | None:
        self._topology.queue(queue)
        if self._session is None:
            return None
        with trio.move_on_after(CALL_SECONDS, shield=True):
            return await on_island(self._session.depth, queue)
        return None

    async def _open_stream(self, session: Session, spec: QueueSpec, prefetch: int) -> Stream:
        # Shielded: a cancelled AMQP call takes its channel with it, and this one is quick.
        with trio.move_on_after(CALL_SECONDS, shield=True):
            try:
                stream = await on_island(session.open_stream, spec, prefetch, self.publish)
            except BrokerLost as error:
                if session is self._session:
                    self._refuse(spec.name, str(error))
            else:
                self._refuse(spec.name, "")
                return stream
        if spec.name in self._refused:
            # The connection is there and says no: asking again at once would only repeat it.
            await trio.sleep(REFUSED_SECONDS)
        raise BrokerLost(self._refused.get(spec.name) or f"RabbitMQ did not let us consume {spec.name} in time")

    async def _publish(self, groups: Sequence[Sequence[Message]]) -> list[Exception | None]:
        if self._session is None:
            raise self._away()
        messages = [(self._queues[message.queue], message) for group in groups for message in group]
        await on_island(self._session.publish, messages)
        return [None] * len(groups)

    async def _serve_session(self) -> None:
        """One session, from connecting to its end. Asyncio."""
        session = Session(self._topology, self._channel_limit, self._blocked)
        error = BrokerLost("the broker has ended")
        try:
            await session.open(self._address.url, self._farm_id, list(self._queues.values()))
            self._session = session
            self._refused.clear()
            self._stand(True, "")
            log.info("rabbitmq connected", server=str(self._address.url.with_user(None).with_query(None)))
            error = await session.wait_lost()
        except BrokerLost as lost:
            error = lost
        except Exception as unforeseen:  # the edge of one connection
            log.exception("rabbitmq session failed")
            error = BrokerLost(f"the session with RabbitMQ failed: {type(unforeseen).__name__}")
        finally:
            self._session = None
            # Told before closing: a RabbitMQ that is frozen lets that wait.
            if str(error) != self._status.reason:
                log.warning("rabbitmq away", reason=str(error))
            self._stand(False, str(error))
            await session.close(error)

    def _away(self) -> BrokerLost:
        return BrokerLost(f"RabbitMQ is away: {self._status.reason}")

    def _blocked(self, on: bool) -> None:
        text = "RabbitMQ's memory or disk alarm is on: it takes no messages until it has room again" if on else ""
        self._refuse("", text)

    def _refuse(self, what: str, reason: str) -> None:
        if reason == self._refused.get(what, ""):
            return
        self._refused[what] = reason
        if not reason:
            del self._refused[what]
        if self._session is not None:
            self._stand(True, "; ".join(self._refused.values()))

    def _stand(self, connected: bool, reason: str) -> None:
        if (connected, reason) == (self._status.connected, self._status.reason):
            return
        since = self._status.since if connected == self._status.connected else now()
        sessions = self._status.sessions + (connected and not self._status.connected)
        self._status = BrokerStatus(connected=connected, kind="rabbitmq", reason=reason, since=since, sessions=sessions)
        self._changed.set()
        self._changed = trio.Event()

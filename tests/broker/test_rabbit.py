"""RabbitMQ as it really behaves: gone, back, killed, wiped, refusing, full, black-holed; and what others see."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from aiormq import Connection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelPreconditionFailed
from structlog.testing import capture_logs

from blacktree.broker.base import DEAD_QUEUE, EVENT_QUEUE, STATUS_QUEUE, BrokerStatus, Message
from blacktree.broker.rabbit import RabbitBroker
from blacktree.concurrency.island import on_island, open_island
from blacktree.errors import BadRequest, BrokerLost, Conflict
from tests.contracts.broker import QUEUE, bodies, connected, depth_becomes, drain, running, take, ticket
from tests.parts.rabbit import Proxy, RabbitNode, shared_node

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def node() -> RabbitNode:
    node = shared_node()
    node.clear()
    return node


def make(url: str, **changes: Any) -> RabbitBroker:
    settings: dict[str, Any] = {"status_maximum": 5, "event_maximum": 7, "events": False, "farm_id": "f1"} | changes
    return RabbitBroker(url, **settings)


@asynccontextmanager
async def open_broker(url: str, **changes: Any) -> AsyncIterator[RabbitBroker]:
    """Connected, on an island of its own."""
    broker = make(url, **changes)
    with trio.fail_after(100):
        async with open_island(), running(broker):
            yield broker


@asynccontextmanager
async def open_away(url: str, **changes: Any) -> AsyncIterator[RabbitBroker]:
    """Running, connected or not."""
    broker = make(url, **changes)
    with trio.fail_after(100):
        async with open_island(), trio.open_nursery() as nursery:
            await nursery.start(broker.run)
            yield broker
            nursery.cancel_scope.cancel()


async def until(broker: RabbitBroker, wanted: Callable[[BrokerStatus], bool]) -> BrokerStatus:
    with trio.fail_after(40):
        while not wanted(broker.status()):
            await broker.wait_changed()
    return broker.status()


async def as_stranger(url: str, do: Callable[[AbstractChannel], Awaitable[Any]]) -> Any:
    """On a channel of a plain AMQP client that knows nothing of Blacktree."""

    async def run() -> Any:
        async with Connection(url) as connection:
            return await do(await connection.channel())

    return await on_island(run)


async def in_thread(function: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(function)


async def test_a_stranger_sees_the_topology(node: RabbitNode) -> None:
    execute = {
        "x-max-priority": 10,
        "x-dead-letter-exchange": "blacktree.direct",
        "x-dead-letter-routing-key": "worker.dead",
    }
    expected: dict[str, dict[str, Any]] = {
        "execute.queue": execute,
        "execute.queue.arm": execute,
        "execute.dead": {},
        "status.queue": {"x-max-length": 5, "x-overflow": "drop-head"},
        "event.queue": {"x-max-length": 7, "x-overflow": "drop-head"},
    }
    keys = {
        "worker.execute": "execute.queue",
        "worker.execute.arm": "execute.queue.arm",
        "worker.dead": "execute.dead",
        "api.result": "status.queue",
        "api.event": "event.queue",
    }

    async def look(channel: AbstractChannel) -> None:
        await channel.exchange_declare("blacktree.direct", exchange_type="direct", durable=True)
        for name, arguments in expected.items():
            await channel.queue_declare(name, durable=True, arguments=arguments)
        for key, queue in keys.items():
            await channel.basic_publish(key.encode(), exchange="blacktree.direct", routing_key=key, mandatory=True)
            message = await channel.basic_get(queue, no_ack=True)
            while message.body and message.body != key.encode():
                message = await channel.basic_get(queue, no_ack=True)
            assert message.body == key.encode()

    async def differ(channel: AbstractChannel) -> None:
        await channel.queue_declare("execute.queue", durable=True, arguments={"x-max-priority": 9})

    async with open_broker(node.url, events=True) as broker:
        await broker.publish([ticket("a", queue="execute.queue.arm"), Message(queue=EVENT_QUEUE, body=b"{}")])
        await as_stranger(node.url, look)
        with pytest.raises(ChannelPreconditionFailed):
            await as_stranger(node.url, differ)


async def test_messages_are_persistent_and_strangers_may_send(node: RabbitNode) -> None:
    async def get(channel: AbstractChannel) -> Any:
        return await channel.basic_get(STATUS_QUEUE, no_ack=True)

    async def send(channel: AbstractChannel) -> None:
        await channel.basic_publish(b'{"id": "x"}', routing_key=QUEUE)

    async with open_broker(node.url) as broker:
        await broker.publish([Message(queue=STATUS_QUEUE, body=b"{}", message_id="job1")])
        message = await as_stranger(node.url, get)
        assert message.header.properties.delivery_mode == 2
        assert message.header.properties.message_id == "job1"
        await as_stranger(node.url, send)
        async with broker.deliveries(QUEUE, prefetch=1) as deliveries:
            (delivery,) = await take(deliveries, 1)
            assert delivery.body == b'{"id": "x"}'
            await delivery.reject("not ours")
            await depth_becomes(broker, DEAD_QUEUE, 1)


async def test_without_events_there_is_no_event_queue(node: RabbitNode) -> None:
    async with open_broker(node.url) as broker:
        with pytest.raises(BadRequest):
            await broker.publish([Message(queue=EVENT_QUEUE, body=b"{}")])
        with pytest.raises(BadRequest):
            await broker.depth(EVENT_QUEUE)


async def test_restart_in_mid_flight(node: RabbitNode) -> None:
    async with open_broker(node.url) as broker:
        await broker.publish([ticket(name) for name in "abcd"])
        with pytest.raises(BrokerLost):
            async with broker.deliveries(QUEUE, prefetch=2) as deliveries:
                first, second = await take(deliveries, 2)
                await first.ack()
                await in_thread(node.stop_app)
                await take(deliveries, 2)
        status = await until(broker, lambda status: not status.connected)
        assert status.reason
        with pytest.raises(BrokerLost):
            await second.ack()
        with pytest.raises(BrokerLost):
            await broker.publish([ticket("e")])
        assert await broker.depth(QUEUE) is None
        await in_thread(node.start_app)
        await connected(broker)
        await broker.publish([ticket("e")])
        assert sorted(await drain(broker, QUEUE)) == ["b", "c", "d", "e"]


async def test_kill_and_back(node: RabbitNode) -> None:
    confirmed: list[str] = []
    async with open_broker(node.url) as broker, trio.open_nursery() as nursery:

        async def publish() -> None:
            for number in range(100_000):
                try:
                    await broker.publish([ticket(f"k{number}-{each}") for each in range(10)])
                except BrokerLost:
                    return
                confirmed.extend(f"k{number}-{each}" for each in range(10))

        nursery.start_soon(publish)
        with trio.fail_after(40):
            while len(confirmed) < 50:
                await trio.sleep(0.001)
        await in_thread(node.kill)
        await until(broker, lambda status: not status.connected)
        await in_thread(node.start)
        await connected(broker)
        left = await drain(broker, QUEUE)
        assert set(confirmed) <= set(left)


async def test_down_at_start_is_ridden_out(node: RabbitNode) -> None:
    await in_thread(node.stop_app)
    async with open_away(node.url) as broker:
        status = await until(broker, lambda status: "nothing listens" in status.reason)
        assert not status.connected
        assert "start RabbitMQ" in status.reason
        got: list[str] = []

        async def consume() -> None:
            async with broker.deliveries(QUEUE, prefetch=1) as deliveries:
                got.extend(bodies(await take(deliveries, 1)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await in_thread(node.start_app)
            await connected(broker)
            await broker.publish([ticket("x")])
    assert got == ["x"]


async def test_a_wiped_broker_is_furnished_again(node: RabbitNode) -> None:
    async with open_broker(node.url) as broker:
        await broker.publish([ticket("gone", queue="execute.queue.arm")])
        async with trio.open_nursery() as nursery:
            # Watched from before: it may be back by the time the wipe has returned.
            nursery.start_soon(until, broker, lambda status: not status.connected)
            await in_thread(node.wipe)
        await connected(broker)
        assert await broker.depth("execute.queue.arm") == 0
        await broker.publish([ticket("new", queue="execute.queue.arm"), ticket("too")])
        assert await drain(broker, "execute.queue.arm") == ["new"]
        assert await drain(broker, QUEUE) == ["too"]


async def test_an_unroutable_message_finds_its_queue_made_again(node: RabbitNode) -> None:
    async with open_broker(node.url) as broker:
        await in_thread(lambda: node.delete_queue(QUEUE))
        same = [Message(queue=STATUS_QUEUE, body=b"status", message_id="j"), ticket("j"), ticket("k")]
        await broker.publish(same)
        # Returned messages are known by their id alone: of two with one id both are sent again.
        assert set(await drain(broker, QUEUE)) == {"j", "k"}
        assert await broker.depth(STATUS_QUEUE) in (1, 2)


async def test_a_queue_deleted_under_its_consumer(node: RabbitNode) -> None:
    async with open_broker(node.url) as broker:
        with pytest.raises(BrokerLost, match="deleted"):
            async with broker.deliveries(QUEUE, prefetch=1) as deliveries:
                await in_thread(lambda: node.delete_queue(QUEUE))
                await take(deliveries, 1)
        assert broker.status().connected
        await broker.publish([ticket("on")])
        assert await drain(broker, QUEUE) == ["on"]


async def test_an_exchange_deleted_under_us(node: RabbitNode) -> None:
    async with open_broker(node.url) as broker:
        await in_thread(node.clear)
        with pytest.raises(BrokerLost):
            await broker.publish([ticket("a")])
        await until(broker, lambda status: not status.connected)
        await connected(broker)
        await broker.publish([ticket("b")])
        assert await drain(broker, QUEUE) == ["b"]


async def test_a_queue_declared_otherwise_is_told_and_tried_again(node: RabbitNode) -> None:
    async def before(channel: AbstractChannel) -> None:
        await channel.queue_declare(STATUS_QUEUE, durable=True)

    async def before_arm(channel: AbstractChannel) -> None:
        await channel.queue_declare("execute.queue.arm", durable=True)

    async with open_away(node.url) as broker:
        await connected(broker)
        await in_thread(node.clear)
        await as_stranger(node.url, before)
        await as_stranger(node.url, before_arm)
        await in_thread(node.close_connections)
        status = await until(broker, lambda status: "declared before" in status.reason)
        assert not status.connected
        assert "status.queue" in status.reason
        assert "delete" in status.reason
        await in_thread(lambda: node.delete_queue(STATUS_QUEUE))
        await connected(broker)
        with pytest.raises(BrokerLost, match=r"execute\.queue\.arm"):
            async with broker.deliveries("execute.queue.arm", prefetch=1):
                pass
        assert broker.status().connected
        assert "execute.queue.arm" in broker.status().reason
        assert await drain(broker, QUEUE) == []
        await in_thread(lambda: node.delete_queue("execute.queue.arm"))
        async with broker.deliveries("execute.queue.arm", prefetch=1):
            assert broker.status().reason == ""


async def test_wrong_password_is_told_without_it(node: RabbitNode, caplog: pytest.LogCaptureFixture) -> None:
    url = node.url.replace(node.password, "s3cr3t-w0rd")
    with caplog.at_level(logging.DEBUG), capture_logs() as logs:
        async with open_away(url) as broker:
            status = await until(broker, lambda status: "refused the user tree" in status.reason)
            text = f"{status} {broker!r} {vars(broker)} {logs} {caplog.text}"
            with pytest.raises(BrokerLost) as caught:
                await broker.publish([ticket("x")])
    assert "s3cr3t-w0rd" not in text + str(caught.value)
    assert not status.connected


async def test_unknown_virtual_host(node: RabbitNode) -> None:
    async with open_away(node.url + "nowhere") as broker:
        assert "virtual host" in (await until(broker, lambda status: "refused" in status.reason)).reason


@pytest.mark.parametrize("url", ["http://a/", "amqp:///x", "rabbit", "amqp://[::1", "amqp://u:pa55@h:port/"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        make(url)
    assert "pa55" not in str(caught.value)


async def test_a_second_farm_is_refused(node: RabbitNode) -> None:
    async with open_broker(node.url) as first, running(make(node.url, farm_id="f2")) as second:
        async with first.deliveries(QUEUE, prefetch=1):
            with pytest.raises(Conflict) as caught:
                async with second.deliveries(QUEUE, prefetch=1):
                    pass
            assert caught.value.code == "queue_taken"
        async with second.deliveries(QUEUE, prefetch=1):
            pass


async def test_tls_is_verified(node: RabbitNode) -> None:
    async with open_away(node.tls_url) as broker:
        status = await until(broker, lambda status: "certificate" in status.reason)
        assert not status.connected
    async with open_broker(f"{node.tls_url}?cafile={node.authority}") as broker:
        await broker.publish([ticket("safe")])
        assert await drain(broker, QUEUE) == ["safe"]


async def test_an_alarm_is_told_and_deliveries_go_on(node: RabbitNode) -> None:
    async with open_broker(node.url) as broker:
        await broker.publish([ticket("before")])
        await in_thread(lambda: node.block(True))
        try:
            with pytest.raises(BrokerLost):
                while True:
                    await broker.publish([ticket("during")])
            status = await until(broker, lambda status: "alarm" in status.reason)
            assert status.connected
            async with broker.deliveries(QUEUE, prefetch=1) as deliveries:
                (delivery,) = await take(deliveries, 1)
                await delivery.ack()
        finally:
            await in_thread(lambda: node.block(False))
        await until(broker, lambda status: status.reason == "")
        await broker.publish([ticket("after")])
        assert "after" in await drain(broker, QUEUE)


async def test_connections_cut_without_a_word(node: RabbitNode) -> None:
    proxy = Proxy(node.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        async with open_broker(node.url.replace(str(node.port), str(proxy.port))) as broker:
            await broker.publish([ticket("a")])
            proxy.refuse = True
            await proxy.cut()
            await until(broker, lambda status: not status.connected)
            proxy.refuse = False
            await connected(broker)
            assert await drain(broker, QUEUE) == ["a"]
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_black_hole_is_noticed(node: RabbitNode) -> None:
    proxy = Proxy(node.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        url = node.url.replace(str(node.port), str(proxy.port)) + "?heartbeat=3"
        async with open_broker(url) as broker:
            proxy.black_hole = True
            with pytest.raises(BrokerLost):
                await broker.publish([ticket("lost")])
            await until(broker, lambda status: not status.connected)
            proxy.black_hole = False
            await connected(broker)
            await broker.publish([ticket("found")])
            assert await drain(broker, QUEUE) == ["found"]
        nursery.cancel_scope.cancel()


async def test_ending_while_everything_is_under_way(node: RabbitNode) -> None:
    """The worst moment: publishes, acknowledgements and a consumer in flight when `run` is cancelled."""
    acked: list[str] = []
    confirmed: list[str] = []
    async with open_away(node.url) as broker:
        await connected(broker)
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                for number in range(10_000):
                    await broker.publish([ticket(f"{number:05}")])
                    confirmed.append(f"{number:05}")

            async def consume() -> None:
                async with broker.deliveries(QUEUE, prefetch=20) as deliveries:
                    async for delivery in deliveries:
                        await delivery.ack()
                        acked.append(delivery.body.decode())

            nursery.start_soon(publish)
            nursery.start_soon(consume)
            with trio.fail_after(40):
                while len(acked) < 30:
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    async with open_broker(node.url) as broker:
        left = await drain(broker, QUEUE)
    assert set(confirmed) <= set(acked) | set(left)
    assert len(left) == len(set(left))

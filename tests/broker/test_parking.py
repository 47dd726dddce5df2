"""A parked consumer of RabbitMQ: kept for minutes, frozen broker, and a RabbitMQ without limits of a whole channel."""

import os
import signal
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    ConnectionClosed,
    ConnectionInternalError,
    ConnectionNotImplemented,
)
from structlog.testing import capture_logs

from blacktree.broker import session, stream
from blacktree.broker.base import Broker
from blacktree.broker.border import refuses_channel_limit
from blacktree.errors import BrokerLost, Conflict
from tests.broker.test_rabbit import as_stranger, in_thread, make, node, open_broker, until
from tests.contracts.broker import QUEUE, connected, depth_becomes, drain, running, take, ticket
from tests.parts.rabbit import RabbitNode

__all__ = ["node"]
pytestmark = pytest.mark.rabbitmq
MISSING = "rabbitmq does not limit whole channels"


async def peek(url: str) -> tuple[str, bool]:
    """The first message that is ready, and whether it was delivered before; it stays."""

    async def look(channel: AbstractChannel) -> tuple[str, bool]:
        message = await channel.basic_get(QUEUE)
        if message.delivery_tag is None:
            return "", False
        await channel.basic_nack(message.delivery_tag)
        return message.body.decode(), bool(message.redelivered)

    found: tuple[str, bool] = await as_stranger(url, look)
    return found


async def drain_again(broker: Broker) -> list[str]:
    """As the farm does it: the connection that was lost may hold the queue for a while yet."""
    while True:
        try:
            return await drain(broker, QUEUE)
        except (Conflict, BrokerLost):
            await trio.sleep(0.05)


async def test_what_is_kept_while_parked_goes_back_in_time(node: RabbitNode, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_broker(node.url) as broker, broker.deliveries(QUEUE, prefetch=4) as deliveries:
        await deliveries.park()
        await broker.publish([ticket("kept", priority=1)])
        await broker.publish([ticket("high", priority=9)])
        await depth_becomes(broker, QUEUE, 1)
        assert await peek(node.url) == ("high", False)
        monkeypatch.setattr(session, "WATCH_SECONDS", 0.05)
        monkeypatch.setattr(stream, "KEEP_SECONDS", 0.1)
        # Ready again, and in its place behind the other one, which is now the one that is kept.
        with trio.fail_after(40):
            while await peek(node.url) != ("kept", True):
                await trio.sleep(0.05)
        monkeypatch.undo()
        for name in ("high", "kept"):
            (delivery,) = await take(deliveries, 1)
            assert delivery.body == name.encode()
            await delivery.ack()
        await depth_becomes(broker, QUEUE, 0)


async def test_nothing_is_given_back_before_its_time(node: RabbitNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.02)
    async with open_broker(node.url) as broker, broker.deliveries(QUEUE, prefetch=4) as deliveries:
        await deliveries.park()
        await broker.publish([ticket("kept", priority=1)])
        await broker.publish([ticket("high", priority=9)])
        await depth_becomes(broker, QUEUE, 1)
        with trio.move_on_after(0.5):
            while True:
                assert (await peek(node.url))[0] in ("high", "")
                await trio.sleep(0.02)


Qos = Callable[..., Awaitable[Any]]
REAL_QOS: Qos = Channel.basic_qos


async def ignoring(channel: Channel, *, global_: bool = False, **values: Any) -> Any:
    """RabbitMQ 3.12 and later with `global_qos` switched off: it says yes and limits new consumers only."""
    return await REAL_QOS(channel, global_=False, **values)


async def refusing(channel: Channel, *, global_: bool = False, **values: Any) -> Any:
    """The broker's real refusal of something else: NOT_IMPLEMENTED, which closes the connection."""
    return await REAL_QOS(channel, global_=global_, prefetch_size=int(global_), **values)


async def closing(channel: Channel, *, global_: bool = False, **values: Any) -> Any:
    """A refusal that closes the channel alone."""
    if not global_:
        return await REAL_QOS(channel, **values)
    error = ChannelPreconditionFailed("PRECONDITION_FAILED - no limits of a whole channel")
    await channel.close(error)
    raise error


async def park_without_limit(broker: Broker, other: Broker) -> None:
    """The order, the exclusiveness and every message are kept by a consumer that was parked without a limit."""
    names = [f"low{number}" for number in range(6)]
    await broker.publish([ticket(name, priority=1) for name in names])
    async with broker.deliveries(QUEUE, prefetch=4) as deliveries:
        await deliveries.park()
        # One for each of the prefetch, and no more.
        await depth_becomes(broker, QUEUE, 2)
        with pytest.raises(Conflict):
            async with other.deliveries(QUEUE, prefetch=1):
                pass
        await broker.publish([ticket("high", priority=9)])
        seen = []
        for _ in range(7):
            (delivery,) = await take(deliveries, 1)
            seen.append(delivery.body.decode())
            await delivery.ack()
            await deliveries.park()
    # What an acknowledgement lets through may be on its way when the kept ones go back, and is then before them.
    assert seen[0] == "high"
    assert sorted(seen[1:]) == names
    assert await drain(broker, QUEUE) == []


async def test_a_limit_that_is_ignored_is_found_out(node: RabbitNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "basic_qos", ignoring)
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.05)
    with capture_logs() as logs:
        async with open_broker(node.url) as broker, running(make(node.url, farm_id="f2")) as other:
            await broker.publish([ticket(name) for name in "abcd"])
            async with broker.deliveries(QUEUE, prefetch=3) as deliveries:
                await deliveries.park()
                with trio.fail_after(40):
                    while not any(line["event"] == MISSING for line in logs):
                        await trio.sleep(0.02)
                assert broker.status().connected
                for delivery in await take(deliveries, 3):
                    await delivery.ack()
            assert await drain(broker, QUEUE) == ["d"]
            await park_without_limit(broker, other)
    assert sum(line["event"] == MISSING for line in logs) == 1


@pytest.mark.parametrize("refusal", [refusing, closing])
async def test_a_limit_that_is_refused_costs_one_session(
    node: RabbitNode, monkeypatch: pytest.MonkeyPatch, refusal: Qos
) -> None:
    monkeypatch.setattr(Channel, "basic_qos", refusal)
    with capture_logs() as logs:
        async with open_broker(node.url) as broker, running(make(node.url, farm_id="f2")) as other:
            await broker.publish([ticket(name) for name in "ab"])
            with pytest.raises(BrokerLost):
                async with broker.deliveries(QUEUE, prefetch=4) as deliveries:
                    (held,) = await take(deliveries, 1)
                    await deliveries.park()
            with pytest.raises(BrokerLost):
                await held.ack()
            await connected(broker)
            assert await drain_again(broker) == ["a", "b"]
            await park_without_limit(broker, other)
            assert broker.status().connected
    assert sum(line["event"] == MISSING for line in logs) == 1


async def test_a_real_limit_is_not_taken_for_none(node: RabbitNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.01)
    with capture_logs() as logs:
        async with open_broker(node.url) as broker, broker.deliveries(QUEUE, prefetch=50) as deliveries:
            await broker.publish([ticket(str(number)) for number in range(100)])
            for _ in range(10):
                (delivery,) = await take(deliveries, 1)
                await delivery.ack()
                await deliveries.park()
                with trio.fail_after(40):
                    while (await broker.depth(QUEUE) or 0) < 89:
                        await trio.sleep(0.01)
                await broker.publish([ticket("more", priority=0)])
    assert not any(line["event"] == MISSING for line in logs)


class Listening:
    """A `Line` with a limit that holds; `missing` counts how often the stream takes it for none."""

    number = 1
    missing = 0

    async def consume(self, on_message: Callable[[Any], Awaitable[None]], prefetch: int) -> None:
        self.deliver = on_message

    async def hold_back(self) -> bool:
        return True

    async def call(self, function: Callable[[], Awaitable[None]]) -> None:
        await function()

    def not_held_back(self) -> None:
        self.missing += 1

    def start(self, call: Callable[[], Awaitable[None]]) -> None:
        """What is given back needs not be written here."""

    async def arrive(self, tag: int, name: str) -> None:
        header = SimpleNamespace(properties=SimpleNamespace(message_id=name))
        await self.deliver(SimpleNamespace(body=b"{}", delivery_tag=tag, redelivered=True, header=header))


async def test_what_was_on_its_way_may_come_as_late_as_it_likes() -> None:
    line = Listening()
    parked = stream.Stream(QUEUE, line, 50, publish=None)
    await parked.open()
    await parked.park()
    for tag in range(1, 7):
        await line.arrive(tag, f"message {tag}")
        if tag % 2 == 0:
            parked.refresh()
    assert line.missing == 0
    # One of those that were given back may be delivered again, two may not.
    await line.arrive(7, "message 1")
    parked.refresh()
    assert line.missing == 0
    await line.arrive(8, "message 2")
    parked.refresh()
    assert line.missing == 1


def test_which_answers_mean_that_there_is_no_limit() -> None:
    assert refuses_channel_limit(ConnectionNotImplemented("NOT_IMPLEMENTED - queue does not support global qos"))
    assert refuses_channel_limit(ChannelPreconditionFailed("whatever"))
    assert refuses_channel_limit(ConnectionInternalError("INTERNAL_ERROR - Feature `global_qos` is deprecated."))
    assert not refuses_channel_limit(ConnectionInternalError("INTERNAL_ERROR"))
    assert not refuses_channel_limit(ConnectionClosed(320, "CONNECTION_FORCED - broker forced connection closure"))
    assert not refuses_channel_limit(ChannelInvalidStateError("closed"))
    assert not refuses_channel_limit(ConnectionResetError())


async def test_a_frozen_broker_is_told_and_loses_nothing(node: RabbitNode) -> None:
    # RabbitMQ, too, hangs up on who is silent for two of them: this process may stand still for a moment.
    heartbeat = 3
    pid = int((await trio.to_thread.run_sync(node.evaluate, "os:getpid()")).strip('"'))
    async with open_broker(f"{node.url}?heartbeat={heartbeat}") as broker:
        await broker.publish([ticket(name) for name in "abcd"])
        try:
            with pytest.raises(BrokerLost):
                async with broker.deliveries(QUEUE, prefetch=3) as deliveries:
                    first, second = await take(deliveries, 2)
                    await first.ack()
                    await deliveries.park()
                    os.kill(pid, signal.SIGSTOP)
                    frozen = trio.current_time()
                    # Three times (a heartbeat and a second), looked at once a second; longer on a busy machine.
                    with trio.fail_after(40):
                        status = await until(broker, lambda status: not status.connected)
                    assert trio.current_time() - frozen > heartbeat
                    assert status.reason
                    await take(deliveries, 1)
            with pytest.raises(BrokerLost):
                await second.ack()
            with pytest.raises(BrokerLost):
                await broker.publish([ticket("e")])
        finally:
            os.kill(pid, signal.SIGCONT)
        await connected(broker)
        left = await drain_again(broker)
    assert [name for name in left if name != "a"] == ["b", "c", "d"]


async def test_frozen_for_a_moment_is_ridden_out(node: RabbitNode) -> None:
    pid = int((await trio.to_thread.run_sync(node.evaluate, "os:getpid()")).strip('"'))
    async with open_broker(f"{node.url}?heartbeat=5") as broker:
        await broker.publish([ticket(name) for name in "abc"])
        async with broker.deliveries(QUEUE, prefetch=2) as deliveries:
            (first,) = await take(deliveries, 1)
            await deliveries.park()
            os.kill(pid, signal.SIGSTOP)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first.ack)
                    await trio.sleep(1)
                    os.kill(pid, signal.SIGCONT)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert broker.status().connected
            for delivery in await take(deliveries, 2):
                await delivery.ack()
        assert await drain(broker, QUEUE) == []
        await in_thread(node.clear)

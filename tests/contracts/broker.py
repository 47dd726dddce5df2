"""What every broker must keep, as tests over one `House`; `test_broker.py` runs them against each answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from blacktree.broker.base import DEAD_QUEUE, STATUS_QUEUE, Broker, Consumer, Delivery, Message, execute_queue
from blacktree.errors import BadRequest, BrokerLost, Conflict

QUEUE = execute_queue("default")
STATUS_MAXIMUM = 5


class House:
    """A broker that runs, and what a test needs to do to it.

    `lose()` ends its session; `broker` is then the one that lives (the same where it comes back by itself).
    `again()` opens a second broker over the same queues, for what survives. `headers(queue)` reads the headers of
    the first message of a queue without removing it.
    """

    def __init__(
        self,
        broker: Broker,
        lose: Callable[[], Awaitable[None]],
        again: Callable[[], AbstractAsyncContextManager[Broker]],
        headers: Callable[[str], Awaitable[dict[str, str]]],
    ) -> None:
        self.broker = broker
        self.lose = lose
        self.again = again
        self.headers = headers


def ticket(body: str, *, queue: str = QUEUE, priority: int = 5) -> Message:
    return Message(queue=queue, body=body.encode(), message_id=body[:40], priority=priority)


async def connected(broker: Broker) -> None:
    with trio.fail_after(40):
        while not broker.status().connected:
            await broker.wait_changed()


async def take(deliveries: Consumer, count: int) -> list[Delivery]:
    with trio.fail_after(40):
        return [await anext(deliveries) for _ in range(count)]


async def nothing_comes(deliveries: Consumer) -> bool:
    with trio.move_on_after(0.15):
        await anext(deliveries)
        return False
    return True


async def depth_becomes(broker: Broker, queue: str, expected: int) -> None:
    """RabbitMQ counts a moment after the fact."""
    seen = None
    with trio.move_on_after(40):
        while (seen := await broker.depth(queue)) != expected:
            await trio.sleep(0.01)
    assert seen == expected


def bodies(deliveries: list[Delivery]) -> list[str]:
    return [delivery.body.decode() for delivery in deliveries]


async def drain(broker: Broker, queue: str) -> list[str]:
    """Everything that is in the queue now, acknowledged: what comes before a last message of lowest priority."""
    await broker.publish([ticket("<end>", queue=queue, priority=0)])
    found: list[str] = []
    async with broker.deliveries(queue, prefetch=100) as deliveries:
        with trio.fail_after(40):
            while True:
                delivery = await anext(deliveries)
                await delivery.ack()
                if delivery.body == b"<end>":
                    return found
                found.append(delivery.body.decode())


async def test_what_is_published_is_delivered_with_its_id(house: House) -> None:
    await house.broker.publish([ticket("one")])
    async with house.broker.deliveries(QUEUE, prefetch=10) as deliveries:
        (first,) = await take(deliveries, 1)
        assert (first.body, first.message_id) == (b"one", "one")
        await first.ack()
        await depth_becomes(house.broker, QUEUE, 0)
    assert await drain(house.broker, QUEUE) == []


async def test_a_waiting_consumer_is_woken(house: House) -> None:
    async with house.broker.deliveries(QUEUE, prefetch=10) as deliveries, trio.open_nursery() as nursery:
        got: list[Delivery] = []

        async def read() -> None:
            got.extend(await take(deliveries, 1))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await house.broker.publish([ticket("late")])
    assert bodies(got) == ["late"]
    await got[0].ack()


async def test_highest_priority_first_then_oldest(house: House) -> None:
    order = [(0, "a"), (9, "b"), (5, "c"), (9, "d"), (1, "e"), (0, "f")]
    await house.broker.publish([ticket(name, priority=priority) for priority, name in order])
    await depth_becomes(house.broker, QUEUE, 6)
    async with house.broker.deliveries(QUEUE, prefetch=1) as deliveries:
        seen = []
        for _ in order:
            (delivery,) = await take(deliveries, 1)
            seen.append(delivery.body.decode())
            await delivery.ack()
    assert seen == ["b", "d", "c", "e", "a", "f"]


async def test_prefetch_is_respected(house: House) -> None:
    await house.broker.publish([ticket(str(number)) for number in range(5)])
    async with house.broker.deliveries(QUEUE, prefetch=2) as deliveries:
        held = await take(deliveries, 2)
        assert await nothing_comes(deliveries)
        await held[0].ack()
        held += await take(deliveries, 1)
        assert bodies(held) == ["0", "1", "2"]
        assert await nothing_comes(deliveries)
        for delivery in held:
            await delivery.ack()
    assert await drain(house.broker, QUEUE) == ["3", "4"]


async def test_a_requeued_message_comes_again_and_says_so(house: House) -> None:
    await house.broker.publish([ticket("again")])
    async with house.broker.deliveries(QUEUE, prefetch=1) as deliveries:
        (first,) = await take(deliveries, 1)
        assert not first.redelivered
        await first.requeue()
        (second,) = await take(deliveries, 1)
        assert second.body == b"again"
        assert second.redelivered
        await second.ack()
    assert await drain(house.broker, QUEUE) == []


async def test_a_rejected_message_is_a_dead_letter_with_its_reason(house: House) -> None:
    await house.broker.publish([ticket("bad")])
    async with house.broker.deliveries(QUEUE, prefetch=1) as deliveries:
        (bad,) = await take(deliveries, 1)
        await bad.reject("no such thing" + "x" * 2000)
        await depth_becomes(house.broker, DEAD_QUEUE, 1)
    assert (await house.headers(DEAD_QUEUE))["x-blacktree-reason"] == ("no such thing" + "x" * 2000)[:1000]
    async with house.broker.deliveries(DEAD_QUEUE, prefetch=1) as deliveries:
        (dead,) = await take(deliveries, 1)
        assert (dead.body, dead.message_id) == (b"bad", "bad")
        await dead.ack()
    assert await drain(house.broker, QUEUE) == []


async def test_a_dead_letter_may_bear_another_body(house: House) -> None:
    await house.broker.publish([ticket("with a token")])
    async with house.broker.deliveries(QUEUE, prefetch=1) as deliveries:
        (bad,) = await take(deliveries, 1)
        await bad.reject("bad", body=b"without")
        await depth_becomes(house.broker, DEAD_QUEUE, 1)
    async with house.broker.deliveries(DEAD_QUEUE, prefetch=1) as deliveries:
        (dead,) = await take(deliveries, 1)
        assert (dead.body, dead.message_id) == (b"without", "with a token")
        await dead.ack()
    assert await drain(house.broker, QUEUE) == []


async def test_settling_twice_is_a_no_op(house: House) -> None:
    await house.broker.publish([ticket("once"), ticket("twice")])
    async with house.broker.deliveries(QUEUE, prefetch=2) as deliveries:
        once, twice = await take(deliveries, 2)
        await once.ack()
        await once.requeue()
        await once.ack()
        await twice.ack()
        await twice.reject("too late")
    assert await drain(house.broker, QUEUE) == []
    assert await house.broker.depth(DEAD_QUEUE) == 0


async def test_a_new_pool_has_its_queue(house: House) -> None:
    queue = execute_queue("arm")
    assert queue == "execute.queue.arm"
    await house.broker.publish([ticket("far", queue=queue), ticket("near")])
    assert await drain(house.broker, queue) == ["far"]
    assert await drain(house.broker, QUEUE) == ["near"]


async def test_an_unknown_queue_is_refused(house: House) -> None:
    with pytest.raises(BadRequest):
        await house.broker.publish([Message(queue="nobody.knows", body=b"")])
    with pytest.raises(BadRequest):
        async with house.broker.deliveries("execute.queue.", prefetch=1):
            pass


async def test_many_at_once_and_large_ones(house: House) -> None:
    big = "x" * 300_000
    names = [f"m{number}" for number in range(400)]
    async with trio.open_nursery() as nursery:
        for at in range(0, 400, 40):
            nursery.start_soon(house.broker.publish, [ticket(name) for name in names[at : at + 40]])
        nursery.start_soon(house.broker.publish, [ticket(big)])
    async with house.broker.deliveries(QUEUE, prefetch=64) as deliveries:
        seen = []
        async with trio.open_nursery() as nursery:
            for _ in range(401):
                (delivery,) = await take(deliveries, 1)
                seen.append(delivery.body.decode())
                nursery.start_soon(delivery.ack)
    assert sorted(seen) == sorted([*names, big])
    assert await drain(house.broker, QUEUE) == []


async def test_a_second_consumer_is_refused_until_the_first_has_left(house: House) -> None:
    async with house.broker.deliveries(QUEUE, prefetch=1):
        with pytest.raises(Conflict) as caught:
            async with house.broker.deliveries(QUEUE, prefetch=1):
                pass
        assert caught.value.code == "queue_taken"
        assert caught.value.advice
    async with house.broker.deliveries(QUEUE, prefetch=1):
        pass


async def test_the_status_queue_is_bounded_and_drops_the_oldest(house: House) -> None:
    for number in range(STATUS_MAXIMUM + 3):
        await house.broker.publish([ticket(str(number), queue=STATUS_QUEUE, priority=0)])
    await depth_becomes(house.broker, STATUS_QUEUE, STATUS_MAXIMUM)
    async with house.broker.deliveries(STATUS_QUEUE, prefetch=10) as deliveries:
        assert bodies(await take(deliveries, STATUS_MAXIMUM)) == ["3", "4", "5", "6", "7"]


async def test_what_was_fetched_and_not_handed_out_goes_back(house: House) -> None:
    await house.broker.publish([ticket(str(number)) for number in range(4)])
    async with house.broker.deliveries(QUEUE, prefetch=4) as deliveries:
        (first,) = await take(deliveries, 1)
        assert first.body == b"0"
    await depth_becomes(house.broker, QUEUE, 3)
    # Handed out is taken: it may still be settled, and comes to nobody else meanwhile.
    async with house.broker.deliveries(QUEUE, prefetch=10) as deliveries:
        others = await take(deliveries, 3)
        assert await nothing_comes(deliveries)
        await first.requeue()
        others += await take(deliveries, 1)
        assert bodies(others) == ["1", "2", "3", "0"]
        for delivery in others:
            await delivery.ack()
    assert await drain(house.broker, QUEUE) == []


async def test_acknowledged_after_leaving(house: House) -> None:
    await house.broker.publish([ticket(str(number)) for number in range(3)])
    async with house.broker.deliveries(QUEUE, prefetch=3) as deliveries:
        held = await take(deliveries, 2)
    await held[1].ack()
    assert await drain(house.broker, QUEUE) == ["2"]
    await held[0].ack()
    assert await drain(house.broker, QUEUE) == []


async def test_a_delivery_that_nobody_holds_any_more_goes_back(house: House) -> None:
    await house.broker.publish([ticket("forgotten")])
    async with house.broker.deliveries(QUEUE, prefetch=1) as deliveries:
        held = await take(deliveries, 1)
        held.clear()
        (found,) = await take(deliveries, 1)
        assert found.body == b"forgotten"
        await found.ack()
    assert await drain(house.broker, QUEUE) == []


async def test_losing_the_session_delivers_again(house: House) -> None:
    await house.broker.publish([ticket("a"), ticket("b"), ticket("c")])
    with pytest.raises(BrokerLost):
        async with house.broker.deliveries(QUEUE, prefetch=2) as deliveries:
            first, second = await take(deliveries, 2)
            await first.ack()
            await house.lose()
            # One may have been fetched before the end came.
            await take(deliveries, 2)
    await connected(house.broker)
    with pytest.raises(BrokerLost):
        await second.ack()
    async with house.broker.deliveries(QUEUE, prefetch=2) as deliveries:
        left = await take(deliveries, 2)
        assert sorted(bodies(left)) == ["b", "c"]
        assert {delivery.body: delivery.redelivered for delivery in left}[b"b"]
        for delivery in left:
            await delivery.ack()
    assert await drain(house.broker, QUEUE) == []


async def test_messages_outlive_the_broker_object(house: House) -> None:
    await house.broker.publish([ticket("stays"), ticket("goes")])
    async with house.broker.deliveries(QUEUE, prefetch=2) as deliveries:
        stays, goes = await take(deliveries, 2)
        await goes.ack()
    await stays.requeue()
    async with house.again() as other:
        assert await drain(other, QUEUE) == ["stays"]


async def test_cancelling_between_deliveries_loses_nothing(house: House) -> None:
    names = [f"m{number:03}" for number in range(60)]
    await house.broker.publish([ticket(name) for name in names])
    seen: list[str] = []
    for round in range(12):
        with trio.CancelScope() as scope:
            async with house.broker.deliveries(QUEUE, prefetch=1 + round % 7) as deliveries:
                for step in range(5):
                    if step == round % 5:
                        # At the next checkpoint, with more fetched than handed out.
                        scope.cancel()
                    delivery = await anext(deliveries)
                    seen.append(delivery.body.decode())
                    with trio.CancelScope(shield=True):
                        await delivery.ack()
        assert scope.cancelled_caught
    seen += await drain(house.broker, QUEUE)
    assert sorted(seen) == names


async def test_cancelling_a_publish_publishes_each_at_most_once(house: House) -> None:
    for number in range(8):
        with trio.move_on_after(number * 0.001):
            await house.broker.publish([ticket(f"p{number}")])
    await house.broker.publish([ticket("last")])
    found = await drain(house.broker, QUEUE)
    assert "last" in found
    assert len(found) == len(set(found))


async def test_cancelling_an_acknowledgement_settles_or_delivers_again(house: House) -> None:
    await house.broker.publish([ticket(str(number)) for number in range(6)])
    async with house.broker.deliveries(QUEUE, prefetch=10) as deliveries:
        for number, delivery in enumerate(await take(deliveries, 6)):
            with trio.move_on_after(number * 0.0005):
                await delivery.ack()
        del delivery
    left = await drain(house.broker, QUEUE)
    assert len(left) == len(set(left))
    # Whatever was cut off, the consumer is sound.
    await house.broker.publish([ticket("next")])
    assert await drain(house.broker, QUEUE) == ["next"]


async def test_cancelled_while_entering(house: House) -> None:
    for number in range(6):
        with trio.move_on_after(number * 0.001):
            async with house.broker.deliveries(QUEUE, prefetch=1) as deliveries:
                await anext(deliveries)
    await house.broker.publish([ticket("next")])
    with trio.fail_after(40):
        while True:
            try:
                assert await drain(house.broker, QUEUE) == ["next"]
                return
            except (Conflict, BrokerLost):
                await trio.sleep(0.01)


async def test_a_parked_consumer_keeps_nothing_back_from_the_order(house: House) -> None:
    names = [f"low{number}" for number in range(6)]
    await house.broker.publish([ticket(name, priority=1) for name in names])
    async with house.broker.deliveries(QUEUE, prefetch=4) as deliveries:
        (first,) = await take(deliveries, 1)
        await deliveries.park()
        await deliveries.park()
        await first.ack()
        # At most one may be kept.
        with trio.fail_after(40):
            while (await house.broker.depth(QUEUE) or 0) < 4:
                await trio.sleep(0.01)
        with pytest.raises(Conflict):
            async with house.broker.deliveries(QUEUE, prefetch=1):
                pass
        await house.broker.publish([ticket("high", priority=9)])
        seen = []
        for _ in range(6):
            (delivery,) = await take(deliveries, 1)
            seen.append(delivery.body.decode())
            await delivery.ack()
            await deliveries.park()
    assert first.body == b"low0"
    assert seen == ["high", *names[1:]]
    assert await drain(house.broker, QUEUE) == []


async def test_settling_in_any_order(house: House) -> None:
    names = [str(number) for number in range(20)]
    await house.broker.publish([ticket(name) for name in names])
    async with house.broker.deliveries(QUEUE, prefetch=20) as deliveries:
        held = await take(deliveries, 20)
        async with trio.open_nursery() as nursery:
            for at in (3, 1, 0, 7, 19, 2, 4):
                nursery.start_soon(held[at].ack)
            nursery.start_soon(held[5].requeue)
        (again,) = await take(deliveries, 1)
        assert again.body == b"5"
        await again.ack()
        for at in (6, *range(8, 19)):
            await held[at].requeue()
    assert sorted(await drain(house.broker, QUEUE)) == sorted([*map(str, range(8, 19)), "6"])


async def test_status_tells(house: House) -> None:
    status = house.broker.status()
    assert status.connected
    assert status.reason == ""
    assert status.since is not None
    assert await house.broker.depth(QUEUE) == 0


@asynccontextmanager
async def running(broker: Broker) -> AsyncIterator[Broker]:
    """The broker, connected; ended when left."""
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        await connected(broker)
        yield broker
        nursery.cancel_scope.cancel()

"""What only the embedded broker has: a store under it that can fail, and rows of an earlier life."""

from collections.abc import Collection, Sequence

import pytest
import trio

from blacktree.broker.embedded import EmbeddedBroker
from blacktree.errors import BrokerLost, StorageFailed
from blacktree.storage.base import QueueItem
from blacktree.storage.memory import MemoryStore
from tests.contracts.broker import QUEUE, connected, drain, running, take, ticket


class FailingStore(MemoryStore):
    """A real store whose disk is full on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False

    def _check(self) -> None:
        if self.full:
            raise StorageFailed("no space left", advice="free some")

    async def queue_put(self, queue: str, items: Sequence[QueueItem], *, maximum: int | None = None) -> list[int]:
        self._check()
        return await super().queue_put(queue, items, maximum=maximum)

    async def queue_take(self, queue: str, limit: int, held: Collection[int]) -> list[QueueItem]:
        self._check()
        return await super().queue_take(queue, limit, held)

    async def queue_delete(self, ids: Sequence[int]) -> None:
        self._check()
        await super().queue_delete(ids)

    async def queue_return(self, ids: Sequence[int]) -> None:
        self._check()
        await super().queue_return(ids)


async def test_a_failing_store_is_told_and_ridden_out() -> None:
    store = FailingStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        async with running(EmbeddedBroker(store, status_maximum=5, event_maximum=5)) as broker:
            await broker.publish([ticket("a")])
            async with broker.deliveries(QUEUE, prefetch=1) as deliveries:
                (delivery,) = await take(deliveries, 1)
                store.full = True
                with pytest.raises(BrokerLost) as caught:
                    await delivery.ack()
                assert caught.value.advice == "free some"
                assert not broker.status().connected
                assert "no space left" in broker.status().reason
                with pytest.raises(BrokerLost):
                    await take(deliveries, 1)
            with pytest.raises(BrokerLost):
                await broker.publish([ticket("b")])
            assert await broker.depth(QUEUE) == 1
            store.full = False
            await connected(broker)
            assert await drain(broker, QUEUE) == ["a"]
        nursery.cancel_scope.cancel()


async def test_rows_of_an_earlier_life_say_so() -> None:
    store = MemoryStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        async with running(EmbeddedBroker(store, status_maximum=5, event_maximum=5)) as broker:
            await broker.publish([ticket("old")])
        async with running(EmbeddedBroker(store, status_maximum=5, event_maximum=5)) as broker:
            await broker.publish([ticket("new")])
            async with broker.deliveries(QUEUE, prefetch=2) as deliveries:
                found = {delivery.body: delivery.redelivered for delivery in await take(deliveries, 2)}
        nursery.cancel_scope.cancel()
    assert found == {b"old": True, b"new": False}


async def test_after_the_end_nothing_can_be_settled() -> None:
    store = MemoryStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        async with running(EmbeddedBroker(store, status_maximum=5, event_maximum=5)) as broker:
            await broker.publish([ticket("a")])
            async with broker.deliveries(QUEUE, prefetch=2) as deliveries:
                (delivery,) = await take(deliveries, 1)
        for settle in (delivery.ack, delivery.requeue):
            with pytest.raises(BrokerLost):
                await settle()
            break
        with pytest.raises(BrokerLost):
            await broker.publish([ticket("b")])
        assert await store.queue_depth(QUEUE) == 1
        nursery.cancel_scope.cancel()

"""Every broker keeps the promises of `broker/base.py`: the suite against each of them."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from aiormq import Connection
from aiormq.abc import AbstractChannel

from blacktree.broker.base import DEAD_QUEUE, STATUS_QUEUE, Broker
from blacktree.broker.embedded import EmbeddedBroker
from blacktree.broker.rabbit import RabbitBroker
from blacktree.concurrency.island import on_island, open_island
from blacktree.storage import open_store
from blacktree.storage.base import Store
from tests.contracts import broker as suite
from tests.parts.rabbit import RabbitNode, shared_node

PROMISES = {name: test for name, test in inspect.getmembers(suite, inspect.iscoroutinefunction) if name[:5] == "test_"}
Test = Callable[[suite.House], Awaitable[None]]


@pytest.fixture(scope="module")
def node() -> RabbitNode:
    return shared_node()


@asynccontextmanager
async def embedded_house(store: Store) -> AsyncIterator[suite.House]:
    def make() -> Broker:
        return EmbeddedBroker(store, status_maximum=suite.STATUS_MAXIMUM, event_maximum=5)

    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        scope = trio.CancelScope()

        async def run(broker: Broker, *, task_status: trio.TaskStatus[None]) -> None:
            nonlocal scope
            with trio.CancelScope() as scope:
                await broker.run(task_status=task_status)

        async def lose() -> None:
            """A crash of this object: another one over the same table."""
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            house.broker = make()
            await nursery.start(run, house.broker)

        async def headers(queue: str) -> dict[str, str]:
            return (await store.queue_take(queue, 1, ()))[0].headers

        def again() -> AbstractAsyncContextManager[Broker]:
            return suite.running(make())

        house = suite.House(make(), lose, again, headers)
        await nursery.start(run, house.broker)
        yield house
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def rabbit_house(node: RabbitNode) -> AsyncIterator[suite.House]:
    def make() -> Broker:
        return RabbitBroker(
            node.url, status_maximum=suite.STATUS_MAXIMUM, event_maximum=5, events=False, farm_id="contract"
        )

    async def lose() -> None:
        await trio.to_thread.run_sync(node.close_connections)

    async def headers(queue: str) -> dict[str, str]:
        async def get() -> dict[str, str]:
            async with Connection(node.url) as connection:
                channel: AbstractChannel = await connection.channel()
                message = await channel.basic_get(queue)
                await channel.basic_nack(message.delivery_tag or 0)
                return {name: str(value) for name, value in (message.header.properties.headers or {}).items()}

        return await on_island(get)

    def again() -> AbstractAsyncContextManager[Broker]:
        return suite.running(make())

    await trio.to_thread.run_sync(node.clear)
    async with open_island(), suite.running(make()) as broker:
        yield suite.House(broker, lose, again, headers)


@pytest.mark.parametrize("promise", sorted(PROMISES))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_embedded(kind: str, promise: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path) if kind == "sqlite" else None)
    with trio.fail_after(100):
        async with embedded_house(store) as house:
            await PROMISES[promise](house)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("promise", sorted(PROMISES))
async def test_rabbitmq(promise: str, node: RabbitNode) -> None:
    with trio.fail_after(100):
        async with rabbit_house(node) as house:
            await PROMISES[promise](house)


def test_the_suite_is_not_empty() -> None:
    assert len(PROMISES) > 20
    assert DEAD_QUEUE != STATUS_QUEUE

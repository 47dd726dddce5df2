"""kill -9 of the orchestrator at every stage of a rollout: it goes on from the record, and nothing is said twice."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from blacktree.client import Client
from blacktree.client.deployments import deploy, deployment, events, stop
from blacktree.concurrency.island import open_island
from blacktree.errors import BlacktreeError
from tests.parts.farm import SLOW, Farm, open_farm
from tests.parts.toy_replicas import ToyReplicas

pytestmark = pytest.mark.timeout(120)

# When the trap is set: before the new version is asked for, once it is ordered, once it serves.
# Every place on the way to the new one, and those where the switch could be half done before and after it.
DEATHS = [
    *((1, place) for place in ("before-change-deployment", "after-change-deployment", "before-tell-deployment")),
    *((1, place) for place in ("after-tell-deployment", "before-order-replicas", "after-order-replicas")),
    *((1, place) for place in ("before-hear-replicas", "after-hear-replicas")),
    *((0, place) for place in ("before-change-deployment", "after-change-deployment")),
    *((2, place) for place in ("after-change-deployment", "before-tell-deployment", "after-hear-replicas")),
]


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with open_farm(orchestrator={"lease_seconds": 20}) as farm:
        yield farm


@asynccontextmanager
async def a_worker(farm: Farm, name: str) -> AsyncIterator[ToyReplicas]:
    token = (farm.state / "join-token").read_text().strip()
    async with open_island(), trio.open_nursery() as nursery:
        worker = ToyReplicas(name, pool=name)
        await nursery.start(partial(worker.run, f"127.0.0.1:{farm.grpc}", token, farm.home))
        yield worker
        nursery.cancel_scope.cancel()


def wanted(name: str, image: str) -> dict[str, Any]:
    run = {"name": name, "strategy": {"drain_seconds": 0.3}}
    return {"image": f"registry.example/{image}", "pool": name, "run": run}


async def until(client: Client, name: str, fits: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with trio.move_on_after(SLOW):
        while True:
            try:
                found = await deployment(client, name)
            except BlacktreeError:
                await trio.sleep(0.05)
                continue
            if fits(found):
                return found
            await trio.sleep(0.03)
    raise AssertionError(found)


def arm_when(worker: ToyReplicas, moment: int, arm: Callable[[], None]) -> None:
    """Before the order is answered: nothing of what follows it can have happened yet."""
    order = worker.order(2)
    if order is not None and (moment == 1 or order.serve):
        worker.on_orders = lambda: None
        arm()


@pytest.mark.parametrize(("moment", "place"), DEATHS, ids=lambda value: str(value))
async def test_a_rollout_survives(farm: Farm, moment: int, place: str) -> None:
    name = f"{moment}-{place}"[:30]
    await farm.up(farm.orchestrator)
    async with a_worker(farm, name) as worker, farm.client() as client:
        await deploy(client, wanted(name, "one"))
        await until(client, name, lambda found: found["serving"] == 1)
        worker.history.clear()
        if moment == 0:
            farm.arm(place)
        async with trio.open_nursery() as nursery:

            async def submit() -> None:
                # An image is not asked for twice by itself; whoever asks looks first.
                while len((await until(client, name, lambda found: True))["versions"]) < 2:
                    try:
                        await deploy(client, wanted(name, "two"))
                    except BlacktreeError:
                        await trio.sleep(0.1)

            if moment:
                worker.on_orders = partial(arm_when, worker, moment, lambda: farm.arm(place))
            nursery.start_soon(submit)
            assert await farm.orchestrator.ended() == -signal.SIGKILL
            farm.orchestrator.start()
        await until(client, name, lambda found: found["serving"] == 2 and found["versions"][0]["state"] == "stopped")
        # One version at a time, and never none.
        assert all(len(served) == 1 for served in worker.history), worker.history
        assert [each.name.version for each in worker.orders_given.orders] == [2]
        with trio.fail_after(SLOW):
            while True:
                page = await events(client, name)
                moves = [(each["attempt"], each["to"]) for each in page["events"] if each["type"] == "state"]
                if (1, "stopped") in moves:
                    break
                await trio.sleep(0.05)
        assert [each["seq"] for each in page["events"]] == list(range(1, len(page["events"]) + 1))
        assert len(moves) == len(set(moves))
        assert moves.index((2, "running")) < moves.index((1, "stopped"))
        await stop(client, name)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_output_is_neither_lost_nor_doubled(farm: Farm, when: str) -> None:
    name = f"print-{when}"
    await farm.up(farm.orchestrator)
    async with a_worker(farm, name) as worker, farm.client() as client:
        await deploy(client, wanted(name, "one"))
        await until(client, name, lambda found: found["serving"] == 1)
        order = worker.order(1)
        assert order is not None
        farm.arm(f"{when}-take-output")
        worker.say(order.name, order.generation, "one", "two")
        assert await farm.orchestrator.ended() == -signal.SIGKILL
        worker.say(order.name, order.generation, "three")
        farm.orchestrator.start()
        with trio.fail_after(SLOW):
            lines: list[str] = []
            while "three" not in lines:
                try:
                    page = await events(client, name)
                except BlacktreeError:
                    continue
                lines = [each["line"] for each in page["events"] if each["type"] == "log"]
                await trio.sleep(0.03)
        assert lines == ["one", "two", "three"]
        await stop(client, name)

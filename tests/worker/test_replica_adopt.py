"""What a worker makes of what its predecessor left, on a scripted engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from blacktree.providers.containers import ContainerRequest
from blacktree.providers.scripted_containers import ScriptedContainers
from blacktree.worker import replicas as module
from blacktree.worker.bell import Bell
from blacktree.worker.front import Traffic
from blacktree.worker.replica import GENERATION, NUMBER, REPLICA, RUN, Surroundings
from blacktree.worker.replica_secrets import SecretFiles
from blacktree.worker.replica_store import ReplicaStore
from blacktree.worker.replicas import Replicas
from blacktree.worker.volumes import mount_of
from tests.parts.replicas import a_run, an_order, named, orders


class House:
    def __init__(self, nursery: trio.Nursery, state: Path) -> None:
        self.containers = ScriptedContainers(nursery)
        self.store = ReplicaStore(state)
        around = Surroundings(
            containers=self.containers,
            traffic=Traffic(),
            secrets=SecretFiles(state, {}),
            mount=lambda volume: mount_of(volume, (), ""),
            farm=lambda: "farm",
        )
        self.replicas = Replicas("w1", self.containers, self.store, around, Bell(), around.traffic)

    async def leave(self, **labels: str) -> str:
        """A container that runs, with the labels of the first replica but for these."""
        whole = {REPLICA: repr(named()), GENERATION: "1", RUN: "mark", NUMBER: "1"} | labels
        made = await self.containers.create(ContainerRequest(name="left", image="app:1", labels=whole))
        await self.containers.start(made)
        return made


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            yield House(nursery, tmp_path)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", ["3", "", "x", "-1", "0", "9" * 20, "9" * 5000])
async def test_a_damaged_number_makes_a_stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    async with house(tmp_path) as here, trio.open_nursery() as nursery:
        left = await here.leave(**{NUMBER: number})
        with capture_logs() as logs:
            await nursery.start(here.replicas.run)
            await here.replicas.apply(orders(an_order("app:1", a_run())))
            while [each.state for each in here.replicas.states()] != ["healthy"]:
                await trio.sleep(0.01)
            [state] = here.replicas.states()
            if number == "3":
                assert (state.container, state.restarts) == (left, 2)
            else:
                assert state.container != left
                while await here.containers.inspect(left) is not None:
                    await trio.sleep(0.01)
                assert [each["log_level"] for each in logs if "label is damaged" in each["event"]] == ["warning"]
        nursery.cancel_scope.cancel()

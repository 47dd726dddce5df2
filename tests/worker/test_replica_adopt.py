"""What a worker makes of what its predecessor left, on a scripted engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from blacktree.errors import EngineLost
from blacktree.providers.containers import Container, ContainerRequest, LogEntry, LogPosition
from blacktree.providers.scripted_containers import ScriptedContainers
from blacktree.worker import replica_left as module
from blacktree.worker.bell import Bell
from blacktree.worker.front import Traffic
from blacktree.worker.replica_labels import GENERATION, NUMBER, REPLICA, RUN
from blacktree.worker.replica_logs import LogBook
from blacktree.worker.replica_secrets import SecretFiles
from blacktree.worker.replica_store import ReplicaStore
from blacktree.worker.replicas import Replicas
from blacktree.worker.surroundings import Surroundings
from blacktree.worker.volumes import mount_of
from tests.parts.replicas import ReplicaPart, a_run, an_order, named, orders
from tests.worker.test_daemon import a_worker

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


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
    with trio.fail_after(40):
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


async def test_output_of_what_is_not_ordered_any_more_is_sent_and_swept(tmp_path: Path) -> None:
    part, logs = ReplicaPart(), tmp_path / "state/replicas/logs"
    store = ReplicaStore(tmp_path / "state")
    for generation, version in ((1, 1), (2, 1), (1, 2)):
        book = LogBook(named(version), generation, store.book(named(version), generation))
        book.begin("gone", 1)
        book.feed([LogEntry("stdout", NOON, b"line %d\n" % generation, LogPosition("1", 1))])
        for piece in await book.take(1 << 20):
            if version == 2:
                await book.stored(piece.number + 1)  # all of it was sent
    (logs / "shop.1.x.1").mkdir()
    part.takes_logs = False
    async with a_worker(tmp_path, part) as (side, _):
        await part.until(lambda: len(part.logs) == 2)
        assert sorted(path.name for path in logs.iterdir()) == ["shop.1.0.1", "shop.1.0.2"]
        # One of them is ordered again: it goes on with its numbers.
        await side.apply_replicas(
            orders(an_order("app:1", a_run(command=["print", "new", "sleep", "600"]), generation=2))
        )
        await part.state(named(), "healthy", generation=2)
        assert part.states.keys() == {named()}
        part.takes_logs = True
        await part.until(lambda: (part.text(named(), 1), part.text(named(), 2)) == ("line 1\n", "line 2\nnew\n"))
        await part.until(lambda: [path.name for path in logs.iterdir()] == ["shop.1.0.2"])
        await side.apply_replicas(orders())
        await part.gone()


async def test_an_engine_that_stays_away_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADOPT_AGAIN_SECONDS", 0.0)
    answers = ["away", "away", "away", "busy", "busy"]

    async def listed() -> list[Container]:
        if answers:
            raise EngineLost(answers.pop(0))
        return []

    async with house(tmp_path) as each:
        monkeypatch.setattr(each.containers, "listed", listed)
        with capture_logs() as logs:
            assert await module.find_left(each.containers) == ([], {})
    assert [entry["reason"] for entry in logs] == ["away", "busy"]

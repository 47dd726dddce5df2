"""The scaler in a whole orchestrator, with a provider whose workers are toys."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from blacktree.clock import now
from blacktree.config import ScaledPool, ScalingConfig
from blacktree.errors import EngineLost, StorageFailed
from blacktree.job import Attempt, Job, JobState
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.deployments import Deployments
from blacktree.orchestrator.keeper import Keeper
from blacktree.orchestrator.waits import Waits
from blacktree.spec import JobSpec
from blacktree.storage.base import Revise
from blacktree.storage.memory import MemoryStore
from blacktree.storage.sqlite import SqliteStore
from tests.orchestrator.conftest import SHORT_LEASE, TOKEN, House, open_house
from tests.parts.toy_provider import ToyProvider
from tests.storage.test_sqlite import opened

QUICK: dict[str, Any] = {
    "provider": "toys",
    "slots": 1,
    "wait_seconds": 0.05,
    "idle_seconds": 0.1,
    "up_cooldown_seconds": 0.05,
    "down_cooldown_seconds": 0.1,
    "start_seconds": 40.0,
}
SLOW = 40.0


@asynccontextmanager
async def open_scaled(
    directory: Path, toys: ToyProvider | None = None, *, pools: Any = None, lease_seconds: float = 30.0, **rules: Any
) -> AsyncIterator[tuple[House, ToyProvider]]:
    """A scaled house. Where a test counts workers it says `maximum=1`: while a job is handed off, its slot is taken and
    it is queued still, so a further worker may well be started for it."""
    toys = toys or ToyProvider(directory, TOKEN)
    scaling = ScalingConfig(
        interval_seconds=0.05,
        retry_first_seconds=0.2,
        retry_limit_seconds=0.4,
        pools={"default": ScaledPool(**(QUICK | rules))} if pools is None else pools,
    )
    options: dict[str, Any] = {"scaling": scaling, "open_worker_provider": toys.open, "lease_seconds": lease_seconds}
    async with open_house(directory, **options) as house:
        house.nursery.start_soon(toys.launch)
        yield house, toys


async def until(house: House, fits: Callable[[], Any]) -> None:
    with trio.fail_after(SLOW):
        while not fits():
            await trio.sleep(0.01)


async def until_told(house: House, type: str) -> list[str]:
    """What the farm has told, once this is among it."""
    with trio.fail_after(SLOW):
        while type not in (events := await told(house)):
            await trio.sleep(0.01)
    return events


async def told(house: House) -> list[str]:
    return [event.type for event in await house.control.farm_events(1, 1000)]


async def test_from_zero_and_back(tmp_path: Path) -> None:
    toys = ToyProvider(tmp_path, TOKEN)
    toys.doors = trio.Event()
    async with open_scaled(tmp_path, toys, maximum=1) as (house, _):
        job_id = await house.submit()
        waiting = (await house.control.job(job_id)).waiting
        assert waiting is not None
        assert waiting.startswith("no worker in pool `default`: a worker is being started")
        toys.doors.set()
        await until(house, lambda: toys.toys)
        (toy,) = toys.toys.values()
        assert toy.id.startswith("auto-default-")
        await toy.end(await toy.next_assignment())
        await house.finished(job_id)
        await until(house, lambda: toys.stops)
        await until(house, lambda: not house.control.workers())
        assert toys.stops == [toy.id]
        order = ["scaling_up", "worker_joined", "scaling_down", "worker_drained", "scaling_removed"]
        events = await until_told(house, "scaling_removed")
        assert [each for each in events if each in order] == order
        await until(house, lambda: house.control.figures()["scaling_workers{pool}"] == {"default": 0})
        assert house.control.figures()["scaling_started_total{pool}"] == {"default": 1}


async def test_never_more_than_the_maximum(tmp_path: Path) -> None:
    toys = ToyProvider(tmp_path, TOKEN)
    toys.automatic = True
    async with open_scaled(tmp_path, toys, maximum=3, idle_seconds=0.02) as (house, _):
        jobs = [await house.submit() for _ in range(40)]
        for job_id in jobs:
            assert (await house.finished(job_id)).state == "succeeded"
        await until(house, lambda: not toys.toys)
    assert 1 <= toys.most <= 3


async def test_a_queue_that_is_longer_than_what_is_known_of_it_has_an_oldest_job(nursery: trio.Nursery) -> None:
    """Once the known ones are through: else the pool would not grow, however long the others wait."""
    store, since = MemoryStore(), now() - timedelta(seconds=600)
    await nursery.start(store.run)
    for id in ("a", "b"):
        spec = JobSpec(repository="https://x/y")
        await store.create(Job(id=id, state=JobState.QUEUED, spec=spec, created_at=since, queued_at=since), [], [])
    workers: Any = SimpleNamespace(views=list)
    keeper = Keeper(
        "default", ScaledPool(**QUICK), ScalingConfig(), store, workers, Waits(["default"]), Chronicle(store)
    )
    found = await keeper._situation(0.0)
    assert found.queued == 2
    assert found.oldest_seconds >= 600


async def test_the_minimum_is_there_without_a_job_and_is_replaced(tmp_path: Path) -> None:
    async with open_scaled(tmp_path, minimum=2) as (house, toys):
        await until(house, lambda: len(house.control.workers()) == 2)
        victim = next(iter(toys.toys))
        toys.die(victim, "exit code 1")
        await until(house, lambda: victim in toys.stops)
        await until(house, lambda: len(toys.toys) == 2)
        assert victim not in toys.toys


async def test_a_worker_that_builds_is_not_ended(tmp_path: Path) -> None:
    """A drained one that got a job in the last moment keeps it, whatever the scaler would like."""
    async with open_scaled(tmp_path, maximum=1) as (house, toys):
        job_id = await house.submit()
        await until(house, lambda: toys.toys)
        (toy,) = toys.toys.values()
        assignment = await toy.next_assignment()
        await house.control.drain(toy.id, True)
        await trio.sleep(0.5)
        assert toys.stops == []
        await toy.end(assignment)
        assert (await house.finished(job_id)).attempt == 1
        await until(house, lambda: toys.stops)


async def test_a_failing_provider_is_told_backed_off_and_forgiven(tmp_path: Path) -> None:
    toys = ToyProvider(tmp_path, TOKEN)
    toys.fail = EngineLost("no engine answers at /nowhere", advice="start it")
    async with open_scaled(tmp_path, toys, maximum=1) as (house, _):
        job_id = await house.submit()
        await until(house, lambda: len(toys.starts) >= 2)
        readiness = house.control.readiness()
        assert readiness.state == "degraded"
        assert readiness.reasons == ["scaling of pool default: no engine answers at /nowhere; start it"]
        with trio.fail_after(SLOW):
            # In the moment of a try it says that one is being started.
            while "no worker could be started, again in 0 s: no engine answers" not in str(
                (await house.control.job(job_id)).waiting
            ):
                await trio.sleep(0.01)
        await until(house, lambda: len(toys.starts) >= 5)
        # Pauses of 0.16 s and more, not one try a round.
        assert all(later - earlier > 0.15 for earlier, later in pairwise(toys.started_at))
        toys.fail = None
        toys.automatic = True
        await house.finished(job_id)
        await until(house, lambda: house.control.readiness().state == "ready")
        # Told once, not once a try.
        assert (await told(house)).count("scaling_failed") == 1


async def test_what_ends_before_it_joins_is_a_failure_too(tmp_path: Path) -> None:
    toys = ToyProvider(tmp_path, TOKEN)
    toys.mute = True
    async with open_scaled(tmp_path, toys, maximum=1) as (house, _):
        await house.submit()
        await until(house, lambda: toys.toys)
        toys.die(next(iter(toys.toys)), "exit code 2")
        await until(house, lambda: house.control.readiness().reasons)
        (reason,) = house.control.readiness().reasons
        assert "was of no use: it has ended (exit code 2)" in reason


async def test_one_that_never_joins_is_replaced(tmp_path: Path) -> None:
    toys = ToyProvider(tmp_path, TOKEN)
    toys.mute = True
    async with open_scaled(tmp_path, toys, maximum=1, start_seconds=2.0) as (house, _):
        job_id = await house.submit()
        await until(house, lambda: toys.stops)
        toys.mute, toys.automatic = False, True
        await house.finished(job_id)
    assert toys.most == 1


@pytest.mark.parametrize("trouble", [EngineLost("gone"), OSError(24, "Too many open files")])
async def test_a_provider_that_cannot_list_gets_nothing_else_to_do(tmp_path: Path, trouble: Exception) -> None:
    toys = ToyProvider(tmp_path, TOKEN)
    toys.broken = trouble
    async with open_scaled(tmp_path, toys) as (house, _):
        job_id = await house.submit()
        await until(house, lambda: house.control.readiness().state == "degraded")
        assert toys.starts == []
        toys.broken, toys.automatic = None, True
        await house.finished(job_id)
        await until_told(house, "scaling_recovered")


@pytest.mark.parametrize("configured", [True, False])
async def test_a_restart_finds_what_an_earlier_start_began(tmp_path: Path, configured: bool) -> None:
    """Kept where the pool is still scaled; ended where it is not any more (here it never comes back to say more)."""
    toys = ToyProvider(tmp_path, TOKEN)
    toys.mute = True
    rules: dict[str, Any] = {"minimum": 1, "maximum": 1, "start_seconds": 40.0 if configured else 8.0}
    async with open_scaled(tmp_path, toys, **rules) as (house, _):
        await until(house, lambda: toys.toys)
        first = list(toys.toys)
    assert toys.left
    pools = None if configured else {}
    async with open_scaled(tmp_path, toys, pools=pools, **rules) as (house, _):
        if configured:
            await until(house, lambda: house.control.figures()["scaling_workers{pool}"] == {"default": 1})
            assert (list(toys.toys), toys.stops) == (first, [])
        else:
            await until(house, lambda: toys.stops == first)
        await until_told(house, "scaling_found")
    assert len(toys.starts) == 1


async def test_a_full_disk_at_a_retired_pools_end_is_not_the_farms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = msgspec.json.encode({"pool": "old", "rules": ScaledPool(**QUICK)})
    async with opened(tmp_path / "state") as store:
        await store.revise("scaled-pool", "old/toys", lambda _: body)
    real, refused = SqliteStore.revise, trio.Event()

    async def revise(self: SqliteStore, kind: str, name: str, decide: Revise) -> bytes | None:
        if (kind, name) == ("scaled-pool", "old/toys"):
            refused.set()
            raise StorageFailed("as the test wants", code="disk_full")
        return await real(self, kind, name, decide)

    monkeypatch.setattr(SqliteStore, "revise", revise)
    async with open_scaled(tmp_path, pools={}) as (house, _):
        with trio.fail_after(SLOW):
            await refused.wait()
            worker = await house.worker(automatic=True)
            assert (await house.finished(await house.submit())).worker_id == worker.id


async def test_a_killed_worker_of_a_running_build_leaves_no_job_behind(tmp_path: Path) -> None:
    """Its remains go at once, but its lease is waited for: the job is lost in order and built elsewhere."""
    async with open_scaled(tmp_path, **SHORT_LEASE, maximum=1) as (house, toys):
        job_id = await house.submit()
        await until(house, lambda: toys.toys)
        (toy,) = toys.toys.values()
        await toy.next_assignment()
        toys.automatic = True
        toys.die(toy.id)
        await until(house, lambda: toys.stops)
        assert (await house.finished(job_id)).attempt == 2


async def test_a_worker_that_went_while_the_farm_was_down_leaves_no_job_behind(tmp_path: Path) -> None:
    gone, time = "auto-default-0badcafe", now()
    attempt = Attempt(attempt=1, worker_id=gone, assigned_at=time, started_at=time, token="t", incarnation="i")
    job = Job(
        id="j",
        state=JobState.RUNNING,
        spec=JobSpec(repository="https://x/y"),
        created_at=time,
        queued_at=time,
        attempt=1,
        attempts=[attempt],
        worker_id=gone,
    )
    async with opened(tmp_path / "state") as store:
        await store.create(job, [], [])
        await store.setting(f"worker/{gone}", "what is kept of it")
    async with open_scaled(tmp_path, **SHORT_LEASE, maximum=1) as (house, toys):
        await until(house, lambda: toys.toys)
        (toy,) = toys.toys.values()
        with trio.fail_after(SLOW):
            await toy.end(await toy.next_assignment())
            done = await house.finished("j")
        assert (done.state, done.attempt, done.tries) == ("succeeded", 2, 1)


async def test_what_a_deployment_runs_on_is_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = True
    toys = ToyProvider(tmp_path, TOKEN)
    monkeypatch.setattr(Deployments, "placed", lambda self: set(toys.toys) if held else set())
    toys.automatic = True
    async with open_scaled(tmp_path, toys, maximum=1) as (house, _):
        job_id = await house.submit()
        await house.finished(job_id)
        await trio.sleep(0.6)
        assert toys.stops == []
        held = False
        await until(house, lambda: toys.stops)

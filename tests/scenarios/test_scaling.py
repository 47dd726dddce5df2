"""Pools that grow and shrink, with real processes: a farm as an operator runs it, killed where it hurts."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.providers.scaling import kin
from tests.parts.farm import SHORT_LEASE, SLOW, Farm, a_spec, open_farm, submit, until_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

POOL: dict[str, Any] = {
    "maximum": 2,
    "slots": 1,
    "wait_seconds": 0.2,
    "idle_seconds": 0.5,
    "up_cooldown_seconds": 0.2,
    "down_cooldown_seconds": 0.5,
    "options": {
        "environment": {
            "BLACKTREE_WORKER_PROVIDER": "scripted",
            "BLACKTREE_WORKER_STEPS": "build",
            "BLACKTREE_WORKER_MINIMUM_FREE_DISK_BYTES": "0",
            "BLACKTREE_WORKER_SHUTDOWN_GRACE_SECONDS": "1",
        }
    },
}


@contextmanager
def open_scaled(**orchestrator: Any) -> Iterator[Farm]:
    """A farm whose default pool is scaled; no process of it outlives the test."""
    with open_farm(orchestrator=SHORT_LEASE | orchestrator) as farm:
        farm.environ |= {
            "BLACKTREE_SCALING_POOLS": json.dumps({"default": POOL}),
            "BLACKTREE_SCALING_INTERVAL_SECONDS": "0.2",
        }
        try:
            yield farm
        finally:
            farm.close()
            for pid in workers(farm).values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def farm() -> Iterator[Farm]:
    with open_scaled() as farm:
        yield farm


def workers(farm: Farm) -> dict[str, int]:
    return kin.find(str(farm.state), "default")


async def until(farm: Farm, fits: Callable[[], Any]) -> None:
    try:
        with trio.fail_after(SLOW):
            while not fits():
                await trio.sleep(0.05)
    except trio.TooSlowError:
        raise AssertionError(f"{workers(farm)}\n{farm.said()}") from None


async def test_from_zero_to_two_and_back_to_zero(farm: Farm) -> None:
    await farm.up()
    assert workers(farm) == {}
    async with farm.client() as client:
        jobs = [await submit(client, a_spec({"step": "1", "seconds": 1.0}), str(number)) for number in range(4)]
        before, waiting = workers(farm), (await client.job(jobs[0])).get("waiting")
        assert before or workers(farm) or "a worker is being started" in (waiting or "")
        most = 0
        for job_id in jobs:
            job = await until_state(client, job_id, "succeeded")
            most = max(most, len(workers(farm)))
            assert job["attempt"] == 1
            assert job["worker_id"].startswith("auto-default-")
        assert 1 <= most <= 2
        await until(farm, lambda: not workers(farm))
        await until(farm, lambda: not list((farm.state / "scaling").iterdir()))
        with trio.fail_after(SLOW):
            while await client.workers():
                await trio.sleep(0.05)


async def test_a_killed_orchestrator_goes_on_with_its_workers() -> None:
    """The build goes on without it; the next start adopts worker and build, and starts no further one."""
    with open_scaled(lease_seconds=30) as farm:
        await farm.up()
        async with farm.client() as client:
            go = farm.home / "go"
            job_id = await submit(client, a_spec({"step": "1", "until": str(go)}), "long")
            await until_state(client, job_id, "running")
            before = workers(farm)
            assert len(before) == 1
            farm.orchestrator.kill()
            assert workers(farm) == before
            await farm.up(farm.orchestrator)
            go.touch()
            job = await until_state(client, job_id, "succeeded")
            assert (job["attempt"], [job["worker_id"]]) == (1, list(before))
            await until(farm, lambda: not workers(farm))


async def test_killed_between_start_and_record() -> None:
    """Killed the moment a worker's process exists, before that worker has said a word: it is found, and counted."""
    with open_scaled(lease_seconds=60) as farm:
        await killed_between_start_and_record(farm)


async def killed_between_start_and_record(farm: Farm) -> None:
    farm.environ["BLACKTREE_SCALING_POOLS"] = json.dumps(
        {"default": POOL | {"minimum": 1, "maximum": 1, "idle_seconds": 60}}
    )
    farm.orchestrator.start()
    await until(farm, lambda: workers(farm))
    farm.orchestrator.kill()
    first = workers(farm)
    assert len(first) == 1
    await farm.up(farm.orchestrator)
    async with farm.client() as client:
        await farm.until_workers(client, lambda found: found == list(first))
        job_id = await submit(client, a_spec({"step": "1", "lines": 1}), "one")
        assert (await until_state(client, job_id, "succeeded"))["worker_id"] in first
    assert workers(farm) == first
    farm.orchestrator.send(signal.SIGTERM)
    assert await farm.orchestrator.ended() == 0
    await until(farm, lambda: not workers(farm))


async def test_workers_of_a_farm_that_never_comes_back_end_by_themselves(farm: Farm) -> None:
    farm.environ["BLACKTREE_SCALING_POOLS"] = json.dumps({"default": POOL | {"minimum": 1}})
    await farm.up()
    await until(farm, lambda: workers(farm))
    async with farm.client() as client:
        await farm.until_workers(client, lambda found: len(found) == 1)
    farm.orchestrator.kill()
    await until(farm, lambda: not workers(farm))


async def test_a_killed_worker_is_replaced_and_its_job_built_again(farm: Farm) -> None:
    await farm.up()
    async with farm.client() as client:
        go = farm.home / "go"
        job_id = await submit(client, a_spec({"step": "1", "until": str(go)}), "again")
        await until_state(client, job_id, "running")
        ((victim, pid),) = workers(farm).items()
        os.kill(pid, signal.SIGKILL)
        go.touch()
        job = await until_state(client, job_id, "succeeded")
        assert job["attempt"] == 2
        assert job["worker_id"] != victim
        await until(farm, lambda: not Path(farm.state, "scaling", victim).exists())


def test_a_configuration_that_cannot_be_is_told_at_the_start(farm: Farm) -> None:
    for tables, said in (
        ({"default": {"maximun": 3}}, "unknown key `maximun` in [scaling.pools.default]"),
        ({"default": {"minimum": 3, "maximum": 1}}, "minimum 3 is above maximum 1"),
        ({"default": {"provider": "kubernets"}}, "no worker provider is called `kubernets`"),
        ({"Default": {}}, "a pool's name has 1 to 32"),
        ({"default": {"provider": "containers"}}, "scaling.pools.default.options"),
        ({"default": {"maximum": "many"}}, "scaling.pools.default.maximum"),
    ):
        farm.environ["BLACKTREE_SCALING_POOLS"] = json.dumps(tables)
        farm.orchestrator.log.unlink(missing_ok=True)
        farm.orchestrator.start()
        assert farm.orchestrator.process is not None
        assert farm.orchestrator.process.wait(SLOW) == 2
        assert said in farm.orchestrator.said()

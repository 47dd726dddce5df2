"""Silence: who is frozen or away beyond the lease changes nothing any more; within it, nothing is interrupted."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.parts.farm import SHORT_LEASE, SLOW, Daemon, Farm, a_spec, open_farm, submit, until_line, until_state
from tests.parts.truth import ended_once, every_event

PRINTED = [*(f"early {number}" for number in range(1, 6)), *(f"late {number}" for number in range(1, 2001))]


pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


def parts(farm: Farm) -> tuple[dict[str, Any], ...]:
    """A script whose builds all stay between `early` and `late` until `go`."""
    early = {"step": "1", "lines": 5, "line": "early {n}"}
    return early, {"step": "2", "until": str(go(farm)), "lines": 2000, "line": "late {n}"}


def go(farm: Farm) -> Path:
    return farm.home / "go"


@pytest.fixture
def farm() -> Iterator[Farm]:
    with open_farm(orchestrator=SHORT_LEASE) as farm:
        farm.worker("one", slots=1)
        yield farm


async def until_said(daemon: Daemon, word: str) -> None:
    with trio.fail_after(SLOW):
        while word not in daemon.said():
            await trio.sleep(0.05)


@pytest.mark.parametrize("guard_too", [False, True])
async def test_a_frozen_worker_that_wakes_changes_nothing(farm: Farm, guard_too: bool) -> None:
    """Its guard kills it; and where the guard was frozen as well, as by a sleeping machine, it sees for itself."""
    one = farm.workers["one"]
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(*parts(farm)), "frozen")
        await until_line(client, job_id, "early 5")
        [guard] = one.children()
        frozen = [guard, one.pid] if guard_too else [one.pid]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        go(farm).touch()
        await farm.up(farm.worker("two", slots=1))
        job = await until_state(client, job_id, "succeeded")
        assert (job["attempt"], job["tries"], job["worker_id"]) == (2, 1, "two")
        before = await every_event(client, job_id)
        if guard_too:
            # The guard sleeps on: the worker alone must see that it is too late.
            one.send(signal.SIGCONT)
            await farm.until_workers(client, lambda found: "one" in found)
            os.kill(guard, signal.SIGCONT)
        else:
            assert await one.ended() == -signal.SIGKILL
        farm.workers["two"].kill()
        farm.worker("three", slots=1)
        await farm.up()
        # It is of use again, and what it had printed meanwhile came nowhere.
        for number in range(2):
            other = await submit(client, a_spec(*parts(farm)), f"afterwards-{number}")
            await until_state(client, other, "succeeded")
        assert await every_event(client, job_id) == before
        assert await ended_once(client, job_id, PRINTED) == job


async def test_a_worker_that_wakes_with_a_hand_off_in_its_ear(farm: Farm) -> None:
    """Frozen while idle, it hears of the job only when that has long been built elsewhere."""
    one = farm.workers["one"]
    await farm.up()
    async with farm.client() as client:
        one.send(signal.SIGSTOP)
        go(farm).touch()
        job_id = await submit(client, a_spec(*parts(farm)), "unheard")
        await until_state(client, job_id, "assigned", "queued")
        await farm.up(farm.worker("two", slots=1))
        job = await until_state(client, job_id, "succeeded")
        assert job["worker_id"] == "two"
        before = await every_event(client, job_id)
        one.send(signal.SIGCONT)
        await farm.until_workers(client, lambda found: "one" in found)
        other = await submit(client, a_spec(*parts(farm)), "afterwards")
        await until_state(client, other, "succeeded")
        assert await every_event(client, job_id) == before
        await ended_once(client, job_id, PRINTED)


async def test_the_orchestrator_away_beyond_the_lease(farm: Farm) -> None:
    """The worker stops by itself and throws away what nobody will take; the job is built again, whole."""
    one = farm.workers["one"]
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(*parts(farm)), "away")
        await until_line(client, job_id, "early 5")
        farm.orchestrator.kill()
        await until_said(one, "lease over, attempt dropped")
        go(farm).touch()
        farm.orchestrator.start()
        await farm.ready()
        job = await until_state(client, job_id, "succeeded")
        assert job["attempt"] == 2
        await ended_once(client, job_id, PRINTED)


async def test_a_frozen_orchestrator_that_wakes(farm: Farm) -> None:
    """It finds every lease run out, and gives the jobs out once more, not twice."""
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(*parts(farm)), "asleep")
        await until_line(client, job_id, "early 5")
        farm.orchestrator.send(signal.SIGSTOP)
        await until_said(farm.workers["one"], "no contact, build stops")
        go(farm).touch()
        farm.orchestrator.send(signal.SIGCONT)
        job = await until_state(client, job_id, "succeeded")
        assert job["attempt"] == 2
        await ended_once(client, job_id, PRINTED)


async def test_restarts_within_the_lease_interrupt_nothing() -> None:
    """Killed three times while a build talks on: one attempt, every line, and a reader who misses none."""
    with open_farm(orchestrator={"lease_seconds": 20}) as farm:
        farm.worker("one", slots=1)
        await farm.up()
        await followed_over_restarts(farm)


async def followed_over_restarts(farm: Farm) -> None:
    talk = [{"seconds": 0.1, "lines": 20, "line": "word {n}"} for _ in range(60)]
    printed = [f"word {number}" for _ in talk for number in range(1, 21)]
    read: list[str] = []
    async with farm.client() as client:
        job_id = await submit(client, a_spec({"step": "1"}, *talk), "adopted")

        async def follow() -> None:
            async with client.watch(job_id) as watch:
                async for batch in watch:
                    read.extend(event["line"] for event in batch.events if event["type"] == "log")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for length in (100, 400, 700):
                with trio.fail_after(SLOW):
                    while len(read) < length:
                        await trio.sleep(0.02)
                farm.orchestrator.kill()
                farm.orchestrator.start()
        job = await ended_once(client, job_id, printed)
        assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert read == printed

"""Cancel through the whole house, at every moment: it answers once the end is proven, also across deaths."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.parts.farm import SHORT_LEASE, Farm, a_spec, open_farm, submit, until_line, until_state
from tests.parts.truth import ended_once, every_event

LINES = {"step": "1", "lines": 5, "line": "word {n}", "cancel_seconds": 0.5}
LONG = (LINES, {"seconds": 600})
PRINTED = [f"word {number}" for number in range(1, 6)]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with open_farm(orchestrator=SHORT_LEASE) as farm:
        farm.worker("one", slots=1)
        yield farm


@pytest.fixture(scope="module")
def patient() -> Iterator[Farm]:
    """A farm whose lease outlives any restart: what it has under way, it goes on with."""
    with open_farm() as farm:
        farm.worker("one", slots=1)
        yield farm


async def canceled_once(farm: Farm, job_id: str, *, attempts: int = 1) -> dict[str, Any]:
    async with farm.client() as client:
        job = await ended_once(client, job_id, PRINTED)
        assert (job["state"], job["attempt"]) == ("canceled", attempts)
        # Again, and again after the end: the same answer.
        assert await client.cancel(job_id, reason="once more") == job
        # The slot is free again.
        other = await submit(client, a_spec(LINES), f"after-{job_id}")
        assert (await until_state(client, other, "succeeded"))["attempt"] == 1
    return job


async def test_while_it_builds(farm: Farm) -> None:
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(*LONG), "building")
        await until_line(client, job_id, "word 5")
        began = trio.current_time()
        job = await client.cancel(job_id, reason="enough")
        assert trio.current_time() - began > 0.5, "answered before the end was proven"
        assert job["cancel_reason"] == "enough"
    await canceled_once(farm, job_id)


async def test_twice_at_once(farm: Farm) -> None:
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(*LONG), "twice")
        await until_line(client, job_id, "word 5")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.cancel, job_id)
            nursery.start_soon(client.cancel, job_id)
    await canceled_once(farm, job_id)


async def test_while_it_waits(farm: Farm) -> None:
    await farm.up()
    async with farm.client() as client:
        busy = await submit(client, a_spec(*LONG), "busy")
        await until_state(client, busy, "running")
        job_id = await submit(client, a_spec(*LONG), "waiting")
        assert (await client.cancel(job_id))["attempts"] == []
        assert [event["to"] for event in await every_event(client, job_id)] == ["queued", "canceled"]
        await client.cancel(busy)
    await canceled_once(farm, job_id, attempts=0)


async def test_while_it_is_handed_over_to_a_worker_that_does_not_hear(farm: Farm) -> None:
    """No proof comes, so it stays `canceling` until the lease is over."""
    await farm.up()
    one = farm.workers["one"]
    async with farm.client() as client:
        # What follows takes what is left of a lease, and that is most of one.
        began = trio.current_time()
        one.send(signal.SIGSTOP)
        job_id = await submit(client, a_spec(*LONG), "assigned")
        await until_state(client, job_id, "assigned")
        assert (await client.cancel(job_id))["state"] == "canceled"
        assert trio.current_time() - began > 0.5
        one.send(signal.SIGCONT)
        await farm.until_workers(client, lambda found: found == ["one"])
    await canceled_once(farm, job_id)


@pytest.mark.parametrize(
    "place",
    [
        "before-commit:canceling",
        "after-commit:canceling",
        "before-stop-job",
        "after-stop-job",
        "in-commit:canceled",
        "after-commit:canceled",
    ],
)
async def test_the_orchestrator_dies_over_it(patient: Farm, place: str) -> None:
    """The caller's own retry, or what is on record, brings it to its end."""
    await patient.up()
    async with patient.client() as client:
        job_id = await submit(client, a_spec(*LONG), place)
        await until_line(client, job_id, "word 5")
        patient.arm(place)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.cancel, job_id)
            assert await patient.orchestrator.ended() == -signal.SIGKILL
            patient.orchestrator.start()
    await canceled_once(patient, job_id)


async def test_the_worker_dies_over_it(patient: Farm) -> None:
    """Its next life says that nothing is left: that is the proof, and the job is not tried again."""
    await patient.up()
    async with patient.client() as client:
        job_id = await submit(client, a_spec(LINES | {"cancel_seconds": 60}, {"seconds": 600}), "worker")
        await until_line(client, job_id, "word 5")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.cancel, job_id)
            await until_state(client, job_id, "canceling")
            patient.workers["one"].kill()
            patient.workers["one"].start()
    await canceled_once(patient, job_id)


async def test_while_the_orchestrator_shuts_down(patient: Farm) -> None:
    """Canceled in the grace, or canceled by the next life: never queued again."""
    await patient.up()
    async with patient.client() as client:
        job_id = await submit(client, a_spec(LINES | {"cancel_seconds": 4}, {"seconds": 600}), "shutdown")
        await until_line(client, job_id, "word 5")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.cancel, job_id)
            await until_state(client, job_id, "canceling")
            patient.orchestrator.send(signal.SIGTERM)
            assert await patient.orchestrator.ended() == 0
            patient.orchestrator.start()
    await canceled_once(patient, job_id)

"""kill -9 at every stage of a job: it ends exactly once, and its log has neither gap nor double."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.parts.farm import Farm, a_spec, open_farm, submit, until_state
from tests.parts.truth import ended_once

LINES = 20
SCRIPT = (
    {"step": "1", "name": "talk", "lines": LINES, "line": "first {n}"},
    {"step": "2", "name": "more", "seconds": 0.3, "lines": LINES, "line": "second {n}"},
    {"seconds": 0.1, "lines": LINES, "line": "third {n}"},
)
PRINTED = [f"{word} {number}" for word in ("first", "second", "third") for number in range(1, LINES + 1)]


pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """One farm for all the deaths; each test starts again what the one before killed."""
    # No lease runs out here, however slow the machine is: the deaths alone decide.
    with open_farm(orchestrator={"lease_seconds": 20}) as farm:
        farm.worker("one")
        yield farm


async def through(farm: Farm, place: str, **keys: Any) -> dict[str, Any]:
    """Take a job through a death at this place; answers the ended job, checked."""
    await farm.up()
    victim = farm.workers["one"] if place.split("-", 1)[-1] in WORKER else farm.orchestrator
    async with farm.client() as client:
        before = {job["id"] for job in (await client.jobs(limit=500))["jobs"]}
        farm.arm(place)
        found: list[str] = []
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                found.append(await submit(client, a_spec(*SCRIPT, **keys), f"key-{place}"))

            nursery.start_soon(ask)
            assert await victim.ended() == -signal.SIGKILL
            victim.start()
        job = await until_state(client, found[0], "succeeded", "failed", "lost", "canceled", "timed_out")
        after = {job["id"] for job in (await client.jobs(limit=500))["jobs"]}
        assert after - before == {found[0]}
        assert await ended_once(client, found[0], PRINTED) == job
    return job


ORCHESTRATOR = [
    *(
        f"{when}-commit:{state}"
        for state in ("queued", "assigned", "running", "succeeded")
        for when in ("before", "in", "after")
    ),
    *(
        f"{when}-{what}"
        for what in ("publish", "clear", "settle", "run-job", "take-lines", "take-result")
        for when in ("before", "after")
    ),
]
WORKER = ("accept", "output", "tell-lines", "tell-result")


@pytest.mark.parametrize("place", ORCHESTRATOR)
async def test_the_orchestrator_dies(farm: Farm, place: str) -> None:
    """Its worker lives on, so a build that was under way is adopted: no try is used up."""
    job = await through(farm, place)
    assert (job["state"], job["tries"]) == ("succeeded", 0)
    if not place.endswith(("assigned", "run-job")):
        assert job["attempt"] == 1


@pytest.mark.parametrize("place", [f"{when}-{what}" for what in WORKER for when in ("before", "after")])
async def test_the_worker_dies(farm: Farm, place: str) -> None:
    """Its restart says that nothing of it is left: the job is tried again at once, unless its end was on record."""
    job = await through(farm, place)
    assert job["state"] == "succeeded"
    assert (job["attempt"], job["tries"]) == ((1, 0) if place == "after-tell-result" else (2, 1))

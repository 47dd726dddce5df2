"""RabbitMQ dies, forgets everything, or belongs to somebody else: nothing is lost, and the door says what is wrong."""

import signal
from collections.abc import Iterator

import pytest
import trio

from tests.parts.farm import SLOW, Farm, a_spec, open_farm, submit, until_state
from tests.parts.rabbit import RabbitNode, open_rabbit, require_rabbitmq
from tests.parts.stranger import Stranger
from tests.parts.truth import ended_once, told_once
from tests.scenarios.test_stages import through

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(300)]

SHORT = {"step": "1", "lines": 3, "line": "word {n}"}
PRINTED = ["word 1", "word 2", "word 3"]


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitNode]:
    require_rabbitmq()
    with open_rabbit() as node:
        yield node


@pytest.fixture
def farm(rabbit: RabbitNode) -> Iterator[Farm]:
    if not rabbit.runs:
        rabbit.start()
    with open_farm(orchestrator={"broker_url": rabbit.url, "lease_seconds": 20}) as farm:
        farm.worker("one", slots=1)
        yield farm
    if rabbit.runs:
        rabbit.clear()


async def connected(farm: Farm) -> None:
    assert (await farm.ready("ready"))["reasons"] == []


async def test_killed_while_the_farm_is_idle(farm: Farm, rabbit: RabbitNode) -> None:
    """The dispatcher's wish for a job outlives the session in which it was made."""
    await farm.up()
    await connected(farm)
    async with farm.client() as client:
        # The consumer waits for a delivery on an open session by now: one came through it.
        await until_state(client, await submit(client, a_spec(SHORT), "before"), "succeeded")
        await trio.to_thread.run_sync(rabbit.kill)
        status = await farm.ready("degraded")
        assert any(reason.startswith("broker: ") for reason in status["reasons"])
        # Accepted without a broker, and built once there is one.
        job_id = await submit(client, a_spec(SHORT), "without")
        await trio.to_thread.run_sync(rabbit.start)
        await until_state(client, job_id, "succeeded")
        await ended_once(client, job_id, PRINTED)
        later = await submit(client, a_spec(SHORT), "later")
        await until_state(client, later, "succeeded")


async def test_killed_while_a_build_runs(farm: Farm, rabbit: RabbitNode) -> None:
    """The build does not care; its result is told once somebody listens."""
    await farm.up()
    await connected(farm)
    async with farm.client() as client:
        job_id = await submit(client, a_spec(SHORT, {"seconds": 2}), "running")
        await until_state(client, job_id, "running")
        await trio.to_thread.run_sync(rabbit.kill)
        await until_state(client, job_id, "succeeded")
        job = await ended_once(client, job_id, PRINTED)
        assert job["attempt"] == 1
        await trio.to_thread.run_sync(rabbit.start)
        await told_once(rabbit.url, {job_id: job})


async def test_killed_with_tickets_in_hand_and_results_to_tell(farm: Farm, rabbit: RabbitNode) -> None:
    """One builds, one is in the dispatcher's hand, others wait; results come while nobody listens."""
    await farm.up()
    await connected(farm)
    async with farm.client() as client:
        first = await submit(client, a_spec(SHORT, {"seconds": 1}), "first")
        await until_state(client, first, "running")
        jobs = [first, *[await submit(client, a_spec(SHORT), f"behind-{number}") for number in range(5)]]
        await trio.to_thread.run_sync(rabbit.kill)
        await until_state(client, first, "succeeded")
        await trio.to_thread.run_sync(rabbit.start)
        told = {}
        for job_id in jobs:
            await until_state(client, job_id, "succeeded")
            told[job_id] = await ended_once(client, job_id, PRINTED)
            assert told[job_id]["attempt"] == 1
        await told_once(rabbit.url, told)


PLACES = ["before-clear", "before-settle", "after-publish-status"]


@pytest.mark.parametrize("place", PLACES)
async def test_the_orchestrator_dies_between_record_and_queue(farm: Farm, rabbit: RabbitNode, place: str) -> None:
    """A ticket too many or an acknowledgement too few is no second build, and the result is told in one story."""
    job = await through(farm, place)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    await told_once(rabbit.url, {job["id"]: job})


FIRST = ["before-commit:assigned", "in-commit:assigned", "after-commit:assigned", "before-run-job", "before-settle"]


@pytest.mark.parametrize("place", FIRST)
async def test_the_orchestrator_dies_with_a_job_straight_from_the_queue(
    farm: Farm, rabbit: RabbitNode, place: str
) -> None:
    """Its record and its first attempt are one transaction; whatever of it was said, the message comes again."""
    await farm.up()
    await connected(farm)
    farm.arm(place)
    await Stranger(rabbit.url).publish({"id": "straight", "spec": a_spec(SHORT)})
    assert await farm.orchestrator.ended() == -signal.SIGKILL
    farm.orchestrator.start()
    async with farm.client() as client:
        await farm.ready()
        with trio.fail_after(SLOW):
            while not (await client.jobs())["jobs"]:
                await trio.sleep(0.1)
        await until_state(client, "straight", "succeeded")
        job = await ended_once(client, "straight", PRINTED)
    await told_once(rabbit.url, {"straight": job})


async def test_wiped_under_running_daemons(farm: Farm, rabbit: RabbitNode) -> None:
    """Its disk is lost with every message in it; what is queued on record is published again."""
    await farm.up()
    await connected(farm)
    async with farm.client() as client:
        running = await submit(client, a_spec(SHORT, {"seconds": 4}), "running")
        await until_state(client, running, "running")
        waiting = [await submit(client, a_spec(SHORT), f"waiting-{number}") for number in range(20)]
        await trio.to_thread.run_sync(rabbit.erase)
        await trio.to_thread.run_sync(rabbit.start)
        for job_id in (running, *waiting):
            await until_state(client, job_id, "succeeded")
            job = await ended_once(client, job_id, PRINTED)
            assert job["attempt"] == 1, (job, farm.said())


async def test_wiped_while_the_farm_is_down(farm: Farm, rabbit: RabbitNode) -> None:
    await farm.up()
    await connected(farm)
    async with farm.client() as client:
        farm.workers["one"].kill()
        waiting = [await submit(client, a_spec(SHORT), f"waiting-{number}") for number in range(20)]
        farm.orchestrator.kill()
        await trio.to_thread.run_sync(rabbit.erase)
        await trio.to_thread.run_sync(rabbit.start)
        await farm.up()
        for job_id in waiting:
            await until_state(client, job_id, "succeeded")
            await ended_once(client, job_id, PRINTED)


async def test_a_second_farm_on_the_same_queue_is_refused(farm: Farm, rabbit: RabbitNode) -> None:
    """The second says why and takes nothing; it steps in once the first has gone."""
    await farm.up()
    await connected(farm)
    async with farm.client() as client:
        with open_farm(orchestrator={"broker_url": rabbit.url, "lease_seconds": 20}) as second:
            second.worker("two", slots=1)
            await second.up()
            with trio.fail_after(SLOW):
                while "one farm a queue" not in (said := " ".join((await second.ready("degraded"))["reasons"])):
                    assert "queue" in said or "broker" in said, said
                    await trio.sleep(0.05)
            for number in range(5):
                job_id = await submit(client, a_spec(SHORT), f"first-{number}")
                await until_state(client, job_id, "succeeded")
                assert (await ended_once(client, job_id, PRINTED))["worker_id"] == "one"
            await connected(farm)
            farm.orchestrator.kill()
            async with second.client() as other:
                job_id = await submit(other, a_spec(SHORT), "second")
                await until_state(other, job_id, "succeeded")
                await ended_once(other, job_id, PRINTED)

"""SIGTERM with everything busy: out when the grace is over, and the next life brings all of it to its end."""

import signal

import pytest
import trio

from blacktree.client import Client
from tests.parts.farm import SLOW, a_spec, open_farm, submit, until_state
from tests.parts.truth import ended_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

GRACE = 2
SLOTS = 8
QUEUED = 500
LINE = {"step": "1", "lines": 1, "line": "word {n}"}


async def counted(client: Client, state: str) -> int:
    """How many jobs stand in this state."""
    count, cursor = 0, None
    while True:
        page = await client.jobs([state], limit=500, cursor=cursor)
        count += len(page["jobs"])
        cursor = page["cursor"]
        if cursor is None:
            return count


async def test_many_running_and_very_many_queued() -> None:
    with open_farm(orchestrator={"shutdown_grace_seconds": GRACE, "lease_seconds": 20}) as farm:
        worker = farm.worker("one", slots=SLOTS)
        await farm.up()
        async with farm.client() as client:
            busy = [await submit(client, a_spec(LINE, {"seconds": 600}), f"busy-{n}") for n in range(SLOTS)]
            for job_id in busy:
                await until_state(client, job_id, "running")
            queued: list[str] = []

            async def some(first: int) -> None:
                for number in range(first, QUEUED, 20):
                    queued.append(await submit(client, a_spec(LINE), f"queued-{number}"))

            async with trio.open_nursery() as nursery:
                for first in range(20):
                    nursery.start_soon(some, first)
            farm.orchestrator.send(signal.SIGTERM)
            # How long it takes is a row of bin/bench.
            assert await farm.orchestrator.ended() == 0
            farm.orchestrator.start()
            await farm.ready()
            # They were stopped on their worker and handed back, which is no try; now somebody wants them gone.
            for job_id in busy:
                job = await client.job(job_id)
                assert (job["state"] in ("queued", "assigned", "running"), job["tries"]) == (True, 0)
            async with trio.open_nursery() as nursery:
                for job_id in busy:
                    nursery.start_soon(client.cancel, job_id)
            with trio.fail_after(3 * SLOW):
                while await counted(client, "queued"):
                    await trio.sleep(0.5)
            for job_id in queued[:: QUEUED // 40]:
                await until_state(client, job_id, "succeeded")
                assert (await ended_once(client, job_id, ["word 1"]))["attempt"] == 1
            for job_id in busy:
                assert (await ended_once(client, job_id, ["word 1"]))["state"] == "canceled"
            with trio.fail_after(SLOW):
                while await counted(client, "succeeded") < QUEUED:
                    await trio.sleep(0.2)
            assert await counted(client, "succeeded") == QUEUED
        worker.send(signal.SIGTERM)
        farm.orchestrator.send(signal.SIGTERM)
        assert (await worker.ended(), await farm.orchestrator.ended()) == (0, 0)


async def test_a_second_signal_cuts_the_grace() -> None:
    with open_farm(orchestrator={"shutdown_grace_seconds": 60, "lease_seconds": 20}) as farm:
        farm.worker("one")
        await farm.up()
        async with farm.client() as client:
            job_id = await submit(client, a_spec(LINE, {"seconds": 600}), "busy")
            await until_state(client, job_id, "running")
            farm.orchestrator.send(signal.SIGTERM)
            await farm.ready("draining")
            farm.orchestrator.send(signal.SIGTERM)
            # Long before the grace of a minute.
            assert await farm.orchestrator.ended() == 0
            await farm.up()
            job = await until_state(client, job_id, "running")
            assert job["tries"] == 0
            await client.cancel(job_id)


async def test_a_worker_that_is_told_to_end_hands_its_builds_back() -> None:
    """Its successor has them at once: no lease is waited for, no try is used up."""
    with open_farm(orchestrator={"lease_seconds": 60}) as farm:
        farm.worker("one", shutdown_grace_seconds=0)
        await farm.up()
        async with farm.client() as client:
            go = farm.home / "go"
            job_id = await submit(client, a_spec(LINE, {"until": str(go)}), "busy")
            await until_state(client, job_id, "running")
            farm.workers["one"].send(signal.SIGTERM)
            assert await farm.workers["one"].ended() == 0
            go.touch()
            await farm.up(farm.worker("two"))
            job = await until_state(client, job_id, "succeeded")
            assert (job["attempt"], job["tries"]) == (2, 0)
            await ended_once(client, job_id, ["word 1"])

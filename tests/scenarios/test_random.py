"""kill -9 at random under load, of everything there is: what was accepted ends exactly once."""

import os
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import trio

from blacktree.client import Client
from blacktree.errors import BlacktreeError
from blacktree.job import ENDED
from tests.parts.farm import Farm, a_spec, open_farm, submit, until_state
from tests.parts.rabbit import RabbitNode, open_rabbit, require_rabbitmq
from tests.parts.truth import ended_once, told_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

SEED = int(os.environ.get("CHAOS_SEED", "1"))
JOBS = 50
CHAOS_SECONDS = 16.0
LINES = 30
SCRIPT = (
    {"step": "1", "lines": LINES, "line": "first {n}"},
    {"step": "2", "seconds": 0.4, "lines": LINES, "line": "second {n}"},
    {"seconds": 0.4, "lines": LINES, "line": "third {n}"},
)
PRINTED = [f"{word} {number}" for word in ("first", "second", "third") for number in range(1, LINES + 1)]


class Chaos:
    """Submits, cancels and kills by one seed's dice."""

    def __init__(self, farm: Farm, client: Client, rabbit: RabbitNode | None, seed: int) -> None:
        self.farm = farm
        self.client = client
        self.rabbit = rabbit
        self.dice = random.Random(seed)
        self.accepted: list[str] = []
        self.told: list[str] = []
        self.killed: Counter[str] = Counter()

    async def load(self) -> None:
        for number in range(JOBS):
            spec = a_spec(*SCRIPT, max_attempts=20, priority=self.dice.randrange(10))
            self.accepted.append(await submit(self.client, spec, f"load-{number}"))
            await trio.sleep(self.dice.uniform(0, CHAOS_SECONDS / JOBS))

    async def cancel(self) -> None:
        while True:
            await trio.sleep(self.dice.uniform(1, 4))
            job_id = self.dice.choice(self.accepted or [""])
            if job_id and job_id not in self.told:
                self.told.append(job_id)
                with suppress(BlacktreeError):
                    with trio.move_on_after(self.dice.uniform(0.01, 1)):
                        await self.client.cancel(job_id)

    async def kill(self) -> None:
        daemons = [self.farm.orchestrator, *self.farm.workers.values()]
        for turn in range(1000):
            await trio.sleep(self.dice.uniform(0.3, 1.5))
            if self.rabbit is not None and turn % 8 == 2:
                await trio.to_thread.run_sync(self.rabbit.kill)
                await trio.to_thread.run_sync(self.rabbit.start)
                continue
            # Each has its turn, so that no throw of the dice spares one.
            victim = daemons[turn] if turn < 2 else self.dice.choice(daemons)
            victim.kill()
            # Sometimes beyond the lease.
            await trio.sleep(self.dice.choice([0, 0, 0.5, 1, 6]))
            victim.start()
            self.killed[victim.log.stem] += 1


async def through_chaos(rabbit: RabbitNode | None) -> None:
    print(f"CHAOS_SEED={SEED}")
    # Leases of those who are well may run out here, too: all that counts is what is told in the end.
    settings: dict[str, Any] = {"lease_seconds": 5} | ({"broker_url": rabbit.url} if rabbit else {})
    with open_farm(orchestrator=settings) as farm:
        farm.worker("one", slots=3)
        farm.worker("two", slots=3)
        await farm.up()
        async with farm.client() as client:
            chaos = Chaos(farm, client, rabbit, SEED)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chaos.load)
                nursery.start_soon(chaos.cancel)
                nursery.start_soon(chaos.kill)
                await trio.sleep(CHAOS_SECONDS)
                # A busy machine needs longer for the same.
                with trio.fail_after(60):
                    while len(chaos.accepted) <= 5:
                        await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
            if rabbit is not None and not rabbit.runs:
                await trio.to_thread.run_sync(rabbit.start)
            await farm.up()
            jobs: dict[str, dict[str, Any]] = {}
            for job_id in chaos.accepted:
                await until_state(client, job_id, *ENDED, seconds=60)
                jobs[job_id] = await ended_once(client, job_id, PRINTED)
            for job_id, job in jobs.items():
                assert job["state"] in (("succeeded", "canceled") if job_id in chaos.told else ("succeeded",)), job
            # None was made twice, and nothing else is left to be done.
            known = [job["id"] for job in (await client.jobs(limit=500))["jobs"]]
            assert len(known) - len(jobs) in (0, 1), "at most one was accepted whose answer never came"
            attempts = sum(job["attempt"] for job in jobs.values())
            print(f"killed: {dict(chaos.killed)}, attempts: {attempts} for {len(jobs)} jobs")
        if rabbit is not None:
            await told_once(rabbit.url, jobs)


async def test_with_the_embedded_queue() -> None:
    await through_chaos(None)


@pytest.mark.rabbitmq
async def test_with_rabbitmq() -> None:
    require_rabbitmq()
    with open_rabbit() as rabbit:
        await through_chaos(rabbit)

"""Webhooks: from the delivery's first byte to its job on record, and what a burst of pushes to one branch builds."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import trio

from blacktree.cipher import new_key
from blacktree.client import Client
from blacktree.client.sources import add_source
from tests.bench.bench import Bench
from tests.bench.daemons import Farm, open_farm
from tests.bench.figure import Figure, percentile
from tests.parts.forge import SECRET, commit_id, headers, push

URL = "https://git.example.org/team/app.git"
RATE = 20.0
P99_MS = 100.0
BUILDS = 2
AT_ONCE = 8
SCRIPT = '[{"step":"noop"}]'


def measure(bench: Bench) -> Iterator[Figure]:
    """At a steady rate over many branches; then as fast as eight connections can send, all to one branch."""
    with open_farm(bench, BLACKTREE_ORCHESTRATOR_SECRETS_KEY=new_key().text()) as farm:
        for _ in range(2):
            farm.add_worker(4)
        answered, queued, plain = bench.run(_steady, farm, bench.size(400, 40))
        for name, values, part, limit in (
            ("webhook answered: p99", answered, 0.99, None),
            ("webhook to job queued: p50", queued, 0.5, None),
            ("webhook to job queued: p99", queued, 0.99, P99_MS),
        ):
            value = percentile(values, part)
            yield Figure(
                row="webhooks",
                name=f"{name} at {RATE:.0f}/s",
                value=value,
                unit="ms",
                beside="ms job.submit at the door, in turns",
                beside_value=percentile(plain, part),
                target=f"under {limit:.0f} ms" if limit else "",
                reached=value < limit if limit else None,
                details={"deliveries": len(values), "largest_ms": max(values)},
            )
        count = bench.size(1000, 100)
        began, builds, seconds = bench.run(_burst, farm, count)
        yield Figure(
            row="webhooks",
            name=f"builds begun for a burst of {count:,} pushes to one branch",
            value=builds,
            unit="builds",
            target=f"at most {BUILDS}",
            reached=builds <= BUILDS,
            details={"deliveries_a_second": count / began, "seconds_to_the_last_build": seconds},
        )
        yield Figure(row="webhooks", name="deliveries answered in that burst", value=count / began, unit="a second")


async def _declare(client: Client, name: str, **spec: Any) -> None:
    await client.call("secret.put", {"kind": "webhook", "name": "hook", "value": SECRET.decode()})
    spec = {"build_args": {"SCRIPT": SCRIPT}} | spec
    await add_source(client, {"name": name, "repository": URL, "webhook_secret": "hook", "spec": spec})


async def _send(http: httpx.AsyncClient, farm: Farm, name: str, value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    answer = await http.post(f"{farm.url}/api/v1/webhooks/github/{name}", headers=headers("github", body), content=body)
    assert answer.status_code == 202, answer.text


async def _steady(farm: Farm, count: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds until the answer, and until the job's own mark that it is queued, both from before sending; and the
    latter of jobs that are submitted at the door in turns with these."""
    sent: dict[str, float] = {}
    plain: list[float] = []
    answered: list[float] = []
    async with Client(farm.url, farm.token) as client, httpx.AsyncClient() as http:
        # Nobody builds these: builds would take the processors that are measured here.
        await _declare(client, "steady", pool="nobody")

        async def one(number: int) -> None:
            commit = commit_id(number)
            value = push("github", URL, ref=f"refs/heads/branch-{number}", after=commit)
            moment = time.time()
            await _send(http, farm, "steady", value)
            answered.append((time.time() - moment) * 1000)
            sent[commit] = moment

        async def other(number: int) -> None:
            moment = time.time()
            job = await client.submit({"repository": URL, "ref": commit_id(number), "pool": "nobody"})
            plain.append((datetime.fromisoformat(job["queued_at"]).timestamp() - moment) * 1000)

        for number in range(16):
            await one(-1 - number)
            await other(number)
        sent.clear()
        answered.clear()
        plain.clear()
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            for number in range(count):
                await trio.sleep_until(began + number / RATE)
                nursery.start_soon(one, number)
                await trio.sleep_until(began + (number + 0.5) / RATE)
                nursery.start_soon(other, number)
        jobs = await _until(client, "steady", count + 16, ended=False)
        await client.call("source.remove", {"name": "steady"})
    queued = [
        (datetime.fromisoformat(job["queued_at"]).timestamp() - sent[job["spec"]["ref"]]) * 1000
        for job in jobs
        if job["spec"]["ref"] in sent
    ]
    return answered, queued, plain


async def _burst(farm: Farm, count: int) -> tuple[float, int, float]:
    """How long the sending took, how many builds began, and when the last one had ended (seconds)."""
    async with Client(farm.url, farm.token) as client, httpx.AsyncClient() as http:
        await _declare(client, "burst")
        numbers = iter(range(1, count + 1))
        began = trio.current_time()

        async def sender() -> None:
            for number in numbers:
                await _send(
                    http, farm, "burst", push("github", URL, before=commit_id(number - 1), after=commit_id(number))
                )

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(sender)
        sent = trio.current_time() - began
        jobs = await _until(client, "burst", 1)
        done = trio.current_time() - began
    return sent, sum(bool(job["attempt"]) for job in jobs), done


async def _until(client: Client, source: str, least: int, *, ended: bool = True) -> list[dict[str, Any]]:
    """This source's jobs, once there are so many, no further one comes, and (`ended`) all have ended."""
    before = -1
    while True:
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await client.jobs(limit=500, cursor=cursor)
            found += [job for job in page["jobs"] if job["origin"] and job["origin"]["source"] == source]
            if (cursor := page["cursor"]) is None:
                break
        settled = not ended or all(job["finished_at"] for job in found)
        if len(found) >= least and settled and len(found) == before:
            return found
        before = len(found) if settled else -1
        await trio.sleep(0.5)

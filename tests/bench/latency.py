"""Submitted until a worker has it, in an open loop of 80 jobs a second; beside Celery."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import trio

from blacktree.client import Client
from tests.bench.amqp import EXCHANGE, job, open_channel, publish, until_queue
from tests.bench.bench import Bench
from tests.bench.celery_farm import CeleryFarm, heard
from tests.bench.daemons import Farm, open_farm
from tests.bench.figure import Figure, percentile
from tests.parts.rabbit import RabbitNode

RATE = 80.0
WORKERS = 2
SLOTS = 8
SCRIPT = '[{"step":"noop"}]'
WAIT_SECONDS = 60.0
P50_MS, P99_MS = 10.0, 50.0


def measure(bench: Bench) -> Iterator[Figure]:
    """By the door with RabbitMQ behind it (the figure asked for), on the queue itself, and with the embedded queue."""
    count = bench.size(800, 80)
    node = bench.rabbit()
    with _farm(bench, node.url) as farm:
        door = bench.run(_by_door, farm, count)
        queue = asyncio.run(_on_queue(node, farm, count))
    with _farm(bench, "") as farm:
        embedded = bench.run(_by_door, farm, count)
    celery = _celery(bench, node, count)
    for name, values, part, limit in (
        ("door, RabbitMQ: p50", door, 0.5, P50_MS),
        ("door, RabbitMQ: p99", door, 0.99, P99_MS),
        ("on execute.queue: p50", queue, 0.5, None),
        ("on execute.queue: p99", queue, 0.99, None),
        ("door, embedded queue: p50", embedded, 0.5, None),
        ("door, embedded queue: p99", embedded, 0.99, None),
    ):
        value = percentile(values, part)
        yield Figure(
            row="latency",
            name=f"submit to worker at 80/s, {name}",
            value=value,
            unit="ms",
            beside="ms Celery with results",
            beside_value=percentile(celery, part),
            target=f"under {limit:.0f} ms" if limit else "",
            reached=value < limit if limit else None,
            details={"jobs": len(values), "largest_ms": max(values), "celery_largest_ms": max(celery)},
        )


def _farm(bench: Bench, broker_url: str) -> Any:
    return open_farm(bench, broker_url, BLACKTREE_QUEUE_STATUS_MAXIMUM="100000")


async def _by_door(farm: Farm, count: int) -> list[float]:
    sent: dict[str, float] = {}

    async def one(client: Client) -> None:
        moment = time.time()
        found = await client.submit({"repository": "https://git.example/app.git", "build_args": {"SCRIPT": SCRIPT}})
        sent[found["id"]] = moment

    with trio.fail_after(WAIT_SECONDS):
        async with Client(farm.url, farm.token) as client:
            await _until_warm(client, farm)
            sent.clear()
            async with trio.open_nursery() as nursery:
                began = trio.current_time()
                for number in range(count):
                    await trio.sleep_until(began + number / RATE)
                    nursery.start_soon(one, client)
            return await _latencies(client, sent)


async def _until_warm(client: Client, farm: Farm) -> None:
    """Workers there and every path used once."""
    if not farm.workers:
        for _ in range(WORKERS):
            farm.add_worker(SLOTS)
    while len([each for each in await client.workers() if not each.get("refusal")]) < WORKERS:
        await trio.sleep(0.05)
    warm = [await client.submit({"repository": "https://git.example/app.git"}) for _ in range(16)]
    for each in warm:
        async with client.watch(each["id"]) as watch:
            async for _ in watch:
                pass


async def _latencies(client: Client, sent: dict[str, float]) -> list[float]:
    """Milliseconds from before the call to the worker's own mark that the build had begun there."""
    found = []
    for identity, moment in sent.items():
        while (started := _started((await client.events(identity))["events"])) is None:
            await trio.sleep(0.05)
        found.append((started - moment) * 1000)
    return found


def _started(events: list[dict[str, Any]]) -> float | None:
    for event in events:
        if event["type"] == "step_started":
            return datetime.fromisoformat(event["time"]).timestamp()
    return None


async def _on_queue(node: RabbitNode, farm: Farm, count: int) -> list[float]:
    sent: dict[str, float] = {}
    await until_queue(node.url, "execute.queue")
    async with open_channel(node.url) as channel, asyncio.TaskGroup() as tasks:
        exchange = await channel.get_exchange(EXCHANGE)
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            identity = f"queued-{number}"
            sent[identity] = time.time()
            tasks.create_task(publish(exchange, "worker.execute", [job(identity, SCRIPT=SCRIPT)]))

    async def read() -> list[float]:
        with trio.fail_after(WAIT_SECONDS):
            async with Client(farm.url, farm.token) as client:
                while not (await _known(client, f"queued-{count - 1}")):
                    await trio.sleep(0.05)
                return await _latencies(client, sent)

    return await asyncio.to_thread(trio.run, read)


async def _known(client: Client, identity: str) -> bool:
    from blacktree.errors import NotFound

    try:
        await client.job(identity)
    except NotFound:
        return False
    return True


def _celery(bench: Bench, node: RabbitNode, count: int) -> list[float]:
    farm = CeleryFarm(bench, node)
    with farm.worker(), farm.publisher("rate", json.dumps(RATE), str(count)) as publisher:
        return [value * 1000 for value in heard(publisher)["latencies"]]

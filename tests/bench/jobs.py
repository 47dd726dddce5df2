"""No-op jobs a second from RabbitMQ through record, worker and record to RabbitMQ; beside aio-pika alone and Celery."""

import asyncio
import subprocess
import time
from collections.abc import Iterator

from tests.bench.amqp import EXCHANGE, Results, job, open_channel, publish, until_queue
from tests.bench.bench import Bench, environment, module, running
from tests.bench.celery_farm import CeleryFarm, heard
from tests.bench.daemons import Farm, open_farm
from tests.bench.figure import Figure
from tests.bench.proc import cpu_seconds, tree
from tests.parts.rabbit import RabbitNode

WORKERS = 2
SLOTS = 8
WAIT_SECONDS = 100.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Preloaded, and with publishing included; each in one run with its peers."""
    count = bench.size(2000, 60)
    node = bench.rabbit()
    preloaded, with_publishing, spent = _blacktree(bench, node, count)
    floor = _raw(bench, node, count)
    celery, celery_with_publishing = _celery(bench, node, count)
    details = {"jobs": count, "cpu_ms_per_job": spent, "raw_consume_ack_per_s": floor, "celery_per_s": celery}
    name = f"no-op jobs/s, preloaded ({count} jobs, {WORKERS} workers x {SLOTS} slots)"
    yield Figure(
        row="jobs",
        name=name,
        value=preloaded,
        unit="/s",
        beside="/s Celery with results, 2 processes",
        beside_value=celery,
        target="Celery's",
        reached=preloaded >= celery,
        note=f"CPU ms a job: {', '.join(f'{part} {value:.2f}' for part, value in spent.items())}",
        details=details,
    )
    yield Figure(
        row="jobs",
        name=name,
        value=preloaded,
        unit="/s",
        beside="/s aio-pika consume+ack, nothing on record",
        beside_value=floor,
    )
    yield Figure(
        row="jobs",
        name="no-op jobs/s, publishing included",
        value=with_publishing,
        unit="/s",
        beside="/s Celery with results",
        beside_value=celery_with_publishing,
        details={"jobs": count},
    )


def _blacktree(bench: Bench, node: RabbitNode, count: int) -> tuple[float, float, dict[str, float]]:
    with open_farm(bench, node.url, BLACKTREE_QUEUE_STATUS_MAXIMUM="100000") as farm:
        for _ in range(WORKERS):
            farm.add_worker(SLOTS)
        return asyncio.run(_drive(farm, node.url, count))


async def _drive(farm: Farm, url: str, count: int) -> tuple[float, float, dict[str, float]]:
    await until_queue(url, "status.queue")
    async with open_channel(url) as channel:
        results = Results()
        queue = await channel.get_queue("status.queue")
        await queue.consume(results.take, no_ack=True)
        exchange = await channel.get_exchange(EXCHANGE)

        # Both workers there and everything imported: not part of what is measured.
        await publish(exchange, "worker.execute", [job(f"warm-{number}") for number in range(32)])
        await results.until(32, WAIT_SECONDS)

        before = _spent(farm)
        began = time.time()
        await publish(exchange, "worker.execute", [job(f"live-{number}") for number in range(count)])
        times = await results.until(32 + count, WAIT_SECONDS)
        with_publishing = count / (times[-1] - began)
        spent = {part: (after - before[part]) * 1000 / count for part, after in _spent(farm).items()}

        await asyncio.to_thread(farm.stop_workers)
        await publish(exchange, "worker.execute", [job(f"pre-{number}") for number in range(count)])
        for _ in range(WORKERS):
            farm.add_worker(SLOTS)
        times = (await results.until(32 + 2 * count, WAIT_SECONDS))[-count:]
        if results.failed:
            raise RuntimeError(f"{len(results.failed)} of the no-op jobs did not succeed")
        return (count - 1) / (times[-1] - times[0]), with_publishing, spent


def _spent(farm: Farm) -> dict[str, float]:
    workers = [pid for worker in farm.workers for pid in tree(worker.pid)]
    return {"orchestrator": cpu_seconds(farm.orchestrator.pid), "workers": cpu_seconds(*workers)}


def _raw(bench: Bench, node: RabbitNode, count: int) -> float:
    async def load() -> None:
        async with open_channel(node.url) as channel:
            await channel.declare_queue("bench.raw", durable=True)
            bodies = [job(f"raw-{number}") for number in range(count)]
            await publish(channel.default_exchange, "bench.raw", bodies)

    asyncio.run(load())
    command = module("raw_consumer", node.url, "bench.raw", str(count))
    log = bench.new_directory("raw") / "log"
    with running(command, environment(), log, stdout=subprocess.PIPE) as process:
        found = heard(process)
    return float((count - 1) / (found["last"] - found["first"]))


def _celery(bench: Bench, node: RabbitNode, count: int) -> tuple[float, float]:
    farm = CeleryFarm(bench, node)
    with farm.publisher("jobs", str(count)) as publisher:
        heard(publisher)
        with farm.worker():
            found = heard(publisher)
            preloaded = (count - 1) / (found["last"] - found["first"])
            with farm.publisher("jobs", str(count)) as second:
                heard(second)
                with_publishing = count / heard(second)["all"]
    return preloaded, with_publishing

"""No-op jobs a second with 10 and with 1,000 registered workers, of which two work."""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack

from blacktree.client import Client
from tests.bench.amqp import EXCHANGE, Results, job, open_channel, publish, until_queue
from tests.bench.bench import Bench, environment, module, running
from tests.bench.celery_farm import heard
from tests.bench.daemons import Farm, open_farm
from tests.bench.figure import Figure, median
from tests.bench.jobs import SLOTS, WORKERS
from tests.bench.proc import cpu_seconds, resident_mib

# Simulated workers beat four times a lease, real ones three times of 30 s: so both are in touch every ten seconds.
LEASE_SECONDS = "40"
WAIT_SECONDS = 60.0
RATIO, LARGEST_MIB = 1.2, 300.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Few, many, in one farm; three runs of each."""
    few, many = 10, bench.size(1000, 30)
    count = bench.size(400, 60)
    node = bench.rabbit()
    settings = {"ORCHESTRATOR_LEASE_SECONDS": LEASE_SECONDS, "QUEUE_STATUS_MAXIMUM": "100000"}
    with open_farm(bench, node.url, **{f"BLACKTREE_{key}": value for key, value in settings.items()}) as farm:
        for _ in range(WORKERS):
            farm.add_worker(SLOTS)
        with ExitStack() as stack:
            _simulate(stack, bench, farm, 0, few - WORKERS)
            asyncio.run(_rates(node.url, "warm", 1, 60))
            with_few = asyncio.run(_rates(node.url, "few", 3, count))
            _simulate(stack, bench, farm, few, many - few)
            quiet = _cpu_percent(farm, bench.size(10, 1))
            with_many = asyncio.run(_rates(node.url, "many", 3, count))
            registered = bench.run(_registered, farm)
            memory = resident_mib(farm.orchestrator.pid)
    if registered != many:
        raise RuntimeError(f"{registered} workers are registered, not {many}")
    yield Figure(
        row="scale",
        name=f"no-op jobs/s at {few} registered workers",
        value=median(with_few),
        unit="/s",
        beside=f"/s at {many}",
        beside_value=median(with_many),
        target=f"{RATIO} between them",
        reached=median(with_few) <= RATIO * median(with_many),
        note=f"{many - WORKERS} of them only keep in touch; that alone takes the orchestrator {quiet:.0f} % of a core",
        details={"few": with_few, "many": with_many, "jobs": count},
    )
    yield Figure(
        row="memory",
        name=f"orchestrator, {many} registered workers, resident",
        value=memory,
        unit="MiB",
        target=f"at most {LARGEST_MIB:.0f} MiB",
        reached=memory <= LARGEST_MIB,
    )


def _simulate(stack: ExitStack, bench: Bench, farm: Farm, first: int, count: int) -> None:
    # Their unix sockets want a short path.
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bt-"))
    command = module("simulated", farm.grpc, str(first), str(count), directory)
    log = bench.directory / "simulated.log"
    environ = environment(BENCH_JOIN_TOKEN=farm.join_token)
    heard(stack.enter_context(running(command, environ, log, stdout=subprocess.PIPE)))


def _cpu_percent(farm: Farm, seconds: int) -> float:
    before = cpu_seconds(farm.orchestrator.pid)
    time.sleep(seconds)
    return (cpu_seconds(farm.orchestrator.pid) - before) / seconds * 100


async def _rates(url: str, name: str, runs: int, count: int) -> list[float]:
    await until_queue(url, "status.queue")
    found = []
    async with open_channel(url) as channel:
        results = Results()
        queue = await channel.get_queue("status.queue")
        await queue.consume(results.take, no_ack=True)
        exchange = await channel.get_exchange(EXCHANGE)
        for run in range(runs):
            began = time.time()
            await publish(exchange, "worker.execute", [job(f"{name}-{run}-{number}") for number in range(count)])
            times = await results.until((run + 1) * count, WAIT_SECONDS)
            found.append(count / (times[-1] - began))
    return found


async def _registered(farm: Farm) -> int:
    async with Client(farm.url, farm.token) as client:
        return len([each for each in await client.workers() if each["state"] != "dead"])

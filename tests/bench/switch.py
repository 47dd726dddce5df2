"""A deployment's switch under 200 requests a second: what is lost, how long nobody serves, what the front port costs.

A worker in a process of its own, on the real engine; requests on a connection each. Beside it the same requests to the
container's own published port, without the front.
"""

import signal
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio
from msgspec.structs import replace

from blacktree.concurrency.island import open_island
from blacktree.rpc.client import connect_worker
from blacktree.rpc.server import serve_orchestrator
from tests.bench.bench import Bench, NotHere
from tests.bench.figure import Figure, percentile
from tests.parts.engine import answers, can_start_engines, engine, ensure_base
from tests.parts.replicas import (
    Load,
    ReplicaPart,
    a_run,
    an_order,
    containers_of,
    docker,
    free_port,
    httpd,
    load,
    named,
    orders,
    owner_of,
)
from tests.worker.process import TOKEN, start

PER_SECOND = 200
SWITCHES = 5
CALM_SECONDS = 5.0
Outcome = dict[str, Any]


def measure(bench: Bench) -> Iterator[Figure]:
    """Switches there and back, then a kill of the worker."""
    if not answers("/var/run/docker.sock") and not can_start_engines():
        raise NotHere("no container engine answers, and none can be started here")
    with engine() as socket:
        found: Outcome = bench.run(_measure, bench, socket, ensure_base(socket))
    through, direct = found["through"], found["direct"]
    sent = found["answered"] + found["lost"]
    yield Figure(
        row="switch",
        name=f"requests lost over {found['switches']} switches ({sent} requests at {PER_SECOND}/s)",
        value=found["lost"],
        unit="",
        target="none",
        reached=found["lost"] == 0,
    )
    yield Figure(
        row="switch",
        name="longest time without an answer around a switch",
        value=1000 * found["gap"],
        unit="ms",
        beside="pace of the requests",
        beside_value=1000 / PER_SECOND,
        details={"gaps": found["gaps"]},
    )
    for part, name in ((0.5, "p50"), (0.99, "p99")):
        yield Figure(
            row="switch",
            name=f"a request through the front: {name}",
            value=1000 * percentile(through, part),
            unit="ms",
            beside="to the published port",
            beside_value=1000 * percentile(direct, part),
        )
    yield Figure(
        row="switch",
        name="worker killed and started again: time without service",
        value=found["restart"],
        unit="s",
        note="containers run on; a new process of Python, adoption, the front",
    )


async def _measure(bench: Bench, socket: str, image: str) -> Outcome:
    directory = bench.new_directory("switch")
    part, port = ReplicaPart(), free_port()
    (directory / "token").write_text(TOKEN)
    keys: dict[str, Any] = {"provider": "docker", "engine": socket, "shutdown_grace_seconds": 0}
    async with open_island(), trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_orchestrator, part, "127.0.0.1:0", join_token=TOKEN))
        process = await start(directory, address, **keys)
        try:
            await part.until(lambda: bool(part.registrations), 20)
            found = await _switches(bench, part, port, image)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            began = trio.current_time()
            process = await start(directory, address, **keys)
            await _answers(port)
            return found | {"restart": trio.current_time() - began}
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(30, shield=True):
                await process.wait()
                await _clear(directory)
            nursery.cancel_scope.cancel()


async def _switches(bench: Bench, part: ReplicaPart, port: int, image: str) -> Outcome:
    switches = bench.size(SWITCHES, 1)
    lost, answered, gaps = 0, 0, []
    async with connect_worker(part.registrations[-1].address, join_token=TOKEN) as side:
        current = an_order(image, a_run(port, command=httpd("1")), named(1))
        await side.apply_replicas(orders(current))
        state = await part.serving(named(1))
        direct = await _calm(bench, int(state.address.rpartition(":")[2]))
        through = await _calm(bench, port)
        for version in range(2, switches + 2):
            fresh = an_order(image, a_run(port, command=httpd(str(version))), named(version), serve=False)
            async with load(port, PER_SECOND) as running:
                await running.until(lambda running=running: len(running.answers) > PER_SECOND / 2)
                await side.apply_replicas(orders(current, fresh))
                await part.state(named(version), "healthy")
                await side.apply_replicas(orders(replace(current, serve=False), replace(fresh, serve=True)))
                await part.serving(named(version))
                await side.apply_replicas(orders(replace(fresh, serve=True)))
                await part.until(lambda old=current.name: old not in part.states)
                before = len(running.answers)
                await running.until(
                    lambda running=running, before=before: len(running.answers) > before + PER_SECOND / 2
                )
            lost, answered = lost + len(running.lost), answered + len(running.answers)
            gaps.append(_gap(running))
            current = replace(fresh, serve=True)
    return {
        "switches": switches,
        "lost": lost,
        "answered": answered,
        "gap": max(gaps),
        "gaps": gaps,
        "direct": direct,
        "through": through,
    }


async def _calm(bench: Bench, port: int) -> list[float]:
    async with load(port, PER_SECOND) as running:
        await trio.sleep(CALM_SECONDS if not bench.quick else 0.5)
    return [seconds for _, _, seconds in running.answers]


def _gap(running: Load) -> float:
    """The longest time between two answers."""
    ends = sorted(begin + seconds for begin, _, seconds in running.answers)
    return max(after - before for before, after in pairwise(ends))


async def _answers(port: int) -> None:
    while True:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                if await stream.receive_some():
                    return
        except (OSError, trio.BrokenResourceError):
            await trio.sleep(0.005)


async def _clear(directory: Path) -> None:
    for each in await containers_of(owner_of(directory / "state")):
        await docker("rm", "-f", each)

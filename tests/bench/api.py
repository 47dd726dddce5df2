"""Requests a second for one job and for a list of fifty, beside the same bytes from an application without a store."""

import json
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import h11
import trio

from blacktree.client import Client
from tests.bench.bench import Bench, environment, module, running
from tests.bench.celery_farm import heard
from tests.bench.daemons import Farm, open_farm
from tests.bench.figure import Figure

CONNECTIONS = 8
JOBS = 200
SHARE = 0.5
TOLD = {"job": "one job", "list": "fifty jobs"}


def measure(bench: Bench) -> Iterator[Figure]:
    """Eight connections that are kept alive; each asks again as soon as it is answered."""
    seconds = bench.size(5, 1)
    with open_farm(bench) as farm:
        job_id = bench.run(_fill, farm, bench.size(JOBS, 20))
        port = urlsplit(farm.url).port or 0
        paths = {"job": f"/api/v1/jobs/{job_id}", "list": "/api/v1/jobs?limit=50"}
        found = {name: bench.run(_ask, port, path, farm.token, seconds) for name, path in paths.items()}
    bodies = {paths[name].partition("?")[0]: body for name, (_, body) in found.items()}
    log = bench.directory / "bare-api.log"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(module("bare_api"), environment(), log, **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(bodies) + "\n")
        process.stdin.flush()
        bare_port = heard(process)["port"]
        bare = {name: bench.run(_ask, bare_port, path, "none", seconds)[0] for name, path in paths.items()}
    for name, (rate, body) in found.items():
        yield Figure(
            row="api",
            name=f"GET of {TOLD[name]} ({len(body)} bytes), {CONNECTIONS} connections",
            value=rate,
            unit="/s",
            beside="/s same bytes, no store",
            beside_value=bare[name],
            target=f"{SHARE} of it",
            reached=rate >= SHARE * bare[name],
        )


async def _fill(farm: Farm, count: int) -> str:
    async with Client(farm.url, farm.token) as client:
        for _ in range(count):
            job = await client.submit({"repository": "https://git.example/team/app.git"})
    return str(job["id"])


async def _ask(port: int, path: str, token: str, seconds: float) -> tuple[float, str]:
    """Answers a second, and the last body."""
    asked = 0
    body = b""
    began = time.monotonic()

    async def one() -> None:
        nonlocal asked, body
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            http = h11.Connection(h11.CLIENT)
            headers = [("Host", "127.0.0.1"), ("Authorization", f"Bearer {token}")]
            while time.monotonic() < began + seconds:
                head = http.send(h11.Request(method="GET", target=path, headers=headers)) or b""
                await stream.send_all(head + (http.send(h11.EndOfMessage()) or b""))
                received = bytearray()
                while not isinstance(event := http.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        http.receive_data(await stream.receive_some(65536))
                    elif isinstance(event, h11.Response) and event.status_code != 200:
                        raise RuntimeError(f"{path} was answered with {event.status_code}")
                    elif isinstance(event, h11.Data):
                        received += event.data
                http.start_next_cycle()
                asked += 1
                body = bytes(received)

    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(one)
    return asked / (time.monotonic() - began), body.decode()

"""Two real workers on the real engine: one dies or freezes, its deployment goes on elsewhere, and never twice after."""

import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from blacktree.client import Client
from blacktree.client.deployments import deploy, deployment, stop
from blacktree.errors import BlacktreeError
from tests.parts import engine as engines
from tests.parts.farm import SHORT_LEASE, SLOW, Farm, open_farm
from tests.parts.ports import free_port
from tests.parts.replicas import containers_of, docker, get, httpd, owner_of

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with engines.engine() as socket, open_farm(orchestrator=SHORT_LEASE) as farm:
        engines.ensure_base(socket)
        for name in ("w1", "w2"):
            farm.worker(name, provider="docker", engine=socket)
        try:
            yield farm
        finally:
            farm.close()
            for name in farm.workers:
                if (farm.home / name / "secret").exists():
                    label = f"label=dev.blacktree.replicas={owner(farm, name)}"
                    left = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True)
                    for each in left.stdout.split():
                        subprocess.run(["docker", "rm", "-f", each], capture_output=True)


def owner(farm: Farm, name: str) -> str:
    return owner_of(farm.home / name, name)


def wanted(name: str, **run: Any) -> dict[str, Any]:
    strategy = {"drain_seconds": 0, "stop_seconds": 1}
    fields = {"name": name, "command": ["sleep", "600"], "memory_bytes": 32 << 20, "strategy": strategy}
    return {"image": engines.BASE, "run": fields | run}


async def until(farm: Farm, client: Client, name: str, fits: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with trio.move_on_after(2 * SLOW):
        while True:
            try:
                found = await deployment(client, name)
            except BlacktreeError:
                pass
            else:
                if fits(found):
                    return found
            await trio.sleep(0.05)
    raise AssertionError((found, farm.said()))


def healthy_on(*workers: str) -> Any:
    """Fits when its replicas are healthy on these workers, in the order of their indexes."""
    rows = [(name, "healthy") for name in workers]
    return lambda found: [(each["worker_id"], each["state"]) for each in found["replicas"]] == rows


async def runs_on(farm: Farm, client: Client, name: str) -> tuple[str, str]:
    """The worker that serves this deployment's one replica, and the other one."""
    found = await until(farm, client, name, lambda found: healthy_on("w1")(found) or healthy_on("w2")(found))
    await until(farm, client, name, lambda found: found["serving"] == 1)
    first = found["replicas"][0]["worker_id"]
    return first, "w2" if first == "w1" else "w1"


async def until_containers(owner: str, number: int) -> list[str]:
    found: list[str] = []
    with trio.move_on_after(SLOW):
        while len(found := await containers_of(owner)) != number:
            await trio.sleep(0.1)
    assert len(found) == number
    return found


async def clear(farm: Farm, client: Client, *names: str) -> None:
    for name in names:
        await stop(client, name)
    for name in farm.workers:
        await until_containers(owner(farm, name), 0)


async def until_ended(container: str) -> None:
    """Though nobody has removed it."""
    with trio.fail_after(SLOW):
        while await docker("inspect", "-f", "{{.State.Running}}", container) != "false":
            await trio.sleep(0.1)


async def test_a_killed_worker_is_followed_by_another_and_does_not_run_a_second_copy(farm: Farm) -> None:
    port = free_port()
    await farm.up()
    async with farm.client() as client:
        moves = {"ports": [{"container": 80, "host": port}], "command": httpd("one"), "failover_seconds": 10}
        await deploy(client, wanted("moves", **moves))
        await until(farm, client, "moves", lambda found: healthy_on("w1")(found) and found["replicas"][0]["serving"])
        # Without `failover_seconds`, a replica on each worker.
        await deploy(client, wanted("stays", replicas=2))
        found = await until(farm, client, "stays", lambda found: healthy_on("w2", "w1")(found) and found["serving"])
        staying = found["replicas"][1]["container"]
        assert await get(port) == "one"
        before = await containers_of(owner(farm, "w1"))
        farm.workers["w1"].kill()
        # The containers are the engine's, not the worker's: they run on, only the front has ended.
        with pytest.raises(OSError):
            await get(port)
        assert await containers_of(owner(farm, "w1")) == before
        found = await until(farm, client, "moves", lambda found: healthy_on("w2")(found))
        await until(farm, client, "moves", lambda found: found["replicas"][0]["serving"])
        (moved,) = found["replicas"]
        assert moved["container"] not in before
        assert await get(port) == "one"
        # Its guard has ended what may move, though no worker is there; what may not move runs on and waits.
        (going,) = [each for each in before if each != staying]
        await until_ended(going)
        assert await docker("inspect", "-f", "{{.State.Running}}", staying) == "true"
        found = await deployment(client, "stays")
        assert [(each["worker_id"], each["state"]) for each in found["replicas"]] == [
            ("w2", "healthy"),
            ("w1", "unknown"),
        ]
        # It is back: what was moved it ends before it serves, what it still has goes on in the same container.
        farm.workers["w1"].start()
        assert await until_containers(owner(farm, "w1"), 1) == [staying]
        found = await until(farm, client, "stays", healthy_on("w2", "w1"))
        assert found["replicas"][1]["container"] == staying
        (still,) = (await deployment(client, "moves"))["replicas"]
        assert (still["container"], still["state"], still["worker_id"]) == (moved["container"], "healthy", "w2")
        assert await get(port) == "one"
        told = await client.farm_events(limit=1000)
        assert [each["type"] for each in told["events"]].count("deployment_failover") == 1
        await clear(farm, client, "moves", "stays")


async def test_a_drained_worker_hands_its_deployment_over(farm: Farm) -> None:
    await farm.up()
    async with farm.client() as client:
        await deploy(client, wanted("leaves"))
        first, second = await runs_on(farm, client, "leaves")
        drained = await client.drain(first)
        assert [(each["deployment"], each["to"]) for each in drained["leaving"]] == [("leaves", second)]
        try:
            await until(farm, client, "leaves", healthy_on(second))
            await until_containers(owner(farm, first), 0)
        finally:
            await client.drain(first, undo=True)
        await clear(farm, client, "leaves")


async def test_a_frozen_worker_ends_what_was_moved_when_it_goes_on(farm: Farm) -> None:
    await farm.up()
    async with farm.client() as client:
        await deploy(client, wanted("frozen", failover_seconds=10))
        first, second = await runs_on(farm, client, "frozen")
        before = await containers_of(owner(farm, first))
        farm.workers[first].send(signal.SIGSTOP)
        found = await until(farm, client, "frozen", healthy_on(second))
        (moved,) = found["replicas"]
        # Its guard has ended the first copy in its place.
        await until_ended(*before)
        farm.workers[first].send(signal.SIGCONT)
        await until_containers(owner(farm, first), 0)
        assert await containers_of(owner(farm, second)) == [moved["container"]]
        (still,) = (await deployment(client, "frozen"))["replicas"]
        assert (still["container"], still["state"]) == (moved["container"], "healthy")
        await clear(farm, client, "frozen")

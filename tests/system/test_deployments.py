"""A service through a whole farm on the real engine, with its commands: every switch under load, nothing lost."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.parts import engine as engines
from tests.parts.replicas import free_port, get, httpd, load, owner_of
from tests.parts.whole_farm import WholeFarm, open_whole_farm

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[WholeFarm]:
    with engines.engine() as socket:
        engines.ensure_base(socket)
        with open_whole_farm(tmp_path, BLACKTREE_WORKER_PROVIDER="docker", BLACKTREE_WORKER_ENGINE=socket) as farm:
            farm.start()
            try:
                yield farm
            finally:
                # What it left is ours to remove, and only that.
                for state in farm.state.rglob("secret"):
                    label = f"label=dev.blacktree.replicas={owner_of(state.parent, 'local')}"
                    left = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True)
                    for each in left.stdout.split():
                        subprocess.run(["docker", "rm", "-f", each], capture_output=True)


async def command(farm: WholeFarm, *arguments: str, code: int = 0) -> str:
    done = await trio.to_thread.run_sync(lambda: farm.run(*arguments, code=code, seconds=90))
    return done.stdout


async def deploy(farm: WholeFarm, run: dict[str, Any], *, code: int = 0) -> str:
    path = farm.state.parent / "run.json"
    path.write_text(json.dumps(run))
    return await command(farm, "deploy", engines.BASE, "--run-file", str(path), code=code)


async def test_from_the_first_version_to_the_end(farm: WholeFarm) -> None:
    port = free_port()
    run = {
        "name": "shop",
        "ports": [{"container": 80, "host": port}],
        "health": {"http": {"port": 80}, "interval_seconds": 0.5, "start_seconds": 20},
        "restart": {"first_seconds": 0.1, "most": 2},
        "strategy": {"drain_seconds": 5, "stop_seconds": 2},
        "memory_bytes": 32 << 20,
    }
    await deploy(farm, run | {"command": httpd("one")})
    assert await get(port) == "one"
    async with load(port, 30) as running:
        await deploy(farm, run | {"command": httpd("two")})
        enough = len(running.answers) + 20
        await running.until(lambda: len(running.answers) > enough)
        assert await get(port) == "two"
        # A broken one changes nothing for who asks.
        broken = {"command": ["/bin/sh", "-c", "echo cannot find the shop; exit 9"]}
        said = await deploy(farm, run | broken, code=1)
        assert "cannot find the shop" in said + await command(farm, "logs", "--deployment", "shop")
        assert await get(port) == "two"
        await command(farm, "rollback", "shop", "1")
        enough = len(running.answers) + 20
        await running.until(lambda: len(running.answers) > enough)
        assert await get(port) == "one"
    assert running.lost == []
    told = json.loads(await command(farm, "deployment", "shop", "--json"))
    assert told["state"] == "running", told
    await command(farm, "deployments", "delete", "shop", code=2)
    assert [each["state"] for each in told["versions"]].count("failed") == 1
    await command(farm, "stop", "shop")
    with pytest.raises(OSError):
        await get(port)
    told = json.loads(await command(farm, "deployment", "shop", "--json"))
    assert told["state"] == "stopped", told
    assert await command(farm, "deployments", "delete", "shop") == "deployment shop deleted\n"
    assert json.loads(await command(farm, "deployments", "--json")) == {"deployments": []}

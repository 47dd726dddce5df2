"""A pool of containers, from the image that the repository builds: grown, used, found after a kill, and taken away."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from blacktree.providers.scaling.containers import FARM, POOL, WORKER
from tests.parts import engine as engines
from tests.parts.blacktree_image import blacktree_image
from tests.parts.farm import SLOW, Farm, a_spec, open_farm, submit, until_state

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(280)]

RULES: dict[str, Any] = {
    "provider": "containers",
    "maximum": 2,
    "slots": 1,
    "wait_seconds": 0.5,
    "idle_seconds": 1,
    "up_cooldown_seconds": 0.5,
    "down_cooldown_seconds": 1,
}
ENVIRONMENT = {
    "BLACKTREE_WORKER_PROVIDER": "scripted",
    "BLACKTREE_WORKER_STEPS": "build",
    "BLACKTREE_WORKER_MINIMUM_FREE_DISK_BYTES": "0",
}


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not engines.answers("/var/run/docker.sock"):
        if os.environ.get("CI") == "true":
            pytest.fail("no container engine answers")
        pytest.skip("no container engine answers")
    with blacktree_image(tmp_path_factory.mktemp("image")) as name:
        yield name


def test_the_image_of_compose_yaml(image: str) -> None:
    """It runs as nobody in particular, in a file system that cannot be written, and finds its settings."""
    confined = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp", "--network", "none"]
    assert '"/var/lib/blacktree"' in docker(*confined, image, "config", "--json")
    assert docker(*confined, "--entrypoint", "id", image, "-u").strip() == "10001"


@pytest.fixture
def farm(image: str) -> Iterator[Farm]:
    with open_farm(orchestrator={"lease_seconds": 20}) as farm:
        options = {"image": image, "environment": ENVIRONMENT}
        farm.environ |= {
            "BLACKTREE_SCALING_POOLS": json.dumps({"default": RULES | {"options": options}}),
            "BLACKTREE_SCALING_INTERVAL_SECONDS": "0.3",
        }
        try:
            yield farm
        finally:
            farm.close()
            remove(image)


def workers(image: str) -> list[str]:
    return docker("ps", "-a", "--filter", f"ancestor={image}", "--format", "{{.Names}}").split()


def remove(image: str) -> None:
    """All containers of this image: it is of this test, so they are."""
    if left := workers(image):
        # One may end, and go, by itself meanwhile.
        subprocess.run(["docker", "rm", "-f", *left], capture_output=True, check=False)
        docker("volume", "rm", "-f", *left)


async def until(farm: Farm, fits: Callable[[], Any]) -> None:
    try:
        with trio.fail_after(SLOW):
            while not fits():
                await trio.sleep(0.2)
    except trio.TooSlowError:
        raise AssertionError(farm.said()) from None


async def test_a_pool_of_containers(farm: Farm, image: str) -> None:
    """From none to one and back; the orchestrator killed with a build running on the one; nothing is left."""
    await farm.up()
    assert workers(image) == []
    async with farm.client() as client:
        job_id = await submit(client, a_spec({"step": "1", "until": "/tmp/go"}), "long")
        await until_state(client, job_id, "running")
        (name,) = workers(image)
        labels = json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", name))
        assert (labels[POOL], labels[WORKER]) == ("default", name)
        farm.orchestrator.kill()
        # As if it had been killed between creating a container and starting it.
        lost = f"{name}-lost"
        labelled = [f"--label={FARM}={labels[FARM]}", f"--label={POOL}=default", f"--label={WORKER}={lost}"]
        docker("create", "--name", lost, *labelled, image)
        await farm.up(farm.orchestrator)
        docker("exec", name, "touch", "/tmp/go")
        job = await until_state(client, job_id, "succeeded")
        assert (job["attempt"], job["worker_id"]) == (1, name)
        await until(farm, lambda: workers(image) == [])
        assert name not in docker("volume", "ls", "-q").split()
        with trio.fail_after(SLOW):
            while await client.workers():
                await trio.sleep(0.1)


async def test_an_image_that_is_no_worker_is_told(farm: Farm, image: str) -> None:
    """It ends at once, again and again: pauses, reasons, no heap of dead containers."""
    base = engines.ensure_base("/var/run/docker.sock")
    useless = f"{image}-useless"
    dockerfile = f"FROM {base}\nLABEL of={useless}\n".encode()
    subprocess.run(["docker", "build", "-q", "-t", useless, "-"], input=dockerfile, capture_output=True, check=True)
    rules = RULES | {"options": {"image": useless, "environment": ENVIRONMENT}}
    farm.environ["BLACKTREE_SCALING_POOLS"] = json.dumps({"default": rules})
    farm.orchestrator.start()
    try:
        await farm.ready()
        async with farm.client() as client:
            job_id = await submit(client, a_spec({"step": "1"}), "never")
            await farm.ready("degraded")
            with trio.fail_after(SLOW):
                while "no worker could be started, again in" not in str((await client.job(job_id))["waiting"]):
                    await trio.sleep(0.1)
            assert len(workers(useless)) <= 2
            await client.cancel(job_id)
    finally:
        farm.close()
        remove(useless)
        docker("rmi", "-f", useless)

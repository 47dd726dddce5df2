"""Jobs by queue, from the message to the image: real RabbitMQ, git host, engine; and docs/queue.md as told."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from blacktree.concurrency.threads import in_thread
from tests.parts.build_farm import LABEL, BuildFarm, nonce, open_build_farm, open_engine
from tests.parts.engine import BASE
from tests.parts.git_server import GitServer, commit_files, git_server, make_repository
from tests.parts.rabbit import open_rabbit, require_rabbitmq
from tests.parts.registry import Registry, can_start_registries, registry
from tests.parts.stranger import Got, Stranger
from tests.parts.truth import ended_once
from tests.parts.written import contents
from tests.system.test_readme import block_with

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.registry, pytest.mark.timeout(150)]

TOKEN = "gho_16C7e42F292c6912E7710c838347Ae178B4a"


@dataclass
class World:
    """A farm on RabbitMQ, a git host that wants the token, and somebody with an AMQP client."""

    farm: BuildFarm
    root: Path
    host: GitServer
    url: str
    stranger: Stranger
    registry: Registry

    def repository(self, *lines: str) -> Path:
        """As `owner/NAME.git` on the host; its image goes with the farm's others."""
        text = "\n".join([f"FROM {BASE}", f"LABEL {LABEL}={self.farm.mark}", *lines, ""])
        bare = make_repository(self.root / "owner" / f"{nonce()}.git", {"sub/app/Dockerfile": text})
        return bare

    def message(self, repository: Path, **changes: Any) -> dict[str, Any]:
        return {
            "deploymentId": f"d-{nonce()}",
            "token": TOKEN,
            "repository": f"owner/{repository.stem}",
            "branch": "main",
            "dockerFilePath": "Dockerfile",
            "contextDir": "sub/app",
            "createdAt": "2026-03-04T12:00:00.000Z",
            **changes,
        }

    async def result(self) -> Got:
        [told] = await self.stranger.take("status.queue", seconds=60)
        return told

    def written(self) -> bytes:
        """All that the farm wrote: its state, mirrors, logs, and what it said."""
        return b"".join(contents(self.farm.state, self.farm.farm.log).values())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require_rabbitmq()
    if not can_start_registries():
        pytest.skip("docker-registry is not installed")
    home = tmp_path_factory.mktemp("queue")
    root = home / "host"
    root.mkdir()
    with open_engine() as socket, git_server(root) as host, open_rabbit() as rabbit, registry() as images:
        host.login = f"x-access-token:{TOKEN}"
        settings = {
            "BLACKTREE_ORCHESTRATOR_BROKER_URL": rabbit.url,
            "XDG_CONFIG_HOME": str(home / "config"),  # where `up` makes its key
            "BLACKTREE_QUEUE_REPOSITORY_BASE_URL": f"{host.url}/",
            "BLACKTREE_QUEUE_PUSH_PREFIX": f"{images.host}/team",
            "BLACKTREE_WORKER_STEPS": "sync,build,tag,push",
        }
        with open_build_farm(home, socket, **settings) as farm:
            yield World(farm, root, host, rabbit.url, Stranger(rabbit.url), images)


async def test_the_original_systems_message_becomes_an_image(world: World) -> None:
    """Its token opens the repository, and is found nowhere: in no file, no argument, no log, no answer."""
    path = world.repository(f"RUN echo hello; echo {TOKEN}; sleep 1.5; echo {nonce()}")
    message = world.message(path)
    seen: list[str] = []
    await world.stranger.publish(message)
    async with world.farm.client() as client:
        with trio.fail_after(80):
            while True:
                for line in await in_thread(_command_lines):
                    if TOKEN in line:
                        seen.append(line)
                listed = (await client.jobs(limit=5))["jobs"]
                if any(job["id"] == message["deploymentId"] and job["finished_at"] for job in listed):
                    break
        told = await world.result()
        job = await ended_once(client, message["deploymentId"])
        log = (await client.events(message["deploymentId"], 1))["events"]
    assert told.value["success"], told.value
    name = f"team/blacktree/{message['deploymentId']}"
    assert told.value["imageUrl"] == f"{world.registry.host}/{name}:{job['commit'][:12]}"
    # As whoever deploys it would ask.
    address = f"http://{world.registry.host}/v2/{name}/manifests/{job['commit'][:12]}"
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    async with httpx.AsyncClient(timeout=40) as web:
        answer = await web.get(address, headers=accept)
    assert answer.headers["Docker-Content-Digest"] == job["image"]["digest"]
    assert answer.json()["config"]["digest"] == job["image"]["id"]
    assert "hello" in told.value["logs"]
    assert "***" in told.value["logs"]
    # The engine shows the RUN's own words in its process, which are the repository's, not ours.
    assert [line for line in seen if "echo hello" not in line] == []
    for place in (told.body, json.dumps(job).encode(), json.dumps(log).encode(), world.written()):
        assert TOKEN.encode() not in place.replace(f"echo {TOKEN}".encode(), b"")


def _command_lines() -> list[str]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.append(Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                pass
    return found


async def test_a_wrong_token_is_told_and_not_shown(world: World) -> None:
    path = world.repository()
    message = world.message(path, token="gho_theWrongOne")
    await world.stranger.publish(message)
    told = await world.result()
    assert (told.value["success"], told.value["imageUrl"]) == (False, None)
    assert told.value["job"]["error"]["code"] == "credentials_needed"
    assert b"gho_theWrongOne" not in told.body
    assert b"gho_theWrongOne" not in world.written()


async def test_the_token_is_for_its_own_repository_alone(world: World) -> None:
    """A submodule could name any other one of the same host."""
    other, path = world.repository(), world.repository()
    url = f"{world.host.url}/owner/{other.name}"
    commit = commit_files(other, {"private": "x"})
    commit_files(path, {".gitmodules": f'[submodule "m"]\n\tpath = m\n\turl = {url}\n'})
    for words in (("update-index", "--add", "--cacheinfo", f"160000,{commit},m"), ("commit", "-qm", "link")):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@x", *words], cwd=path, check=True, capture_output=True
        )
    await world.stranger.publish(world.message(path))
    told = await world.result()
    assert told.value["job"]["error"]["code"] == "credentials_needed", told.value


async def test_a_spec_becomes_an_image(world: World) -> None:
    path = world.repository("RUN echo direct")
    job_id = f"direct-{nonce()}"
    spec = {"repository": str(path), "context": "sub/app", "image": f"blacktree-test/{nonce()}", "tags": ["one"]}
    await world.stranger.publish({"id": job_id, "spec": spec}, {"id": job_id, "spec": spec})
    told = await world.result()
    assert told.value["deploymentId"] == job_id
    assert told.value["imageUrl"] == f"{spec['image']}:one"
    assert world.farm.image(told.value["imageUrl"])["Id"] == told.value["job"]["image"]["id"]
    assert await world.stranger.rest("status.queue") == []


async def test_the_publisher_of_the_documentation(world: World, tmp_path: Path) -> None:
    program = tmp_path / "publish.py"
    program.write_text(block_with("docs/queue.md", "python", "import aio_pika"))
    path = make_repository(tmp_path / "app", {"Dockerfile": f"FROM {BASE}\nLABEL {LABEL}={world.farm.mark}\n"})
    command = [sys.executable, "-I", str(program), world.url, str(path)]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith("example/app:")


async def test_the_bodies_of_the_documentation_are_taken_as_told(world: World) -> None:
    """The hosts in them cannot be reached from here; what is wrong with a body would be told before that."""
    for words in ('"spec"', '"token"'):
        body = json.loads(block_with("docs/queue.md", "json", words).replace("gho_…", TOKEN))
        # No host: this one fails at the clone.
        if "spec" in body:
            body["spec"]["repository"] = str(world.root / "nothing-here")
        await world.stranger.publish(body)
        told = await world.result()
        assert told.value["deploymentId"] in (body.get("id"), body.get("deploymentId"))
        assert told.value["job"]["error"]["step"] == "sync", told.value
    assert await world.stranger.rest("execute.dead") == []

"""A job straight from RabbitMQ, with a token, while the orchestrator dies: cloned with it, built once, told once."""

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from blacktree.cipher import new_key
from blacktree.orchestrator.clonetokens import KIND
from tests.parts.farm import SLOW, Farm, open_farm, until_state
from tests.parts.git_server import GitServer, git_server, make_repository
from tests.parts.rabbit import RabbitNode, open_rabbit, require_rabbitmq
from tests.parts.stranger import Stranger
from tests.parts.truth import ended_once, told_once

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]

TOKEN = "gho_16C7e42F292c6912E7710c838347Ae178B4a"


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitNode]:
    require_rabbitmq()
    with open_rabbit() as node:
        yield node


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    root = tmp_path_factory.mktemp("host")
    make_repository(root / "owner" / "app.git")
    with git_server(root) as server:
        server.login = f"x-access-token:{TOKEN}"
        yield server


@pytest.fixture(scope="module")
def farm(rabbit: RabbitNode, host: GitServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for all the deaths. Its worker really clones, and follows scripts instead of building."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(new_key().text() + "\n")
    key.chmod(0o600)
    settings = {"broker_url": rabbit.url, "lease_seconds": 20, "secrets_key_file": key}
    with open_farm(orchestrator=settings) as farm:
        farm.environ["BLACKTREE_QUEUE_REPOSITORY_BASE_URL"] = f"{host.url}/"
        farm.worker("one", steps="sync,build")
        yield farm


def kept(state: Path) -> int:
    with sqlite3.connect(state / "blacktree.db") as connection:
        count: int = connection.execute("SELECT count(*) FROM document WHERE kind = ?", (KIND,)).fetchone()[0]
        return count


PLACES = [
    "before-commit:assigned",
    "in-commit:assigned",
    "after-commit:assigned",
    "before-settle",
    "after-run-job",
    "in-commit:succeeded",
]


@pytest.mark.parametrize("place", PLACES)
async def test_the_orchestrator_dies(farm: Farm, rabbit: RabbitNode, place: str) -> None:
    await farm.up()
    assert (await farm.ready("ready"))["reasons"] == []
    job_id = place.replace(":", "-")
    message = {
        "deploymentId": job_id,
        "token": TOKEN,
        "repository": "owner/app",
        "branch": "main",
        "dockerFilePath": "Dockerfile",
        "contextDir": ".",
        "createdAt": "2026-03-04T12:00:00.000Z",
    }
    farm.arm(place)
    await Stranger(rabbit.url).publish(message)
    assert await farm.orchestrator.ended() == -signal.SIGKILL
    farm.orchestrator.start()
    await farm.ready()
    async with farm.client() as client:
        with trio.fail_after(SLOW):
            while not any(job["id"] == job_id for job in (await client.jobs(limit=50))["jobs"]):
                await trio.sleep(0.02)
        await until_state(client, job_id, "succeeded", "failed", "lost")
        job = await ended_once(client, job_id)
        assert (job["state"], job["tries"]) == ("succeeded", 0), job
        await told_once(rabbit.url, {job_id: job})
    with trio.fail_after(SLOW):
        while kept(farm.state):
            await trio.sleep(0.02)
    assert TOKEN not in farm.said()

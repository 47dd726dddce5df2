"""A whole farm that builds for real: `blacktree up` with git and an engine, and what is asked of it by a client."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from blacktree.client import Client
from tests.parts import engine as engines
from tests.parts.whole_farm import WholeFarm, open_whole_farm

LABEL = "blacktree-test.run"


def nonce() -> str:
    """A word that no other run has used."""
    return f"n{secrets.token_hex(6)}"


@dataclass
class Ended:
    """A job that has ended, and all of its events."""

    job: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def state(self) -> str:
        return str(self.job["state"])

    @property
    def error(self) -> dict[str, Any]:
        assert self.job["error"] is not None, self.job
        found: dict[str, Any] = self.job["error"]
        return found

    @property
    def lines(self) -> list[str]:
        return [event["line"] for event in self.events if event["type"] == "log"]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def notices(self, code: str) -> list[str]:
        return [event["text"] for event in self.events if event["type"] == "notice" and event["code"] == code]

    def step(self, part: str) -> dict[str, Any]:
        """The one step whose name holds `part`."""
        found = [step for step in self.job["steps"] if part in step["name"]]
        assert len(found) == 1, (part, self.job["steps"])
        step: dict[str, Any] = found[0]
        return step


class BuildFarm:
    """One `up` with the real steps on a real engine. Its images bear a label of this run and go with it."""

    def __init__(self, farm: WholeFarm, socket: str) -> None:
        self.farm = farm
        self.socket = socket
        self.mark = nonce()
        self.state = farm.state

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def client(self) -> Client:
        return Client(self.farm.url, self.token, patience_seconds=20)

    async def submit(self, repository: str | Path, **spec: Any) -> dict[str, Any]:
        """A job on record."""
        async with self.client() as client:
            return await client.submit(self._spec(repository, spec))

    async def build(self, repository: str | Path, *, seconds: float = 40, **spec: Any) -> Ended:
        """Submit it and follow it to its end."""
        with trio.fail_after(seconds):
            async with self.client() as client:
                job = await client.submit(self._spec(repository, spec))
                return await self.follow(job["id"], client)

    async def built(self, repository: str | Path, **spec: Any) -> Ended:
        """A build that must succeed."""
        ended = await self.build(repository, **spec)
        assert ended.state == "succeeded", (ended.job, ended.text[-2000:], self.farm.log.read_text()[-2000:])
        return ended

    async def failed(self, repository: str | Path, code: str, **spec: Any) -> Ended:
        """A build that must fail with this code, a message and advice."""
        ended = await self.build(repository, **spec)
        assert ended.state == "failed", ended.job
        assert ended.error["code"] == code, ended.error
        assert ended.error["message"]
        assert ended.error["advice"], ended.error
        return ended

    async def follow(self, job_id: str, client: Client) -> Ended:
        """Its events from the first to the last, without a gap, and the job at its end."""
        events: list[dict[str, Any]] = []
        async with client.watch(job_id) as watch:
            async for batch in watch:
                events += batch.events
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            return Ended(watch.job, events)

    def _spec(self, repository: str | Path, spec: dict[str, Any]) -> dict[str, Any]:
        labels = {LABEL: self.mark, **spec.pop("labels", {})}
        return {"repository": str(repository), "labels": labels, **spec}

    # The engine, by the operator's own command

    def docker(self, *words: str, code: int | None = 0, config: Path | None = None) -> str:
        environ = os.environ | {"DOCKER_HOST": f"unix://{self.socket}"}
        if config is not None:
            environ["DOCKER_CONFIG"] = str(config)
        done = subprocess.run(["docker", *words], env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert code is None or done.returncode == code, (words, done.stderr)
        return done.stdout.strip()

    def image(self, name: str) -> dict[str, Any]:
        """What the engine says of an image."""
        found: dict[str, Any] = json.loads(self.docker("image", "inspect", name))[0]
        return found

    def left_of(self, *words: str) -> list[str]:
        """Containers and processes that name one of these words, and job directories."""
        left = [
            line
            for line in self.docker("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Command}}").splitlines()
            if any(word in line for word in words)
        ]
        for word in words:
            left += [f"process {pid}" for pid in engines.processes_with(word)]
        work = self.state / "worker" / "work"
        left += [str(path) for path in work.iterdir()] if work.exists() else []
        return left

    def dangling(self) -> list[str]:
        """Images of this run without a name."""
        of_this_run = f"label={LABEL}={self.mark}"
        return self.docker("images", "-q", "--filter", "dangling=true", "--filter", of_this_run).splitlines()

    async def nothing_left_of(self, *words: str) -> None:
        """At a job's end there is nothing of it; images that lost their name to a younger one go with a sweep."""
        assert self.left_of(*words) == []
        with trio.fail_after(40):
            while await trio.to_thread.run_sync(self.dangling):
                await trio.sleep(0.2)

    def close(self) -> None:
        """Remove the images that this run made."""
        images = set(self.docker("images", "-q", "--filter", f"label={LABEL}={self.mark}").split())
        if images:
            self.docker("image", "rm", "-f", *images, code=None)


@contextmanager
def open_build_farm(home: Path, socket: str, **environ: str) -> Iterator[BuildFarm]:
    """A running farm on the engine behind `socket`, with two slots."""
    settings = {
        "BLACKTREE_WORKER_PROVIDER": "docker",
        "BLACKTREE_WORKER_STEPS": "sync,build,tag",
        "BLACKTREE_WORKER_ENGINE": socket,
        "BLACKTREE_ORCHESTRATOR_RETRY_FIRST_SECONDS": "0.1",
        "BLACKTREE_ORCHESTRATOR_MINIMUM_FREE_DISK_BYTES": "0",
        **environ,
    }
    with open_whole_farm(home, **settings) as whole:
        whole.start()
        farm = BuildFarm(whole, socket)
        try:
            yield farm
            assert whole.stop() == 0, whole.log.read_text()[-3000:]
        finally:
            farm.close()


@contextmanager
def open_engine() -> Iterator[str]:
    """The socket of an engine that has the base image."""
    with engines.engine() as socket:
        engines.ensure_base(socket)
        yield socket

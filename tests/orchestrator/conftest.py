"""`house`: a real orchestrator with real gRPC, an embedded broker, and toy workers on unix sockets."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from blacktree.cipher import Key
from blacktree.concurrency.island import open_island
from blacktree.config import (
    Config,
    DoorConfig,
    NotificationsConfig,
    OrchestratorConfig,
    QueueConfig,
    ScalingConfig,
    WebhooksConfig,
)
from blacktree.job import Job, JobState
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.daemon import serve
from blacktree.spec import JobSpec
from tests.parts.toy_worker import ToyWorker

TOKEN = "join-token-of-the-test"
SHORT_LEASE = {"lease_seconds": 5.0}
"""For a test that sees a lease run out. All others have one that no slow machine uses up."""


@dataclass
class House:
    """What a test may do with a running orchestrator."""

    control: Control
    address: str
    directory: Path
    stop: trio.Event
    ended: trio.Event
    nursery: trio.Nursery = field(repr=False)

    async def worker(self, *args: Any, **options: Any) -> ToyWorker:
        """A worker that joins and stays until the test ends."""
        worker = ToyWorker(*args, **options)
        await self.nursery.start(partial(worker.run, self.address, TOKEN, self.directory))
        # The orchestrator has to reach it too before it gets anything.
        while any(view.id == worker.id and "reached" in view.refusal for view in self.control.workers()):
            await trio.sleep(0.005)
        return worker

    async def submit(self, **spec: Any) -> str:
        view, _ = await self.control.submit(JobSpec(repository=spec.pop("repository", "https://x/y"), **spec))
        return view.job.id

    async def until(self, job_id: str, *states: str) -> Job:
        """The job once it is in one of these states."""
        version = 0
        while True:
            job = (await self.control.job(job_id)).job
            if job.state in states:
                return job
            version = await self.control.farm_changed(version)

    async def finished(self, job_id: str) -> Job:
        return await self.until(job_id, "succeeded", "failed", "canceled", "timed_out", "lost")

    async def states(self, job_id: str) -> list[str]:
        events = await self.events(job_id)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        return [event["to"] for event in events if event["type"] == "state"]

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        seq = 1
        while (piece := await self.control.events(job_id, seq, 1000)).count:
            found += msgspec.json.decode(b"[" + piece.body + b"]")
            seq = piece.next_seq
        return found


OpenHouse = Callable[..., Any]


def a_config(directory: Path, *, memory: bool = False, **settings: Any) -> Config:
    token = directory / "join-token"
    token.write_text(TOKEN)
    settings.setdefault("shutdown_grace_seconds", 0.2)
    settings.setdefault("lease_seconds", 60.0)
    settings.setdefault("retry_first_seconds", 0.05)
    queue = QueueConfig(**settings.pop("queue", {}))
    door = DoorConfig(**settings.pop("door", {}))
    webhooks = WebhooksConfig(**settings.pop("webhooks", {}))
    notifications = NotificationsConfig(**settings.pop("notifications", {}))
    notify = settings.pop("notify", {})
    sources = settings.pop("sources", {})
    scaling = settings.pop("scaling", ScalingConfig())
    return Config(
        orchestrator=OrchestratorConfig(
            state_directory="" if memory else str(directory / "state"),
            grpc_listen=f"unix:{directory}/farm.sock",
            join_token_file=str(token),
            **settings,
        ),
        queue=queue,
        door=door,
        webhooks=webhooks,
        notifications=notifications,
        notify=notify,
        sources=sources,
        scaling=scaling,
    )


@asynccontextmanager
async def open_house(directory: Path, *, keys: Sequence[Key] = (), **settings: Any) -> AsyncIterator[House]:
    """An orchestrator; `keys`: those of its secrets."""
    controls: list[Control] = []

    def doors(control: Control) -> list[Any]:
        controls.append(control)
        return []

    stop, ended = trio.Event(), trio.Event()
    providers = settings.pop("open_worker_provider", None)
    config = a_config(directory, **settings)

    async def run(*, task_status: trio.TaskStatus[str]) -> None:
        place = KeyPlace(what="a test", fixed=tuple(keys))
        await serve(
            config,
            doors=doors,
            signals=False,
            stop=stop,
            key_place=lambda _: place,
            open_worker_provider=providers,
            task_status=task_status,
        )
        ended.set()

    # The toy workers' own gRPC lands on an island of its own, outside the house.
    async with open_island(), trio.open_nursery() as nursery:
        address = await nursery.start(run)
        with trio.fail_after(90):
            yield House(controls[0], address, directory, stop, ended, nursery)
            # Workers are there while the house ends: builds are handed back to them.
            stop.set()
            await ended.wait()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, memory=True) as opened:
        yield opened


__all__ = ["SHORT_LEASE", "House", "JobState", "open_house"]

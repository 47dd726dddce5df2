"""A small `Control` over the memory store: every promise kept, no workers. What the door is tested with."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from blacktree.api.door import Door
from blacktree.cipher import new_key
from blacktree.clock import new_id, now
from blacktree.config import DoorConfig
from blacktree.errors import Conflict, NotFound, Unavailable
from blacktree.event import FarmEvent, Lines, Record, StateChanged
from blacktree.job import Job, JobState, move
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator.audit import Audit
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.control import Follow, Found, JobView, QueueView, Readiness, Slice, WorkerView
from blacktree.orchestrator.journal import Journal, stored
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.notifier import Notifier
from blacktree.orchestrator.notifydesk import NotifyDesk
from blacktree.orchestrator.sources import Sources
from blacktree.orchestrator.targets import Targets
from blacktree.orchestrator.tokens import Tokens
from blacktree.orchestrator.vault import Vault
from blacktree.spec import JobSpec
from blacktree.storage.base import Decide, Decision
from blacktree.storage.memory import MemoryStore
from tests.parts.no_deployments import NoDeployments

TOKEN = "a-token-of-some-length"
SPEC: dict[str, Any] = {"repository": "https://example.test/team/app.git"}


class Little:
    """Jobs start as queued; the test moves them on with `print` and `finish`."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal = Journal(self.store)
        self.store.listen(self.journal.on_commit)
        self.keyring = Keyring(KeyPlace(what="a test", fixed=(new_key(),)))
        self.secrets = Vault(self.store, self.keyring)
        self.tokens = Tokens(self.store)
        self.audit = Audit(self.store, days=30)
        self.sources = Sources(self.store, Chronicle(self.store), {}, set())
        targets, chronicle = Targets(self.store, {}), Chronicle(self.store)
        self.notifier = Notifier(
            self.store,
            targets,
            self.secrets,
            chronicle,
            first_seconds=1.0,
            limit_seconds=1.0,
            patience_seconds=60.0,
            maximum_waiting=10,
        )
        self.notify = NotifyDesk(targets, self.notifier, chronicle)
        self.deployments = NoDeployments()
        self.state = Readiness(state="ready", reasons=[])
        self.slow_cancel = False
        self.canceling = False
        self.actors: list[str] = []
        self.drained: set[str] = set()
        self.explode = False

    async def submit(self, spec: JobSpec, *, key: str | None = None, actor: str = "") -> tuple[JobView, bool]:
        if self.state.state == "draining":
            raise Unavailable("the farm is draining", code="draining", retry_after_seconds=7)
        if self.explode:
            raise ValueError("nobody foresaw this")
        if key is not None:
            if spec.idempotency_key not in (None, key):
                raise Conflict("two different keys")
            spec = msgspec.structs.replace(spec, idempotency_key=key)
        self.actors.append(actor)
        time = now()
        job = Job(id=new_id(), state=JobState.QUEUED, spec=spec, created_at=time, queued_at=time)
        commit = await self.store.create(job, [StateChanged(time, 0, "", "queued")], [])
        return JobView(job=commit.job, waiting="no worker in pool `default`"), commit.changed

    async def job(self, job_id: str) -> JobView:
        return JobView(job=await self.store.get(job_id))

    async def jobs(self, states: Collection[JobState], *, limit: int = 50, cursor: str | None = None) -> Found:
        page = await self.store.find(states, limit=limit, cursor=cursor)
        return Found(jobs=[JobView(job=job) for job in page.jobs], cursor=page.cursor)

    async def cancel(self, job_id: str, *, reason: str = "", actor: str = "") -> JobView:
        job = await self.store.get(job_id)
        if not job.ended and not self.slow_cancel:
            await self.finish(job_id, JobState.CANCELED)
        elif not job.ended:
            await self.store.change(job_id, lambda job: to_state(job, JobState.ASSIGNED))
            await self.store.change(job_id, lambda job: to_state(job, JobState.CANCELING))
            self.canceling = True
        return JobView(job=await self.journal.wait_ended(job_id))

    async def retry(self, job_id: str, *, actor: str = "") -> JobView:
        job = await self.store.get(job_id)
        if not job.ended:
            raise Conflict(f"job {job_id} has not ended")
        time = now()
        spec = msgspec.structs.replace(job.spec, idempotency_key=None)
        again = Job(id=new_id(), state=JobState.QUEUED, spec=spec, created_at=time, queued_at=time, retry_of=job_id)
        return JobView(job=(await self.store.create(again, [StateChanged(time, 0, "", "queued")], [])).job)

    async def events(self, job_id: str, from_seq: int, limit: int) -> Slice:
        return await stored(self.store, job_id, from_seq, limit)

    def follow(self, job_id: str, from_seq: int) -> AbstractAsyncContextManager[Follow]:
        return self.journal.follow(job_id, from_seq)

    async def records(self, job_id: str, from_seq: int, limit: int) -> list[tuple[int, Record]]:
        return await self.store.read(job_id, from_seq, limit=limit)

    async def text_size(self, job_id: str) -> int:
        return await self.store.text_size(job_id)

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes:
        return await self.store.read_text(job_id, offset, max_bytes)

    def workers(self) -> list[WorkerView]:
        return [_worker("draining" if "w1" in self.drained else "free")]

    async def drain(self, worker_id: str, drain: bool, *, actor: str = "") -> WorkerView:
        if worker_id != "w1":
            raise NotFound(f"no worker {worker_id}")
        (self.drained.add if drain else self.drained.discard)(worker_id)
        self.journal.touch()
        return self.workers()[0]

    async def queue(self) -> QueueView:
        counts = await self.store.counts()
        return QueueView(kind="embedded", connected=True, reason="", queued={"default": counts.get(JobState.QUEUED, 0)})

    async def counts(self) -> dict[JobState, int]:
        return await self.store.counts()

    def readiness(self) -> Readiness:
        return self.state

    async def farm_events(self, from_seq: int, limit: int) -> list[FarmEvent]:
        return await self.store.noted(from_seq, limit=limit)

    async def farm_changed(self, since: int) -> int:
        return await self.journal.wait_changed(since)

    def figures(self) -> dict[str, Any]:
        return {
            "commits_total": self.journal.commits,
            "jobs": {"queued": 3, 'odd"one': 1},
            "uptime_seconds": 1.5,
        }

    # What a worker would do.

    async def new_job(self, **spec: Any) -> str:
        return (await self.submit(msgspec.convert({**SPEC, **spec}, JobSpec)))[0].job.id

    async def print(self, job_id: str, lines: Sequence[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        await self.store.change(job_id, lambda job: Decision(job=job, records=(Lines(now(), 1, "s1", "out", text),)))

    async def finish(self, job_id: str, state: JobState = JobState.SUCCEEDED) -> None:
        path = {
            JobState.CANCELED: [JobState.CANCELED],
            JobState.SUCCEEDED: [JobState.ASSIGNED, JobState.RUNNING, JobState.SUCCEEDED],
        }[state]
        job = await self.store.get(job_id)
        for step in path if job.state == JobState.QUEUED else path[-1:]:
            await self.store.change(job_id, _to(step))


def _to(state: JobState) -> Decide:
    return lambda job: to_state(job, state)


def to_state(job: Job, state: JobState) -> Decision:
    """The decision that moves a job one step."""
    return Decision(job=move(job, state), records=(StateChanged(now(), 1, job.state, state),))


def _worker(state: str) -> WorkerView:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return WorkerView(
        id="w1",
        state=state,
        pool="default",
        labels={},
        platform="linux/amd64",
        platforms=["linux/amd64"],
        emulated=[],
        version="1",
        address="127.0.0.1:6000",
        slots=2,
        busy=0,
        jobs=[],
        refusal="",
        free_disk_bytes=1,
        engine="",
        warm=[],
        registered_at=time,
        last_seen_at=time,
    )


class House:
    """A door that serves, and what stands behind it."""

    def __init__(self, control: Little, door: Door) -> None:
        self.control = control
        self.door = door
        self.address = ""
        self.port = 0
        self.stop = trio.CancelScope()
        self.ended = trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.stop:
            async with trio.open_nursery() as nursery:
                addresses = await nursery.start(self.door.run)
                self.address = addresses[0]
                self.port = int(self.address.rpartition(":")[2])
                task_status.started()
        self.ended.set()


@asynccontextmanager
async def open_house(
    control: Little | None = None, *, listen: str = "127.0.0.1:0", seconds: float = 100, **limits: Any
) -> AsyncIterator[House]:
    """A farm's front on loopback, for so many seconds. `limits` are fields of `DoorConfig`."""
    with trio.fail_after(seconds):
        async with _open(control, listen, limits) as house:
            yield house


@asynccontextmanager
async def _open(control: Little | None, listen: str, limits: dict[str, Any]) -> AsyncIterator[House]:
    async with trio.open_nursery() as ground:
        # As in a real farm, the store is there until all who write in it have ended.
        async with trio.open_nursery() as nursery:
            if control is None:
                control = Little()
                await ground.start(control.store.run)
                await control.secrets.load()
                await nursery.start(control.audit.run)
                await nursery.start(control.notifier.run)
            door = Door(control, msgspec.structs.replace(DoorConfig(), **limits), listen=listen, token=TOKEN)
            house = House(control, door)
            await nursery.start(house.serve)
            yield house
            nursery.cancel_scope.cancel()
        ground.cancel_scope.cancel()

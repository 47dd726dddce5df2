"""What the doors may ask of the farm. The promise; `orchestrator.desk.Desk` is the answer."""

from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

import msgspec

from blacktree.event import FarmEvent, Record
from blacktree.job import Job, JobState
from blacktree.orchestrator.auditcontrol import AuditControl
from blacktree.orchestrator.deploymentcontrol import DeploymentControl
from blacktree.orchestrator.hookcontrol import HookControl, SourceControl
from blacktree.orchestrator.notifycontrol import NotifyControl
from blacktree.orchestrator.secretcontrol import SecretControl
from blacktree.orchestrator.tokencontrol import TokenControl
from blacktree.spec import JobSpec


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job and why it waits, if it does."""

    job: Job
    waiting: str | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs."""

    jobs: list[JobView]
    cursor: str | None = None


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """A replica on a worker that is drained: where it goes, or (`to` is empty) why it stays."""

    deployment: str
    version: int
    index: int
    to: str = ""
    reason: str = ""


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the outside sees it. `state`: `free`, `busy`, `draining`, `dead`; with `refusal` it takes nothing.

    `leaving`: what deployments still have on it while it is drained.
    """

    id: str
    state: str
    pool: str
    labels: dict[str, str]
    platform: str
    platforms: list[str]
    emulated: list[str]
    version: str
    address: str
    slots: int
    busy: int
    jobs: list[str]
    refusal: str
    free_disk_bytes: int
    engine: str
    warm: list[str]
    registered_at: datetime
    last_seen_at: datetime
    leaving: list[Leaving] = []


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """The broker and what waits. `queued` counts jobs on record, per pool."""

    kind: str
    connected: bool
    reason: str
    queued: dict[str, int]


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: `ready`, `starting`, `degraded` or `draining`; every reason is a sentence. Only `ready` is a 200."""

    state: str
    reasons: list[str]


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one job: `body` is encoded JSON objects joined by commas, shared by all readers."""

    body: bytes
    first_seq: int
    next_seq: int
    count: int


class Follow(Protocol):
    """One reader's place in one job's events."""

    job: Job

    def __aiter__(self) -> AsyncIterator[Slice]:
        """Slices from `from_seq` on, gapless, in order; served from memory when near the end and from the store when
        behind. Ends after the job's last event; then `job` is the ended job."""
        ...


class Control(Protocol):
    """Everything a door may do. All calls may raise `blacktree.errors`; cancelling a call that waits is safe."""

    @property
    def secrets(self) -> SecretControl:
        """The secret store."""
        ...

    @property
    def tokens(self) -> TokenControl:
        """Who may come in."""
        ...

    @property
    def audit(self) -> AuditControl:
        """Who did what."""
        ...

    @property
    def sources(self) -> SourceControl:
        """Declared sources."""
        ...

    @property
    def hooks(self) -> HookControl:
        """Webhooks."""
        ...

    @property
    def notify(self) -> NotifyControl:
        """Outgoing webhooks."""
        ...

    @property
    def deployments(self) -> DeploymentControl:
        """What is kept running."""
        ...

    async def submit(self, spec: JobSpec, *, key: str | None = None, actor: str = "") -> tuple[JobView, bool]:
        """On record when this returns; True if it is new. `key`: the Idempotency-Key header (must agree with the spec).
        Raises `Conflict`, `Unavailable` (draining, disk)."""
        ...

    async def job(self, job_id: str) -> JobView:
        """Raises `NotFound`."""
        ...

    async def jobs(self, states: Collection[JobState], *, limit: int = 50, cursor: str | None = None) -> Found: ...

    async def cancel(self, job_id: str, *, reason: str = "", actor: str = "") -> JobView:
        """Returns when the job has ended, with proof (contract.md, section 4). The caller leaving does not undo it."""
        ...

    async def retry(self, job_id: str, *, actor: str = "") -> JobView:
        """A new job with the old one's spec and commit. Raises `Conflict` while the old one has not ended."""
        ...

    async def events(self, job_id: str, from_seq: int, limit: int) -> Slice:
        """From the store; empty past the end. `limit` is clamped to 1..10,000."""
        ...

    def follow(self, job_id: str, from_seq: int) -> AbstractAsyncContextManager[Follow]:
        """Read along. Raises `NotFound` on entering."""
        ...

    async def records(self, job_id: str, from_seq: int, limit: int) -> list[tuple[int, Record]]: ...

    async def text_size(self, job_id: str) -> int: ...

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes: ...

    def workers(self) -> list[WorkerView]: ...

    async def drain(self, worker_id: str, drain: bool, *, actor: str = "") -> WorkerView:
        """Raises `NotFound`. Remembered across restarts of both sides."""
        ...

    async def queue(self) -> QueueView: ...

    async def counts(self) -> dict[JobState, int]: ...

    def readiness(self) -> Readiness: ...

    async def farm_events(self, from_seq: int, limit: int) -> list[FarmEvent]: ...

    async def farm_changed(self, since: int) -> int:
        """Waits until anything a viewer shows has changed (jobs, workers, queue, farm events) since this version;
        answers the newest version. Start with 0."""
        ...

    def figures(self) -> dict[str, Any]:
        """Numbers for `/metrics`: name → value, or name → {label value → value}."""
        ...

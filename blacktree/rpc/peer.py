"""The conversation between orchestrator and workers, once: both sides, every message, the whole contract.

Delivery: every call may fail with `PeerLost`, which tells nothing about whether it arrived; so every call may be
repeated and its second time changes nothing. Calls are made in batches (one call carries whatever gathered while
the one before was under way), because a crossing to the island costs more than a message.

Time: `lease_seconds` after the last contact, as the orchestrator counts it, nothing of an attempt is accepted any
more. The worker counts from the *sending* of its last answered contact, so it is always done earlier.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from blacktree.event import Record
from blacktree.job import Outcome
from blacktree.rpc.replica import RegistryLogin, ReplicaAck, ReplicaAnswer, ReplicaOrders, ReplicaReport
from blacktree.spec import JobSpec

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 4 << 20
MAX_REPORT_BYTES = 1 << 20


class AttemptName(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one job; `token` is the fence: whoever does not know it does not speak for the attempt."""

    job_id: str
    attempt: int
    token: str

    def __repr__(self) -> str:
        return f"{self.job_id}/{self.attempt}"


class PartImage(msgspec.Struct, frozen=True, kw_only=True):
    """One platform's image in the registry, and the tag that keeps it there until it is in the list."""

    platform: str
    digest: str
    tag: str


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A job handed to a worker. `commit` is set when an earlier attempt resolved the ref.

    `clone_token`: came with the job, for its own repository and no other. Never printed.
    `trusted` false: no push, no shared cache, none of the worker's own secrets and logins (see `job.Origin`).
    `cache_from`: what this image was last published as.
    `traceparent`: the job's own span (W3C Trace Context), if it is traced.
    `part`: it is one platform of another job, and gets no name on the engine. `parts`: all of its platforms are pushed
    and only to be put together; a worker that does not know this builds them itself.
    `logins` are the farm's, by registry host (Docker Hub is `docker.io`). They and `secrets` stay in memory.
    """

    name: AttemptName
    spec: JobSpec
    commit: str | None = None
    allow_local_sources: bool = False
    secrets: dict[str, bytes] = {}
    clone_token: str = ""
    trusted: bool = True
    cache_from: list[str] = []
    part: bool = False
    parts: list[PartImage] = []
    logins: dict[str, RegistryLogin] = {}
    traceparent: str = ""

    def __repr__(self) -> str:
        return f"Assignment({self.name!r})"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`accepted`: the worker has a slot for it, holds it, and will report on it. Else `reason` says why not, e.g.
    draining, all slots busy, disk nearly full, engine away; `code` is for programs."""

    accepted: bool
    code: str = ""
    reason: str = ""


class StopOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Stop this attempt. `why`: `canceled` (by someone), `timed_out`, `shutdown` (goes back to the queue), `fenced`."""

    name: AttemptName
    why: str
    reason: str = ""


class StopAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`known` false: nothing of this attempt runs here, and none will start: a later `run_jobs` for it is refused."""

    known: bool


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker stands. `refusal` empty: it takes builds. `warm`: repositories with a local mirror, latest first.

    `platforms`: what its engine builds natively (empty: not known yet, or a worker that does not say); `emulated`: what
    it builds besides, slowly.
    """

    slots: int
    busy: int
    refusal: str = ""
    draining: bool = False
    free_disk_bytes: int = 0
    engine: str = ""
    warm: list[str] = []
    platforms: list[str] = []
    emulated: list[str] = []


class PingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`incarnation` tells a restarted worker from the one that was registered."""

    worker_id: str
    incarnation: str
    status: WorkerStatus


class WorkerSide(Protocol):
    """What a worker answers to. Called by the orchestrator only; every call carries the join token."""

    async def run_jobs(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """RunJob. Answers at once, in order; a build's end comes by `report`. The same attempt again: the same
        answer."""
        ...

    async def stop_jobs(self, orders: Sequence[StopOrder]) -> list[StopAnswer]:
        """StopJob. Answers at once; the proof that it is gone comes as the outcome, by `report`."""
        ...

    async def ping(self) -> PingAnswer:
        """Ping. Raises `PeerLost` when nobody answers within the caller's deadline."""
        ...

    async def apply_replicas(self, orders: ReplicaOrders) -> ReplicaAck:
        """ApplyReplicas. Answers once the orders are taken; how they fare comes by `report_replicas`. Raises
        `NotAllowed` for another worker's orders (code `wrong_worker`) or where no replicas run (`no_replicas`),
        `TooLarge` when they do not fit in one message."""
        ...


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """A worker presents itself. `secret` is from its locked state directory; `incarnation` is new with every process.

    `running`: attempts that this process still holds; what it does not name is not running. `capabilities`: what a
    worker of this version can be asked for beside builds, e.g. `replicas`; unknown ones are ignored.
    """

    worker_id: str
    incarnation: str
    secret: str
    protocol: int
    version: str
    address: str
    pool: str
    labels: dict[str, str]
    platform: str
    status: WorkerStatus
    running: list[AttemptName] = []
    capabilities: list[str] = []

    def __repr__(self) -> str:
        return f"Registration({self.worker_id!r}, {self.incarnation!r})"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of an attempt: `next_batch` is the first batch the orchestrator does not have; lower ones are
    stored.

    `stop` not empty: stop it; the reasons are those of `StopOrder.why`; `fenced` means that nothing more will be
    accepted and its batches can be thrown away. `publish_seconds` above 0: names may be moved for this long,
    counted from the sending of the report that asked, but for those `withheld`: a newer job has taken them.
    """

    name: AttemptName
    next_batch: int = 1
    stop: str = ""
    publish_seconds: float = 0.0
    withheld: list[str] = []


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """The worker is in. `farm_id` names the farm: a worker keeps its things on the engine under it."""

    farm_id: str
    lease_seconds: float
    verdicts: list[Verdict] = []
    drain: bool = False


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A numbered piece of an attempt's report: from 1, each exactly as first sent. The last one bears the outcome."""

    number: int
    records: list[Record] = []
    commit: str | None = None
    outcome: Outcome | None = None


class AttemptReport(msgspec.Struct, frozen=True, kw_only=True):
    """The next batches of an attempt, in order. None: it only says that it is alive.

    `publish`: asks for the grant. `references`: the names in registries that it wants to move under it; while another
    job may be moving one of them, no grant is given.
    """

    name: AttemptName
    batches: list[Batch] = []
    publish: bool = False
    references: list[str] = []


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What happened since the last one; also the heartbeat. Every attempt that the worker holds is listed."""

    worker_id: str
    incarnation: str
    status: WorkerStatus
    attempts: list[AttemptReport] = []


class ReportAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`known` false: register again (the orchestrator was started anew, or the lease is over); nothing was stored."""

    known: bool
    verdicts: list[Verdict] = []
    drain: bool = False


class OrchestratorSide(Protocol):
    """What the orchestrator answers to. Called by workers only; every call carries the join token."""

    async def register(self, registration: Registration) -> Admission:
        """Register. Raises `NotAllowed` (wrong token, old protocol, other secret under an id whose lease holds, more
        slots than believable) with advice; `Unavailable` while starting or ending. A new incarnation with the same
        secret is a restart: attempts it does not name are lost at once."""
        ...

    async def report(self, report: Report) -> ReportAnswer:
        """Report. What the answer calls stored is durable. Renews the lease."""
        ...

    async def leave(self, worker_id: str, incarnation: str) -> None:
        """Leave. The worker has ended its builds and reported them; it takes nothing more. Repeatable."""
        ...

    async def report_replicas(self, report: ReplicaReport) -> ReplicaAnswer:
        """ReportReplicas. What the answer calls stored is durable; it says nothing of the builds' lease."""
        ...

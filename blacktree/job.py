"""A job on record, and the pure table of its moves (contract.md, section 2).

Everything here is a value: a move returns a new `Job`. Who commits first wins; the store holds to that.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from blacktree.errors import Conflict
from blacktree.spec import JobSpec


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed_out"
    LOST = "lost"


_S = JobState
MOVES: dict[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.ASSIGNED, _S.CANCELED}),
    _S.ASSIGNED: frozenset({_S.RUNNING, _S.QUEUED, _S.CANCELING, _S.LOST}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.QUEUED, _S.CANCELING, _S.LOST}),
    _S.CANCELING: frozenset({_S.CANCELED, _S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELED: frozenset(),
    _S.TIMED_OUT: frozenset(),
    _S.LOST: frozenset(),
}
ENDED: frozenset[JobState] = frozenset(state for state, to in MOVES.items() if not to)
ACTIVE: frozenset[JobState] = frozenset({_S.ASSIGNED, _S.RUNNING, _S.CANCELING})


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job or an attempt did not succeed."""

    code: str
    message: str
    advice: str = ""
    step: str | None = None
    retryable: bool = False
    exit_code: int | None = None
    last_lines: list[str] = []


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What was built: `reference` is the first full name with tag, `id` the engine's, `digest` a registry's.

    After a push `references` are the names that were moved there; `withheld` those that a newer job has taken already.
    """

    reference: str
    id: str
    digest: str | None = None
    references: list[str] = []
    withheld: list[str] = []


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One platform of a job that several workers build together: the job that builds it, and what that has pushed."""

    platform: str
    job_id: str
    digest: str = ""

    @property
    def tag(self) -> str:
        """Under which it is pushed until the whole is put together."""
        return f"bt-{self.job_id}-part"


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the current attempt, as far as it got."""

    step: str
    name: str
    attempt: int
    cached: bool = False
    seconds: float | None = None
    ok: bool | None = None
    started_at: datetime | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One hand-off that a worker accepted. `token` fences it and never leaves the farm's own daemons.

    `unproven`: its worker has reported an end, and could not show that nothing of it is left.
    """

    attempt: int
    worker_id: str
    assigned_at: datetime
    token: str = ""
    incarnation: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: str | None = None
    error: Failure | None = None
    next_batch: int = 1
    stop: str = ""
    unproven: bool = False


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job came from, when that was no person: a declared source and what happened there.

    `trusted` false (a pull request from a fork): no deployment, no secrets, no push, no shared cache.
    `allowed`: which of the last three its source allows all the same. `supersedes`: jobs with the same text of the same
    source make way for a newer one.
    """

    source: str
    event: str = ""
    branch: str = ""
    tag: str = ""
    pull_request: int | None = None
    commit: str = ""
    delivery: str = ""
    trusted: bool = True
    allowed: list[str] = []
    supersedes: str = ""

    def may(self, what: str) -> bool:
        """Whether a job from here may have `secrets`, `push`, `cache`."""
        return self.trusted or what in self.allowed


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a job on record a stream: a log that is no build's, such as what a deployment prints.

    `written`: the next batch number of each of its writers. What lies before `first_seq` (and before byte `text_first`
    of the plain log) was dropped to keep within a size.
    """

    written: dict[str, int] = {}
    first_seq: int = 1
    text_first: int = 0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job on record. `generation` counts its tickets; `tries` the attempts that were lost or may be retried.

    `parts`: the jobs that build it, one a platform, where no single worker does; each of them names it in `part_of`.
    `submitted_by`: the name of the token that asked for it at the door; empty where nobody did.
    """

    id: str
    state: JobState
    spec: JobSpec
    created_at: datetime
    queued_at: datetime
    generation: int = 1
    attempt: int = 0
    tries: int = 0
    attempts: list[Attempt] = []
    worker_id: str | None = None
    commit: str | None = None
    image: Image | None = None
    error: Failure | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    steps: list[StepRecord] = []
    retry_of: str | None = None
    origin: Origin | None = None
    cancel_reason: str | None = None
    not_before: datetime | None = None
    next_seq: int = 1
    stream: Stream | None = None
    part_of: str | None = None
    parts: list[Part] = []
    trace: str | None = None
    submitted_by: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing can change any more."""
        return self.state in ENDED

    @property
    def current(self) -> Attempt | None:
        """The attempt a worker holds now, if any."""
        return self.attempts[-1] if self.attempts and self.state in ACTIVE and not self.gathers else None

    @property
    def gathers(self) -> bool:
        """Whether its parts are being built: it is under way, and no worker holds it."""
        return self.state in ACTIVE and any(not part.digest for part in self.parts)


def move(job: Job, to: JobState, **changes: Any) -> Job:
    """The job in its next state. Raises `Conflict` (code `illegal_move`) for a move the table does not hold."""
    if to not in MOVES[job.state]:
        raise Conflict(f"job {job.id} is {job.state} and cannot become {to}", code="illegal_move")
    return msgspec.structs.replace(job, state=to, **changes)


def with_current(job: Job, **changes: Any) -> Job:
    """The job with its newest attempt changed."""
    newest = msgspec.structs.replace(job.attempts[-1], **changes)
    return msgspec.structs.replace(job, attempts=[*job.attempts[:-1], newest])


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended on its worker.

    `state` is one of `succeeded`, `failed`, `timed_out`, `canceled` (asked for, and proven gone) or
    `returned` (shutdown or drain: goes back to the queue and does not count as a try).
    `proven`: the engine has ended the build and nothing of it is left.
    """

    state: str
    image: Image | None = None
    error: Failure | None = None
    proven: bool = True

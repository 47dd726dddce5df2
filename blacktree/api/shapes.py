"""What the door answers with: one struct each. A field that is missing in an answer has its default."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from blacktree.audit import AuditEntry
from blacktree.deployment import VersionState
from blacktree.event import FarmEvent
from blacktree.notification import Target
from blacktree.orchestrator.control import QueueView, WorkerView
from blacktree.orchestrator.deploymentcontrol import ReplicaView
from blacktree.orchestrator.notifycontrol import Tried
from blacktree.orchestrator.secretcontrol import KeyView
from blacktree.role import Role
from blacktree.runspec import RunSpec
from blacktree.secret import SecretView
from blacktree.source import Source
from blacktree.told import Attempt as Attempt
from blacktree.told import Job as Job


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first. With a `cursor` there are more."""

    jobs: list[Job]
    cursor: str | None


class StateEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="state"):
    """The job moved; `from` is null for the first event."""

    seq: int
    time: datetime
    attempt: int
    previous: str | None = msgspec.field(name="from")
    to: str
    reason: str


class StepStartedEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="step_started"):
    """A step began. `step` is its id within the attempt, `name` is for people."""

    seq: int
    time: datetime
    attempt: int
    step: str
    name: str


class StepFinishedEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="step_finished"):
    """A step ended, or came from the cache."""

    seq: int
    time: datetime
    attempt: int
    step: str
    name: str
    cached: bool
    seconds: float
    ok: bool


class LogEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="log"):
    """One line. `partial`: it is a piece of a longer one, which goes on in the next event."""

    seq: int
    time: datetime
    attempt: int
    step: str
    stream: str
    line: str
    partial: bool = False


class ProgressEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """How far something is."""

    seq: int
    time: datetime
    attempt: int
    step: str
    current: int
    total: int
    unit: str


class NoticeEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="notice"):
    """Something the reader should know. `commit` comes with the code `commit`."""

    seq: int
    time: datetime
    attempt: int
    code: str
    text: str
    step: str | None = None
    commit: str | None = None


Event = StateEvent | StepStartedEvent | StepFinishedEvent | LogEvent | ProgressEvent | NoticeEvent


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events in order, without a gap; `next_seq` is where to go on."""

    events: list[Event]
    next_seq: int


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of events that fit. `next_seq`: where to go on, null at the log's end.

    If it was asked for, also the `events` (and each `step_started` passed); all before `seen_seq` was looked at.
    """

    hits: list[int]
    next_seq: int | None
    events: list[Event] | None = None
    seen_seq: int | None = None


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """Stretches of steps' output: first number, last number, step, attempt. Not `done`: go on at `next_seq`."""

    stretches: list[Annotated[list[int | str], Meta(min_length=4, max_length=4)]]
    next_seq: int
    done: bool


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the time: jobs that ended or started in it. Waits are seconds, null where nothing started."""

    succeeded: int
    failed: int
    started: int
    wait_p50: float | None
    wait_p90: float | None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The last hours, oldest part first. `complete`: no job was left out."""

    end: datetime
    bin_seconds: float
    complete: bool
    bins: list[Bin]


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """The pool."""

    workers: list[WorkerView]


class FarmEventPage(msgspec.Struct, frozen=True, kw_only=True):
    """The farm's own events; `next_seq` is where to go on."""

    events: list[FarmEvent]
    next_seq: int


class FarmInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The orchestrator's version and how it stands. A figure is a number, or numbers by name."""

    version: str
    status: str
    reasons: list[str]
    figures: dict[str, float | dict[str, float]]


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str


class Ready(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`ready`, `starting`, `degraded` or `draining`. Reasons are told only with a token."""

    status: str
    reasons: list[str] = []


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a deployment: an image and how it is run."""

    number: int
    run: RunSpec
    created_at: datetime
    state: VersionState
    image: str
    reference: str
    digest: str | None
    worker_id: str | None
    pool: str
    source: str | None
    repository: str | None
    job_id: str | None
    commit: str | None
    rollback_of: int | None
    code: str
    reason: str
    last_lines: list[str]
    running_at: datetime | None
    ended_at: datetime | None
    drain_until: datetime | None
    restarting: bool


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment; versions oldest first. `serving`: the one with the front ports; `target`: the one to take over."""

    name: str
    state: VersionState
    desired: Literal["running", "stopped"]
    serving: int | None
    target: int | None
    waiting: str | None
    versions: list[Version]
    replicas: list[ReplicaView]
    created_at: datetime
    updated_at: datetime


class Deployments(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, by name."""

    deployments: list[Deployment]


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted version: its number, where its log begins, and the job that builds it, if any."""

    deployment: Deployment
    version: int
    from_seq: int
    job: str | None


class DeploymentEventPage(EventPage, frozen=True, kw_only=True):
    """As `EventPage`; what lies before `first_seq` is not kept any more."""

    first_seq: int


class SourceView(Source, frozen=True, kw_only=True):
    """A declared source. `configured`: it is in the configuration file and can be changed only there."""

    configured: bool


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, by name."""

    sources: list[SourceView]


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, without their values, and how the farm's key stands."""

    secrets: list[SecretView]
    key: KeyView


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a webhook's delivery."""

    status: Literal["accepted", "known", "ignored", "pong"]
    delivery: str | None
    reason: str | None
    sources: list[str]


class Empty(msgspec.Struct, frozen=True):
    """Nothing more to say."""


class JobWatched(msgspec.Struct, frozen=True, kw_only=True):
    """The watch's number and the job as it is."""

    watch: int
    job: Job


class JobEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Events of a watched job, in order, without a gap."""

    watch: int
    events: list[Event]


class FarmWatched(msgspec.Struct, frozen=True, kw_only=True):
    """The newest jobs, the workers and the queue as they are."""

    watch: int
    jobs: list[Job]
    workers: list[WorkerView]
    queue: QueueView


class FarmChanged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New and changed jobs, and the other parts if they changed."""

    watch: int
    jobs: list[Job] = []
    workers: list[WorkerView] = []
    queue: QueueView | None = None


class DeploymentWatched(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment as it is, and the first number of its log that is kept."""

    watch: int
    first_seq: int
    deployment: Deployment


class DeploymentChanged(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment as it is now."""

    watch: int
    deployment: Deployment


class ErrorData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a program may want to know of an error beside its message; see docs/errors.md for the codes."""

    code: str
    advice: str = ""
    path: str = ""
    retry_after: float = 0


class RpcError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `error` member of a JSON-RPC answer."""

    code: int
    message: str
    data: ErrorData | None = None


class WatchFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A watch that was begun has ended before its time."""

    watch: int
    error: RpcError


class Problem(ErrorData, frozen=True, kw_only=True):
    """An error over HTTP (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its secret. `repositories`: patterns; none: all of them, and the farm itself."""

    id: str
    name: str
    role: Role
    created_at: datetime | None
    repositories: list[str]
    expires_at: datetime | None
    created_by: str
    revoked_at: datetime | None
    revoked_by: str
    state: Literal["valid", "expired", "revoked"]


class Oneself(Token, frozen=True, kw_only=True):
    """The token of whoever asks. `may`: the operations that it is let into, by name."""

    may: list[str]


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """The one of the state directory (id `farm`), then the others, oldest first."""

    tokens: list[Token]


class MadeToken(msgspec.Struct, frozen=True, kw_only=True):
    """A new token and its secret: what its bearer sends."""

    token: Token
    secret: str


class TokenId(msgspec.Struct, frozen=True, kw_only=True):
    """Which token."""

    id: str


class LoginLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link for one browser, and whose token it stands for."""

    url: str
    token: TokenId
    expires_at: datetime


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Acts, newest first. With a `before` there are more."""

    entries: list[AuditEntry]
    before: int | None


class TargetView(Target, frozen=True, kw_only=True):
    """A target of notifications. `waiting`: messages it has not taken; `failures`: in a row, until now."""

    configured: bool
    waiting: int
    failures: int


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """Targets, by name."""

    targets: list[TargetView]


class DeliveryLog(msgspec.Struct, frozen=True, kw_only=True):
    """The last tries to deliver to a target, newest first."""

    deliveries: list[Tried]

"""A deployment on record: a named service, its versions, and where the containers of each are placed.

Everything here is a value. How one becomes the next is decided in `orchestrator.rollout`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from blacktree.errors import BadRequest, Conflict
from blacktree.event import Notice, StateChanged
from blacktree.runspec import DeploymentName, RunSpec
from blacktree.spec import DEFAULT_POOL, PoolName

KIND = "deployment"
MAX_RUN_BYTES = 32 * 1024
MAX_VERSIONS = 20
_LAST_LINES = 20
_LINE_LENGTH = 500


ImageName = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9\[][A-Za-z0-9._/:@\[\]-]*\Z")]


class DeployImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An image to be run: one that this farm built, one of a registry, or one that lies on the worker's engine."""

    image: ImageName
    run: RunSpec
    pool: PoolName = DEFAULT_POOL


class VersionState(StrEnum):
    """Where a version stands."""

    PENDING = "pending"
    BUILT = "built"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


_S = VersionState
MOVES: dict[VersionState, frozenset[VersionState]] = {
    _S.PENDING: frozenset({_S.BUILT, _S.FAILED, _S.STOPPED}),
    _S.BUILT: frozenset({_S.RUNNING, _S.FAILED, _S.STOPPED}),
    _S.RUNNING: frozenset({_S.STOPPED, _S.FAILED}),
    # Started again by `restart`.
    _S.STOPPED: frozenset({_S.BUILT}),
    _S.FAILED: frozenset({_S.BUILT}),
}
ENDED = frozenset({_S.STOPPED, _S.FAILED})


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a deployment: an image and how it is run.

    `image` is what workers are told to run (empty until it is built): an engine's id, which only `worker_id` has, or a
    reference that every worker of the pool can pull (`pull`). `generation` is the highest given to a container of it.
    `drain_until`: it was replaced and stands by until then. `restarting`: replicas that a restart has not reached yet.
    `source` and `repository`: what it came from, which decides the secrets that it may have. `key`, `asked`: the
    idempotency key that it was asked for with, and a digest of what was asked for.
    """

    number: int
    run: RunSpec
    created_at: datetime
    state: VersionState = VersionState.PENDING
    image: str = ""
    reference: str = ""
    digest: str | None = None
    pull: bool = False
    worker_id: str | None = None
    pool: str = "default"
    source: str | None = None
    repository: str | None = None
    job_id: str | None = None
    commit: str | None = None
    rollback_of: int | None = None
    code: str = ""
    reason: str = ""
    last_lines: list[str] = []
    running_at: datetime | None = None
    ended_at: datetime | None = None
    drain_until: datetime | None = None
    generation: int = 0
    restarting: list[int] = []
    key: str = ""
    asked: str = ""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """One replica and the worker that has it. `healthy_at`: since when it is seen healthy, by the orchestrator's clock.

    `restarts`: how often its container had been started again when it was first seen healthy. `stopping`: no longer
    ordered; it stays on record until its worker has said that it is gone. `incoming`: it is to take the place of the
    one of the same index, whose worker is drained. `avoid`: workers on which such a one did not come up.
    """

    version: int
    index: int
    worker_id: str
    generation: int
    placed_at: datetime
    healthy_at: datetime | None = None
    restarts: int = 0
    stopping: bool = False
    incoming: bool = False
    avoid: list[str] = []


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something for the deployment's log that was decided together with it. Numbered from 1 without a gap."""

    number: int
    record: StateChanged | Notice


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment. `serving`: the version that has the front ports; `target`: the one that is to take over.

    `happenings`: those that may not have reached the log yet. `first_generation`: what containers of it count from, so
    that none is taken for one of a deployment of this name that was deleted. `deleted`: only its log is still to go.
    """

    name: DeploymentName
    created_at: datetime
    updated_at: datetime
    desired: Literal["running", "stopped"] = "running"
    versions: list[Version] = []
    serving: int | None = None
    target: int | None = None
    placements: list[Placement] = []
    happenings: list[Happening] = []
    next_happening: int = 1
    next_version: int = 1
    first_generation: int = 0
    deleted: bool = False

    def version(self, number: int | None) -> Version | None:
        """The version of this number, if it is (still) on record."""
        return next((each for each in self.versions if each.number == number), None)

    @property
    def state(self) -> VersionState:
        """The deployment as one word: running while a version serves, else how the newest attempt at it stands."""
        if self.serving is not None:
            return VersionState.RUNNING
        chosen = self.version(self.target) or next(iter(reversed(self.versions)), None)
        return chosen.state if chosen is not None else VersionState.PENDING

    @property
    def moving(self) -> bool:
        """Whether something is under way that time alone may bring on."""
        retiring = any(each.drain_until is not None and each.state not in ENDED for each in self.versions)
        restarting = any(each.restarting for each in self.versions)
        placing = any(each.stopping or each.incoming for each in self.placements)
        return self.target is not None or retiring or restarting or placing


encode_deployment = msgspec.msgpack.Encoder().encode
decode_deployment = msgspec.msgpack.Decoder(Deployment).decode


def move(version: Version, to: VersionState, **changes: Any) -> Version:
    """The version in its next state. Raises `Conflict` (code `illegal_move`) for a move the table does not hold."""
    if to not in MOVES[version.state]:
        raise Conflict(f"version {version.number} is {version.state} and cannot become {to}", code="illegal_move")
    return msgspec.structs.replace(version, state=to, **changes)


def short(lines: list[str]) -> list[str]:
    """Last lines as they are kept with a version."""
    return [line[:_LINE_LENGTH] for line in lines[-_LAST_LINES:]]


def check_size(run: RunSpec) -> None:
    """Raises `BadRequest` for a run spec that is too large to be kept with every version."""
    if (size := len(msgspec.msgpack.encode(run))) > MAX_RUN_BYTES:
        raise BadRequest(
            f"spec.run has {size} bytes, the limit is {MAX_RUN_BYTES}",
            path="spec.run",
            code="invalid",
            advice="put what is large into a secret or a volume",
        )


def stream_id(name: str) -> str:
    """The id of the stream that holds what this deployment prints."""
    return f"run.{name}"


def public_version(version: Version) -> dict[str, Any]:
    """A version's JSON as the outside sees it."""
    value: dict[str, Any] = msgspec.to_builtins(version)
    for hidden in ("generation", "restarting", "pull", "key", "asked"):
        value.pop(hidden)
    return value | {"restarting": bool(version.restarting)}

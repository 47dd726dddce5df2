"""What orchestrator and workers say about replicas: the containers of deployments that a worker keeps running.

Declarative: `ReplicaOrders` is the complete list of what a worker should have. The worker converges to it, drains and
stops what is not on it, and says how it stands in `ReplicaReport`: at once on every change, and at least every third of
its lease. Either side may be older: a call that the other side does not know raises `NotAllowed` (code
`not_blacktree`); a worker that knows them says `replicas` among the capabilities of its registration.

Time: `failover_seconds` of a run spec is counted by the worker from the *sending* of its last report that was answered
with `known`, by the orchestrator from when that report arrived; so the worker has stopped such replicas when the
orchestrator starts them elsewhere.
"""

from datetime import datetime
from typing import Literal, get_args

import msgspec

from blacktree.event import Record
from blacktree.runspec import RunSpec

CAPABILITY = "replicas"
# The worker leaves alone what `ReplicaOrders.kept` names.
KEEPS = "replicas-kept"
MAX_REPLICAS = 256
MAX_LOG_RECORDS = 65_536
MAX_LAST_LINES = 50
MAX_SECRET_BYTES = 512 << 10

Phase = Literal["pulling", "starting", "healthy", "unhealthy", "backing_off", "failed", "stopping", "stopped"]
PHASES: frozenset[str] = frozenset(get_args(Phase))


class ReplicaName(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Which container of which version of which deployment. `version` counts from 1, `index` from 0."""

    deployment: str
    version: int
    index: int

    def __repr__(self) -> str:
        return f"{self.deployment}/{self.version}/{self.index}"


class RegistryLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A login for one registry host. Never printed."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "RegistryLogin(***)"


class ReplicaOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One container that should run.

    `generation`: a higher one replaces the container, and begins anew where the restart budget was used up. `image`:
    with `pull` a reference (best `name@sha256:…`) that is pulled if the engine lacks it, with the login of its host
    in `logins`; else one that must be on the worker's engine. `serve`: the front ports lead to it once it is healthy;
    a change of it on several orders in one message is one step. While nobody with `serve` is healthy, the fronts go on
    leading where they led, if that still is healthy. `secrets`: values by the names in `run.secrets`.
    """

    name: ReplicaName
    generation: int
    image: str
    run: RunSpec
    pull: bool = False
    serve: bool = False
    logins: dict[str, RegistryLogin] = {}
    secrets: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"ReplicaOrder({self.name!r}, {self.generation})"


class ReplicaOrders(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `worker_id` should run. `revision` rises with every change, also across restarts of the
    orchestrator; a worker ignores a lower one than it has. `kept`: deployments of which it is not known what should
    run: what the worker was told last still holds for them (only for one that says `KEEPS`)."""

    worker_id: str
    revision: int
    orders: list[ReplicaOrder] = []
    kept: list[str] = []


class ReplicaAck(msgspec.Struct, frozen=True, kw_only=True):
    """The revision that the worker goes by now: higher than what was sent if that was out of date."""

    revision: int


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """How one replica stands. `since`: when `state` began.

    `healthy`: it passes its check (without one: it has run for a moment). `unhealthy`: it was healthy and now fails, or
    it never became healthy in `start_seconds`; it is being replaced, as after an exit, by way of `backing_off`.
    `failed`: the restart budget is used up, or trying again cannot help (no such image, a volume that is not allowed);
    only a higher generation begins anew. `stopping`: drains, then stops. `stopped`: nothing is left; said until one
    report with it was answered. `restarts` counts in this generation. `exit_code`, `oom_killed`, `last_lines` are
    of the last container that ended. `serving`: the front ports lead to it now. `reason` says why, for people; `code`
    is for programs: `port_taken`, `image_missing`, `registry_denied`, `volume_refused`, `exited`, `oom_killed`,
    `unhealthy`, `budget_used_up`, `cut_off`, `engine_lost`, … `address`: its first port on the worker, `host:port`.
    """

    name: ReplicaName
    generation: int
    state: Phase
    since: datetime
    serving: bool = False
    container: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    code: str = ""
    reason: str = ""
    last_lines: list[str] = []
    address: str = ""


class ReplicaLog(msgspec.Struct, frozen=True, kw_only=True):
    """A numbered piece of a replica's output, from 1 per name and generation, each exactly as first sent.

    The records' `attempt` is the count of containers of this generation, from 1; their `step` is empty.
    """

    name: ReplicaName
    generation: int
    number: int
    records: list[Record] = []


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """How all replicas of the worker stand; what is not named is not there. `revision`: the orders it goes by. 0: it
    has none, and leaves what runs as it is until some come; or it has cut some replicas off for want of contact, which
    start again only when orders come anew. So whoever reads a revision that is not the present one sends orders.

    `logs`: the next pieces of output, in order; also of replicas that are gone."""

    worker_id: str
    incarnation: str
    revision: int
    states: list[ReplicaState] = []
    logs: list[ReplicaLog] = []


class ReplicaStored(msgspec.Struct, frozen=True, kw_only=True):
    """`next_number`: the first piece of this replica's output that the orchestrator does not have (or want)."""

    name: ReplicaName
    generation: int
    next_number: int


class ReplicaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`known` false: register first; nothing was stored. `stored`: for every replica that the report had logs of."""

    known: bool
    stored: list[ReplicaStored] = []

"""The pure part of placing replicas: which workers may have one, which is best, and why none can."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from blacktree.deployment import Deployment, Placement, Version
from blacktree.rpc.replica import MAX_REPLICAS, ReplicaName, ReplicaState
from blacktree.runspec import Port

ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})


class WorkerFact(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the rollout sees it.

    `silent_seconds`: since its last report of replicas. `current`: the states it reported go by the orders that follow
    from what is on record now. `waiting`: replicas that it is not told to start yet, and what they wait for.
    """

    id: str
    pool: str = "default"
    alive: bool = True
    capable: bool = True
    draining: bool = False
    silent_seconds: float = 0.0
    current: bool = True
    states: Mapping[ReplicaName, ReplicaState] = {}
    waiting: Mapping[ReplicaName, str] = {}


Facts = Mapping[str, WorkerFact]


class Taken(msgspec.Struct, frozen=True):
    """A front port of a worker that a deployment has; `leaving`: it is being given up. `doubtful`: it may have it, its
    record cannot be read."""

    deployment: str
    address: str
    port: int
    leaving: bool = False
    doubtful: bool = False


class Land(msgspec.Struct, frozen=True, kw_only=True):
    """What other deployments have on the workers: front ports, and how many replicas; `own`: the deployment's own ports
    there. `doubtful`: workers where one may have any port, because its record cannot be read."""

    taken: Mapping[str, Sequence[Taken]] = {}
    load: Mapping[str, int] = {}
    own: Mapping[str, Sequence[Taken]] = {}
    doubtful: Mapping[str, str] = {}

    def clash(self, ports: Sequence[Port], worker_id: str) -> Taken | None:
        """What leaves no room for these ports on this worker."""
        if found := clash(ports, self.taken.get(worker_id, ())):
            return found
        name, own = self.doubtful.get(worker_id), self.own.get(worker_id, ())
        strange = [each for each in ports if clash([each], own) is None]
        if name is None or not strange:
            return None
        return Taken(name, strange[0].address, strange[0].host, doubtful=True)


def survey(deployments: Iterable[Deployment], without: str = "", doubtful: Mapping[str, str] | None = None) -> Land:
    """What all deployments but one have on the workers, and that one's own ports."""
    taken: dict[str, list[Taken]] = {}
    own: dict[str, list[Taken]] = {}
    load: dict[str, int] = {}
    for deployment in deployments:
        others = deployment.name != without
        for place in deployment.placements:
            if others:
                load[place.worker_id] = load.get(place.worker_id, 0) + 1
            version = deployment.version(place.version)
            for port in version.run.ports if version is not None else ():
                row = Taken(deployment.name, port.address, port.host, place.stopping)
                (taken if others else own).setdefault(place.worker_id, []).append(row)
    return Land(taken=taken, load=load, own=own, doubtful=doubtful or {})


def clash(ports: Sequence[Port], taken: Sequence[Taken]) -> Taken | None:
    """The first row that leaves no room for one of these ports; one that stays comes before one that leaves."""
    found = [each for each in taken for port in ports if port.host == each.port and _same(port.address, each.address)]
    return min(found, key=lambda each: each.leaving, default=None)


def _same(one: str, other: str) -> bool:
    return one == other or one in ANY_ADDRESS or other in ANY_ADDRESS


def portable(version: Version) -> bool:
    """Whether any worker of the pool can have this version's image."""
    return version.pull or version.worker_id is None


def candidates(version: Version, facts: Facts) -> list[WorkerFact]:
    """The workers that may have a replica of this version now, front ports aside."""
    return [
        each
        for each in facts.values()
        if each.alive
        and each.capable
        and not each.draining
        and (each.pool == version.pool if portable(version) else each.id == version.worker_id)
    ]


def why_nowhere(version: Version, facts: Facts) -> str:
    """Why no worker may have it, for a person."""
    if not portable(version):
        only = facts.get(version.worker_id or "")
        where = f"its image is only on worker {version.worker_id}"
        if only is None or not only.alive:
            return f"{where}, which is not here; push the image to let it run elsewhere"
        return f"{where}, which {'is drained' if only.draining else 'runs no containers'}"
    members = [each for each in facts.values() if each.alive and each.pool == version.pool]
    if not members:
        return f"no worker in pool `{version.pool}`"
    if not any(each.capable for each in members):
        return f"no worker in pool `{version.pool}` runs containers"
    return f"every worker in pool `{version.pool}` is drained"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica goes; without a worker `reason` says why, and `never` that waiting mends nothing."""

    worker_id: str = ""
    reason: str = ""
    never: bool = False


def choose(
    version: Version, facts: Facts, land: Land, own: Sequence[Placement], prefer: str, avoid: Collection[str] = ()
) -> Choice:
    """The worker for one replica: `prefer` if it may have it, else the one with the fewest replicas."""
    possible = [each for each in candidates(version, facts) if each.id not in avoid]
    if not possible:
        return Choice(reason=why_nowhere(version, facts))
    clashes = {each.id: land.clash(version.run.ports, each.id) for each in possible}
    free = [each.id for each in possible if clashes[each.id] is None]

    def load(worker_id: str) -> int:
        return land.load.get(worker_id, 0) + sum(place.worker_id == worker_id for place in own)

    roomy = [worker_id for worker_id in free if load(worker_id) < MAX_REPLICAS]
    if prefer in roomy:
        return Choice(worker_id=prefer)
    if roomy:
        return Choice(worker_id=min(roomy, key=lambda worker_id: (load(worker_id), worker_id)))
    if free:
        return Choice(reason=f"every worker that may have it runs {MAX_REPLICAS} replicas already")
    worker_id, row = next((each, row) for each, row in clashes.items() if row is not None)
    where = f"{row.address}:{row.port} on worker {worker_id}"
    whose = "may belong to deployment {}, which cannot be read" if row.doubtful else "belongs to deployment {}"
    return Choice(
        reason=f"port {where} {whose.format(row.deployment)}",
        never=not any(row is not None and (row.leaving or row.doubtful) for row in clashes.values()),
    )

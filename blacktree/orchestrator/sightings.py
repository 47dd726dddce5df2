"""What workers have said of their replicas, and how the workers stand by it."""

from collections.abc import Mapping

import trio

from blacktree.orchestrator.couriers import Couriers
from blacktree.orchestrator.deploymentrecord import DeploymentRecord
from blacktree.orchestrator.placement import Facts, WorkerFact
from blacktree.orchestrator.workers import Workers
from blacktree.rpc.replica import CAPABILITY, KEEPS, ReplicaName, ReplicaReport, ReplicaState


class Seen:
    """What a worker reported last. `at`: when, on Trio's clock."""

    def __init__(self, incarnation: str, revision: int, states: Mapping[ReplicaName, ReplicaState], at: float) -> None:
        self.incarnation = incarnation
        self.revision = revision
        self.states = states
        self.at = at


class Sightings:
    """What every worker reported last, by its id. `start` before any of them can."""

    def __init__(self, workers: Workers, record: DeploymentRecord) -> None:
        self._workers = workers
        self._record = record
        self._started_at = 0.0
        self.seen: dict[str, Seen] = {}

    def start(self) -> None:
        """From here on a worker that says nothing is silent."""
        self._started_at = trio.current_time()

    def put(self, report: ReplicaReport) -> bool:
        """Note a report; whether it says anything new."""
        states = {each.name: each for each in report.states}
        before = self.seen.get(report.worker_id)
        self.seen[report.worker_id] = Seen(report.incarnation, report.revision, states, trio.current_time())
        return before is None or (before.revision, before.states) != (report.revision, states)

    def forget(self) -> None:
        """What was reported by workers that are gone and have nothing of ours: scaled ones never come again."""
        for worker_id in set(self.seen).difference(self.placed(), self._workers.ids()):
            del self.seen[worker_id]

    def facts(self, couriers: Couriers) -> Facts:
        """Every worker that is here, and every one that has something of ours."""
        found: dict[str, WorkerFact] = {}
        moment = trio.current_time()
        placed = self.placed()
        # Who cannot be told to leave alone what cannot be read is told nothing now.
        needed = {CAPABILITY, KEEPS} if self._record.damaged else {CAPABILITY}
        for worker_id in placed.union(self._workers.ids()):
            member = self._workers.member(worker_id)
            seen = self.seen.get(worker_id)
            ours = seen is not None and member is not None and seen.incarnation == member.registration.incarnation
            found[worker_id] = WorkerFact(
                id=worker_id,
                pool=member.registration.pool if member is not None else "",
                alive=member is not None,
                capable=member is not None and needed <= set(member.registration.capabilities),
                draining=member is not None and member.draining,
                silent_seconds=moment - (seen.at if seen is not None else self._started_at),
                current=ours and seen is not None and seen.revision == couriers.revision(worker_id),
                states=seen.states if seen is not None and ours else {},
                waiting=couriers.waiting(worker_id),
            )
        return found

    def held(self, worker_id: str) -> dict[ReplicaName, int]:
        """What this worker has, by its word or, until it has spoken, by what was seen healthy on it."""
        member, seen = self._workers.member(worker_id), self.seen.get(worker_id)
        if member is not None and seen is not None and seen.incarnation == member.registration.incarnation:
            return {name: each.generation for name, each in seen.states.items() if each.state != "stopped"}
        return {
            ReplicaName(deployment=each.name, version=place.version, index=place.index): place.generation
            for each in self._record.known.values()
            for place in each.placements
            if place.worker_id == worker_id and place.healthy_at is not None
        }

    def placed(self) -> set[str]:
        """The workers that some deployment is placed on."""
        return {place.worker_id for each in self._record.known.values() for place in each.placements}

    def doubtful(self) -> dict[str, str]:
        """The workers that have something of a deployment whose record is damaged, or may have for all that is known
        yet, and one such deployment each."""
        found: dict[str, str] = {}
        for name in sorted(self._record.damaged):
            for worker_id in self._workers.ids():
                member, seen = self._workers.member(worker_id), self.seen.get(worker_id)
                ours = seen is not None and member is not None and seen.incarnation == member.registration.incarnation
                states = seen.states.values() if ours and seen is not None else None
                if states is None or any(each.name.deployment == name and each.state != "stopped" for each in states):
                    found.setdefault(worker_id, name)
        return found

    def states(self) -> list[str]:
        """The state of every replica, as reported."""
        return [state.state for seen in self.seen.values() for state in seen.states.values()]

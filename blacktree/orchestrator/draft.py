"""`Draft`: one deployment while it is decided what becomes of it, with what is known of its workers and the time."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from blacktree.deployment import ENDED, Deployment, Happening, Placement, VersionState, move, short
from blacktree.event import Notice, StateChanged
from blacktree.orchestrator.placement import Facts, Land
from blacktree.orchestrator.prognosis import broke, why
from blacktree.rpc.replica import ReplicaName, ReplicaState

S = VersionState

GIVE_UP_SECONDS = 60.0
"""After so long without a word from its worker a replica that is no longer wanted counts as gone: should the worker
come back, its list does not name it."""


class Draft:
    """Read and written by the steps of a rollout; `result` is what they made of it.

    `now` is what clocks on the wall show: it stamps what people read. `steady` runs evenly: spans are measured by it.
    """

    def __init__(
        self, deployment: Deployment, facts: Facts, land: Land, now: datetime, steady: datetime | None = None
    ) -> None:
        self._before = deployment
        self._happenings = list(deployment.happenings)
        self._next_happening = deployment.next_happening
        self.name = deployment.name
        self.wanted = deployment.desired == "running"
        self.facts = facts
        self.land = land
        self.now = now
        self.steady = steady or now
        self.versions = {each.number: each for each in deployment.versions}
        self.places = list(deployment.placements)
        self.serving = deployment.serving
        self.target = deployment.target

    def result(self) -> Deployment:
        """The deployment as it stands now; the very object that came in when nothing is different."""
        after = msgspec.structs.replace(
            self._before,
            versions=list(self.versions.values()),
            placements=self.places,
            serving=self.serving,
            target=self.target,
            happenings=self._happenings,
            next_happening=self._next_happening,
        )
        return self._before if after == self._before else msgspec.structs.replace(after, updated_at=self.now)

    # What is there

    def of(self, number: int | None) -> list[Placement]:
        """A version's replicas: those that are wanted, each once."""
        return [each for each in self.places if each.version == number and not each.stopping and not each.incoming]

    def traces(self, number: int) -> list[Placement]:
        """Whatever of a version may be on a worker."""
        return [each for each in self.places if each.version == number]

    def successor(self, place: Placement) -> Placement | None:
        """The replica that is to take this one's place, if it is being moved."""
        rows = (each for each in self.places if each.incoming and not each.stopping)
        return next((each for each in rows if (each.version, each.index) == (place.version, place.index)), None)

    def replica(self, place: Placement) -> ReplicaName:
        """How its worker calls it."""
        return ReplicaName(deployment=self.name, version=place.version, index=place.index)

    def seen(self, place: Placement) -> ReplicaState | None:
        """What the worker of this placement says of it now; of an older generation it says nothing."""
        fact = self.facts.get(place.worker_id)
        if fact is None or not fact.alive:
            return None
        state = fact.states.get(self.replica(place))
        return state if state is not None and state.generation == place.generation else None

    def broke(self, place: Placement) -> ReplicaState | None:
        """How a replica that was healthy no longer is, if it is so by its own fault."""
        state = self.seen(place)
        return state if state is not None and broke(place, state) else None

    def all_healthy(self, number: int) -> bool:
        """Whether every replica of the version is there and healthy."""
        places = self.of(number)
        seen = [self.seen(each) for each in places]
        replicas = self.versions[number].run.replicas
        return len(places) == replicas and all(each and each.state == "healthy" for each in seen)

    def settled(self, place: Placement) -> bool:
        """Whether a replica is healthy, and has been for as long as its version wants."""
        state = self.seen(place)
        if state is None or state.state != "healthy" or place.healthy_at is None:
            return False
        return place.healthy_at <= self.later(-self.versions[place.version].run.strategy.settle_seconds)

    # What was seen is noted

    def look(self) -> None:
        """Forget what is gone, and note since when each replica is healthy."""
        self._be_plausible()
        self.places = [each for each in self.places if not (each.stopping and self._is_gone(each))]
        for place in list(self.places):
            state = self.seen(place)
            healthy = state is not None and state.state == "healthy"
            if healthy and place.healthy_at is None:
                assert state is not None
                self.put(place, healthy_at=self.steady, restarts=state.restarts)
            elif state is not None and not healthy and place.healthy_at is not None and not self.broke(place):
                self.put(place, healthy_at=None)

    def _be_plausible(self) -> None:
        """A clock set back between two starts of the orchestrator must not lengthen what is waited for."""
        for number, version in self.versions.items():
            if version.drain_until is not None:
                latest = self.later(version.run.strategy.drain_seconds)
                if version.drain_until > latest:
                    self.versions[number] = msgspec.structs.replace(version, drain_until=latest)
        for place in list(self.places):
            if place.placed_at > self.steady:
                self.put(place, placed_at=self.steady)
        for place in list(self.places):
            if place.healthy_at is not None and place.healthy_at > self.steady:
                self.put(place, healthy_at=self.steady)

    def _is_gone(self, place: Placement) -> bool:
        """Whether what is no longer wanted is gone, by its worker's word or because nothing was heard for too long."""
        fact = self.facts.get(place.worker_id)
        if fact is None:
            return True
        if not fact.alive:
            return fact.silent_seconds > self._given_up_after(place)
        state = fact.states.get(self.replica(place))
        # A worker begins a generation when the one before it has ended.
        over = state is None or state.state == "stopped" or state.generation > place.generation
        return fact.current and over

    def _given_up_after(self, place: Placement) -> float:
        """What must not run twice may still run on a worker that is silent, unless that has to stop it by itself."""
        old = self.versions.get(place.version)
        next_one = self.versions.get(self.target or (self.serving if self.serving == place.version else None) or 0)
        if next_one is None or old is None or next_one.run.strategy.kind != "recreate":
            return GIVE_UP_SECONDS
        patience = old.run.failover_seconds
        return max(GIVE_UP_SECONDS, patience) if patience is not None else math.inf

    # What is done

    def put(self, place: Placement, **changes: Any) -> None:
        """Change a placement."""
        self.places[self.places.index(place)] = msgspec.structs.replace(place, **changes)

    def place(self, number: int, index: int, worker_id: str, *, incoming: bool = False) -> None:
        """Order a replica, as a generation that was never given before."""
        version = self.versions[number]
        generation = version.generation + 1
        self.versions[number] = msgspec.structs.replace(version, generation=generation)
        self.places.append(
            Placement(
                version=number,
                index=index,
                worker_id=worker_id,
                generation=generation,
                placed_at=self.steady,
                incoming=incoming,
            )
        )

    def drop(self, number: int) -> None:
        """Order nothing of a version any more."""
        for place in self.traces(number):
            if not place.stopping:
                self.put(place, stopping=True)

    def restarted(self, number: int, index: int) -> None:
        """A replica has got a new container, or will, as a restart wants it."""
        version = self.versions[number]
        rest = [each for each in version.restarting if each != index]
        self.versions[number] = msgspec.structs.replace(version, restarting=rest)

    def move(self, number: int, to: VersionState, reason: str = "", **changes: Any) -> None:
        """Bring a version into its next state, and tell."""
        version = self.versions[number]
        if to in ENDED:
            changes.setdefault("ended_at", self.now)
            changes |= {"drain_until": None, "restarting": []}
        self.versions[number] = move(version, to, reason=reason, **changes)
        self._happen(StateChanged(self.now, number, version.state, to, reason))

    def note(self, number: int, code: str, text: str) -> None:
        """Tell something about a version."""
        self._happen(Notice(self.now, number, code, text))

    def fail(self, number: int, code: str, reason: str, lines: Sequence[str] = ()) -> None:
        """Fail a version. Its containers go; who serves instead is for the caller."""
        self.move(number, S.FAILED, reason, code=code, last_lines=short(list(lines)))
        self.drop(number)
        if self.target == number:
            self.target = None
        if self.serving == number:
            self.serving = None

    def fail_for(self, number: int, state: ReplicaState) -> None:
        """Fail a version for what became of one of its replicas."""
        code, text = why(state)
        which = f"replica {state.name.index}: " if self.versions[number].run.replicas > 1 else ""
        self.fail(number, code, which + text, state.last_lines)

    def later(self, seconds: float) -> datetime:
        """So many seconds from now, for spans."""
        return self.steady + timedelta(seconds=seconds)

    def _happen(self, record: StateChanged | Notice) -> None:
        self._happenings.append(Happening(number=self._next_happening, record=record))
        self._next_happening += 1

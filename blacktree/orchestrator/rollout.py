"""The pure machine of a deployment: what is on record, what workers report, and the time → what is on record next.

A new version starts beside the old one (strategy `replace`) or after it (`recreate`). It takes over once all its
replicas are healthy and have stayed so for `settle_seconds`; the old one stands by for `drain_seconds`, takes over
again if the new one breaks meanwhile, and then stops. A version that breaks before it has taken over fails, and the
old one goes on. A version that breaks later fails once every one of its replicas has used up its restarts; the version
before it is *not* started again by itself if it has stopped: that is what `rollback` is for.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from blacktree.deployment import ENDED, Deployment, Happening, Placement, VersionState, move, short
from blacktree.event import Notice, StateChanged
from blacktree.orchestrator.placement import Facts, Land, choose, portable
from blacktree.orchestrator.prognosis import broke, hopeless, late, why
from blacktree.rpc.replica import ReplicaName, ReplicaState

S = VersionState

GIVE_UP_SECONDS = 60.0
"""After so long without a word from its worker a replica that is no longer wanted counts as gone: should the worker
come back, its list does not name it."""


def advance(deployment: Deployment, facts: Facts, land: Land, now: datetime) -> Deployment:
    """The deployment's next state; the very object it was given when nothing is to be done. Idempotent."""
    machine = _Machine(deployment, facts, land, now)
    machine.run()
    return machine.result()


def refuse(deployment: Deployment, number: int, code: str, reason: str, now: datetime) -> Deployment:
    """Fail a version that is to take over and cannot be started; another one stays as it is."""
    machine = _Machine(deployment, {}, Land(), now)
    if deployment.target == number:
        machine.refuse(number, code, reason)
    return machine.result()


class _Machine:
    def __init__(self, deployment: Deployment, facts: Facts, land: Land, now: datetime) -> None:
        self._before = deployment
        self._facts = facts
        self._land = land
        self._now = now
        self._versions = {each.number: each for each in deployment.versions}
        self._places = list(deployment.placements)
        self._serving = deployment.serving
        self._target = deployment.target
        self._happenings = list(deployment.happenings)
        self._next_happening = deployment.next_happening

    def result(self) -> Deployment:
        after = msgspec.structs.replace(
            self._before,
            versions=list(self._versions.values()),
            placements=self._places,
            serving=self._serving,
            target=self._target,
            happenings=self._happenings,
            next_happening=self._next_happening,
        )
        return self._before if after == self._before else msgspec.structs.replace(after, updated_at=self._now)

    def run(self) -> None:
        self._reap()
        self._look()
        if self._before.desired == "stopped":
            self._stop_all()
            return
        self._fail_over()
        self._supervise()
        self._bring_up()
        self._retire()
        self._restart()

    def refuse(self, number: int, code: str, reason: str) -> None:
        self._fail(number, code, reason)

    # What was seen

    def _name(self, place: Placement) -> ReplicaName:
        return ReplicaName(deployment=self._before.name, version=place.version, index=place.index)

    def _seen(self, place: Placement) -> ReplicaState | None:
        """What the worker of this placement says of it now; of an older generation it says nothing."""
        fact = self._facts.get(place.worker_id)
        if fact is None or not fact.alive:
            return None
        state = fact.states.get(self._name(place))
        return state if state is not None and state.generation == place.generation else None

    def _of(self, number: int | None, *, stopping: bool = False) -> list[Placement]:
        return [each for each in self._places if each.version == number and (stopping or not each.stopping)]

    def _put(self, place: Placement, **changes: Any) -> None:
        self._places[self._places.index(place)] = msgspec.structs.replace(place, **changes)

    def _reap(self) -> None:
        """Forget what is no longer wanted and, by its worker's word, gone."""
        kept = []
        for place in self._places:
            fact = self._facts.get(place.worker_id)
            if place.stopping:
                if fact is None or (not fact.alive and fact.silent_seconds > self._given_up_after(place)):
                    continue
                state = fact.states.get(self._name(place))
                if fact.alive and fact.current and (state is None or state.state == "stopped"):
                    continue
            kept.append(place)
        self._places = kept

    def _given_up_after(self, place: Placement) -> float:
        """What must not run twice may still run on a worker that is silent, unless that has to stop it by itself."""
        target = self._versions.get(self._target or 0)
        old = self._versions.get(place.version)
        if target is None or old is None or target.run.strategy.kind != "recreate":
            return GIVE_UP_SECONDS
        patience = old.run.failover_seconds
        return max(GIVE_UP_SECONDS, patience) if patience is not None else math.inf

    def _look(self) -> None:
        """Note since when each replica is healthy."""
        for place in self._places:
            state = self._seen(place)
            healthy = state is not None and state.state == "healthy"
            if healthy and place.healthy_at is None:
                assert state is not None
                self._put(place, healthy_at=self._now, restarts=state.restarts)
            elif state is not None and not healthy and place.healthy_at is not None and not self._broke(place):
                self._put(place, healthy_at=None)

    def _broke(self, place: Placement) -> ReplicaState | None:
        """How a replica that was healthy no longer is, if it is so by its own fault."""
        state = self._seen(place)
        return state if state is not None and broke(place, state) else None

    def _all_healthy(self, number: int) -> bool:
        version = self._versions[number]
        places = self._of(number)
        seen = [self._seen(each) for each in places]
        return len(places) == version.run.replicas and all(each and each.state == "healthy" for each in seen)

    # What is done

    def _happen(self, record: StateChanged | Notice) -> None:
        self._happenings.append(Happening(number=self._next_happening, record=record))
        self._next_happening += 1

    def _move(self, number: int, to: VersionState, reason: str = "", **changes: Any) -> None:
        version = self._versions[number]
        if to in ENDED:
            changes.setdefault("ended_at", self._now)
            changes |= {"drain_until": None, "restarting": []}
        self._versions[number] = move(version, to, reason=reason, **changes)
        self._happen(StateChanged(self._now, number, version.state, to, reason))

    def _note(self, number: int, code: str, text: str) -> None:
        self._happen(Notice(self._now, number, code, text))

    def _fail(self, number: int, code: str, reason: str, lines: Sequence[str] = ()) -> None:
        """Fail a version. Its containers go; who serves instead is for the caller."""
        self._move(number, S.FAILED, reason, code=code, last_lines=short(list(lines)))
        self._drop(number)
        if self._target == number:
            self._target = None
        if self._serving == number:
            self._serving = None

    def _fail_for(self, number: int, state: ReplicaState) -> None:
        version = self._versions[number]
        code, text = why(state)
        which = f"replica {state.name.index}: " if version.run.replicas > 1 else ""
        self._fail(number, code, which + text, state.last_lines)

    def _drop(self, number: int) -> None:
        for place in self._of(number):
            self._put(place, stopping=True)

    def _place(self, number: int, index: int, worker_id: str) -> None:
        version = self._versions[number]
        generation = version.generation + 1
        self._versions[number] = msgspec.structs.replace(version, generation=generation)
        self._places.append(
            Placement(version=number, index=index, worker_id=worker_id, generation=generation, placed_at=self._now)
        )

    def _stop_all(self) -> None:
        self._serving = self._target = None
        for number, version in list(self._versions.items()):
            if version.state is S.PENDING:
                self._move(number, S.STOPPED, "stopped before it was built")
            elif version.state not in ENDED:
                self._drop(number)
                if not self._of(number, stopping=True):
                    self._move(number, S.STOPPED, "as was asked for")
            else:
                self._drop(number)

    def _fail_over(self) -> None:
        """Start elsewhere what a silent worker has stopped by now, where the run spec allows that."""
        for place in [each for each in self._places if not each.stopping]:
            version = self._versions[place.version]
            fact = self._facts.get(place.worker_id)
            patience = version.run.failover_seconds
            if patience is None or fact is None or fact.silent_seconds <= patience or not portable(version):
                continue
            found = choose(version, self._facts, self._land, self._places, "", avoid=(place.worker_id,))
            if found.worker_id:
                self._places.remove(place)
                self._place(place.version, place.index, found.worker_id)
                text = f"replica {place.index} moves from worker {place.worker_id}, silent for {patience:g} s and more,"
                self._note(place.version, "failover", f"{text} to {found.worker_id}")

    def _standby(self) -> int | None:
        """The version that was replaced, as long as it could take over again."""
        for number in sorted(self._versions, reverse=True):
            version = self._versions[number]
            if version.drain_until is not None and version.state is S.RUNNING and self._all_healthy(number):
                return number
        return None

    def _supervise(self) -> None:
        """The version that serves: back to the one before it while that is there, or failed when nothing is left."""
        number = self._serving
        if number is None:
            return
        places = self._of(number)
        broken = [state for each in places if (state := self._broke(each)) is not None]
        if broken and (standby := self._standby()) is not None:
            self._fail_for(number, broken[0])
            self._serving = standby
            self._versions[standby] = msgspec.structs.replace(self._versions[standby], drain_until=None)
            self._note(standby, "taken_back", f"version {standby} serves again: version {number} broke")
            return
        seen = [self._seen(each) for each in places]
        failed = [each for each in seen if each is not None and each.state == "failed"]
        if failed and len(failed) == len(places):
            self._fail_for(number, failed[0])

    def _bring_up(self) -> None:
        """The version that is to take over: place it, watch it, switch to it."""
        number = self._target
        if number is None:
            return
        version = self._versions[number]
        if version.run.strategy.kind == "recreate" and not (self._has_room(number) and self._cleared(number)):
            return
        self._place_missing(number)
        for place in self._of(number):
            if number != self._target:
                return
            self._judge_start(place)
        if self._target == number and self._all_healthy(number):
            settled = self._now - timedelta(seconds=version.run.strategy.settle_seconds)
            if all(each.healthy_at is not None and each.healthy_at <= settled for each in self._of(number)):
                self._switch(number)

    def _has_room(self, number: int) -> bool:
        """Whether it could be placed once the old version is gone: before that, nothing is stopped for it."""
        if self._of(number):
            return True
        found = choose(self._versions[number], self._facts, self._land, self._places, "")
        if found.never:
            self._fail(number, "port_taken", found.reason)
        return bool(found.worker_id)

    def _cleared(self, number: int) -> bool:
        """For what must not run twice: end the old version, and say whether nothing of any other is left."""
        if self._serving is not None:
            old, self._serving = self._serving, None
            self._drop(old)
            self._versions[old] = msgspec.structs.replace(self._versions[old], drain_until=self._now)
        others = [each for each in self._places if each.version != number]
        for place in others:
            if not place.stopping:
                self._put(place, stopping=True)
        return not others

    def _place_missing(self, number: int) -> None:
        version = self._versions[number]
        have = {each.index for each in self._of(number)}
        for index in range(version.run.replicas):
            if index in have:
                continue
            old = next((each.worker_id for each in self._of(self._serving) if each.index == index), "")
            found = choose(version, self._facts, self._land, self._places, old)
            if found.never:
                self._fail(number, "port_taken", found.reason)
                return
            if found.worker_id:
                self._place(number, index, found.worker_id)

    def _judge_start(self, place: Placement) -> None:
        number, state = place.version, self._seen(place)
        run = self._versions[number].run
        if state is None:
            return
        if hopeless(state) or self._broke(place) is not None:
            self._fail_for(number, state)
        elif late(place, state, run, self._now):
            self._fail(
                number, "too_slow", f"it was not healthy in time: {state.reason or state.state}", state.last_lines
            )

    def _switch(self, number: int) -> None:
        old, self._serving, self._target = self._serving, number, None
        self._move(number, S.RUNNING, "" if old is None else f"replaces version {old}", running_at=self._now)
        if old is not None and old != number:
            version = self._versions[old]
            until = self._now + timedelta(seconds=version.run.strategy.drain_seconds)
            self._versions[old] = msgspec.structs.replace(version, drain_until=until, restarting=[])

    def _retire(self) -> None:
        """Whatever neither serves nor is to serve: stand by, stop, and be on record as stopped."""
        for number, version in list(self._versions.items()):
            if number in (self._serving, self._target) or version.state is S.PENDING:
                continue
            until = version.drain_until
            if version.state is not S.RUNNING or until is None or until <= self._now:
                self._drop(number)
            if version.state not in ENDED and not self._of(number, stopping=True):
                self._move(number, S.STOPPED, self._why_retired(version.state))

    def _why_retired(self, state: VersionState) -> str:
        if state is S.BUILT:
            return "superseded by a newer version"
        if self._serving is not None:
            return f"replaced by version {self._serving}"
        return f"made room for version {self._target}" if self._target is not None else ""

    def _restart(self) -> None:
        """Replica after replica gets a new container, the next one when the one before it is healthy."""
        number = self._serving
        version = self._versions.get(number or 0)
        if number is None or version is None or not version.restarting:
            return
        index, *rest = version.restarting
        others = [each for each in self._of(number) if each.index != index]
        waits = [
            each for each in others if (seen := self._seen(each)) is None or seen.state not in ("healthy", "failed")
        ]
        if waits:
            return
        generation = version.generation + 1
        self._versions[number] = msgspec.structs.replace(version, restarting=rest, generation=generation)
        for place in self._of(number):
            if place.index == index:
                self._put(place, generation=generation, placed_at=self._now, healthy_at=None, restarts=0)
                self._note(number, "restart", f"replica {index} is started anew")

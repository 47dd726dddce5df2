"""The pure machine of a deployment: what is on record, what workers report, and the time → what is on record next.

A new version starts beside the old one (strategy `replace`) or after it (`recreate`). It takes over once all its
replicas are healthy and have stayed so for `settle_seconds`; the old one stands by for `drain_seconds`, takes over
again if the new one breaks meanwhile, and then stops. A version that breaks before it has taken over fails, and the
old one goes on. A version that breaks later fails once every one of its replicas has used up its restarts; the version
before it is *not* started again by itself if it has stopped: that is what `rollback` is for.
"""

from datetime import datetime

import msgspec

from blacktree.deployment import ENDED, Deployment, Placement, VersionState
from blacktree.orchestrator.draft import Draft
from blacktree.orchestrator.evacuation import evacuate
from blacktree.orchestrator.placement import Facts, Land, choose
from blacktree.orchestrator.prognosis import hopeless, late
from blacktree.orchestrator.upkeep import fail_over, restart, supervise

S = VersionState


def advance(
    deployment: Deployment, facts: Facts, land: Land, now: datetime, steady: datetime | None = None
) -> Deployment:
    """The deployment's next state; the very object it was given when nothing is to be done. Idempotent.

    `now` stamps what people read. `steady`, on a clock that nobody sets, is what spans are measured by.
    """
    draft = Draft(deployment, facts, land, now, steady)
    draft.look()
    if not draft.wanted:
        _stop_all(draft)
    else:
        fail_over(draft)
        supervise(draft)
        _bring_up(draft)
        evacuate(draft)
        _retire(draft)
        restart(draft)
    return draft.result()


def refuse(deployment: Deployment, number: int, code: str, reason: str, now: datetime) -> Deployment:
    """Fail a version that is to take over and cannot be started; another one stays as it is."""
    draft = Draft(deployment, {}, Land(), now)
    if draft.target == number:
        draft.fail(number, code, reason)
    return draft.result()


def _stop_all(draft: Draft) -> None:
    draft.serving = draft.target = None
    for number, version in list(draft.versions.items()):
        if version.state is S.PENDING:
            draft.move(number, S.STOPPED, "stopped before it was built")
            continue
        draft.drop(number)
        if version.state not in ENDED and not draft.traces(number):
            draft.move(number, S.STOPPED, "as was asked for")


def _bring_up(draft: Draft) -> None:
    """The version that is to take over: place it, watch it, switch to it."""
    number = draft.target
    if number is None:
        return
    version = draft.versions[number]
    if version.run.strategy.kind == "recreate" and not (_has_room(draft, number) and _cleared(draft, number)):
        return
    _place_missing(draft, number)
    for place in draft.of(number):
        if number != draft.target:
            return
        _judge_start(draft, place)
    if draft.target == number and draft.all_healthy(number) and all(map(draft.settled, draft.of(number))):
        _switch(draft, number)


def _has_room(draft: Draft, number: int) -> bool:
    """Whether it could be placed once the old version is gone: before that, nothing is stopped for it."""
    if draft.of(number):
        return True
    found = choose(draft.versions[number], draft.facts, draft.land, draft.places, "")
    if found.never:
        draft.fail(number, "port_taken", found.reason)
    return bool(found.worker_id)


def _cleared(draft: Draft, number: int) -> bool:
    """For what must not run twice: end the old version, and say whether nothing of any other is left."""
    if draft.serving is not None:
        old, draft.serving = draft.serving, None
        draft.drop(old)
        draft.versions[old] = msgspec.structs.replace(draft.versions[old], drain_until=draft.steady)
    others = [each for each in draft.places if each.version != number]
    for place in others:
        if not place.stopping:
            draft.put(place, stopping=True)
    return not others


def _place_missing(draft: Draft, number: int) -> None:
    version = draft.versions[number]
    have = {each.index for each in draft.of(number)}
    for index in range(version.run.replicas):
        if index in have:
            continue
        old = next((each.worker_id for each in draft.of(draft.serving) if each.index == index), "")
        found = choose(version, draft.facts, draft.land, draft.places, old)
        if found.never:
            draft.fail(number, "port_taken", found.reason)
            return
        if found.worker_id:
            draft.place(number, index, found.worker_id)


def _judge_start(draft: Draft, place: Placement) -> None:
    number, state = place.version, draft.seen(place)
    run = draft.versions[number].run
    if state is None:
        return
    if hopeless(state) or draft.broke(place) is not None:
        draft.fail_for(number, state)
    elif late(place, state, run, draft.steady):
        draft.fail(number, "too_slow", f"it was not healthy in time: {state.reason or state.state}", state.last_lines)


def _switch(draft: Draft, number: int) -> None:
    old, draft.serving, draft.target = draft.serving, number, None
    draft.move(number, S.RUNNING, "" if old is None else f"replaces version {old}", running_at=draft.now)
    if old is not None and old != number:
        version = draft.versions[old]
        until = draft.later(version.run.strategy.drain_seconds)
        draft.versions[old] = msgspec.structs.replace(version, drain_until=until, restarting=[])


def _retire(draft: Draft) -> None:
    """Whatever neither serves nor is to serve: stand by, stop, and be on record as stopped."""
    for number, version in list(draft.versions.items()):
        if number in (draft.serving, draft.target) or version.state is S.PENDING:
            continue
        until = version.drain_until
        if version.state is not S.RUNNING or until is None or until <= draft.steady:
            draft.drop(number)
        if version.state not in ENDED and not draft.traces(number):
            draft.move(number, S.STOPPED, _why_retired(draft, version.state))


def _why_retired(draft: Draft, state: VersionState) -> str:
    if state is S.BUILT:
        return "superseded by a newer version"
    if draft.serving is not None:
        return f"replaced by version {draft.serving}"
    return f"made room for version {draft.target}" if draft.target is not None else ""

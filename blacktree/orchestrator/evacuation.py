"""What a drained worker runs goes elsewhere: beside the old replica comes a new one, and when that is healthy the old
one ends. What must not run twice ends first. Pure."""

from collections.abc import Iterable, Mapping

from blacktree.deployment import Deployment, Placement, Version
from blacktree.orchestrator.control import Leaving
from blacktree.orchestrator.draft import Draft
from blacktree.orchestrator.placement import Choice, Facts, Land, choose, portable, survey
from blacktree.orchestrator.prognosis import hopeless, late, why
from blacktree.rpc.replica import ReplicaName


def evacuate(draft: Draft) -> None:
    """Bring on every move of the version that serves, and begin those that are due."""
    number = draft.serving
    if number is None:
        return
    for place in draft.of(number):
        if (successor := draft.successor(place)) is not None:
            _bring_on(draft, place, successor)
        elif _is_drained(draft.facts, place) and not (draft.target and draft.of(draft.target)):
            # A newer version that starts is placed elsewhere anyway.
            _begin(draft, place)
    _fill(draft, number)


def way_out(version: Version, facts: Facts, land: Land, own: Iterable[Placement], place: Placement) -> Choice:
    """Where a replica goes when its worker is drained, or why it stays."""
    if not portable(version):
        return Choice(reason="its image is only on this worker; push the image to let it run elsewhere")
    if version.run.volumes and version.run.failover_seconds is None:
        return Choice(reason="its volumes are on this worker; with `failover_seconds` it may start without them")
    places = list(own)
    here = {each.worker_id for each in places if (each.version, each.index) == (place.version, place.index)}
    found = choose(version, facts, land, places, "", avoid={*here, *place.avoid})
    if found.worker_id or found.never or place.worker_id not in facts:
        return found
    if place.avoid:
        return Choice(reason=f"it did not become healthy on {', '.join(place.avoid)}, and nobody else can take it")
    return Choice(reason=f"no other worker in pool `{version.pool}` can take it")


def outlook(
    deployments: Iterable[Deployment], facts: Facts, worker_id: str, doubtful: Mapping[str, str] | None = None
) -> list[Leaving]:
    """What becomes of each replica on a worker that is drained."""
    known = list(deployments)
    found = []
    for deployment in known:
        land = survey(known, deployment.name, doubtful)
        for place in deployment.placements:
            version = deployment.version(place.version)
            if place.worker_id == worker_id and not place.stopping and not place.incoming and version is not None:
                found.append(_leaving(deployment, version, place, facts, land))
    return found


def _leaving(deployment: Deployment, version: Version, place: Placement, facts: Facts, land: Land) -> Leaving:
    to, reason = "", ""
    if place.version == deployment.serving:
        successor = _successor(deployment, place)
        if successor is not None:
            to = successor.worker_id
            name = ReplicaName(deployment=deployment.name, version=place.version, index=place.index)
            fact = facts.get(to)
            reason = fact.waiting.get(name, "") if fact is not None else ""
        else:
            choice = way_out(version, facts, land, deployment.placements, place)
            to, reason = choice.worker_id, choice.reason
    elif place.version == deployment.target:
        reason = "its version is being started; once it serves, it moves"
    else:
        reason = "its version was replaced and ends by itself"
    return Leaving(deployment=deployment.name, version=place.version, index=place.index, to=to, reason=reason)


def _successor(deployment: Deployment, place: Placement) -> Placement | None:
    rows = (each for each in deployment.placements if each.incoming and not each.stopping)
    return next((each for each in rows if (each.version, each.index) == (place.version, place.index)), None)


def _is_drained(facts: Facts, place: Placement) -> bool:
    fact = facts.get(place.worker_id)
    return fact is not None and fact.alive and fact.draining


def _begin(draft: Draft, place: Placement) -> None:
    version = draft.versions[place.version]
    found = way_out(version, draft.facts, draft.land, draft.places, place)
    if not found.worker_id:
        return
    if version.run.strategy.kind == "recreate":
        draft.put(place, stopping=True)
    else:
        draft.place(place.version, place.index, found.worker_id, incoming=True)
    # It gets a new container anyway.
    draft.restarted(place.version, place.index)
    text = f"replica {place.index} moves from worker {place.worker_id}, which is drained, to {found.worker_id}"
    draft.note(place.version, "move", text)


def _bring_on(draft: Draft, place: Placement, successor: Placement) -> None:
    here, there = draft.facts.get(place.worker_id), draft.facts.get(successor.worker_id)
    which, version = f"replica {place.index}", draft.versions[place.version]
    if here is not None and here.alive and not here.draining:
        draft.put(successor, stopping=True)
        draft.note(place.version, "move_called_off", f"{which} stays on worker {place.worker_id}: it is not drained")
        return
    if there is None or not there.alive or there.draining:
        draft.put(successor, stopping=True)
        reason = f"worker {successor.worker_id} takes nothing any more"
        draft.note(place.version, "move_failed", f"{which} stays on worker {place.worker_id} for now: {reason}")
        return
    state = draft.seen(successor)
    if state is None:
        return
    if draft.broke(successor) or hopeless(state) or late(successor, state, version.run, draft.steady):
        draft.put(successor, stopping=True)
        draft.put(place, avoid=[*place.avoid, successor.worker_id])
        reason = f"on {successor.worker_id} {why(state)[1]}"
        draft.note(place.version, "move_failed", f"{which} stays on worker {place.worker_id}: {reason}")
    elif draft.settled(successor):
        draft.put(successor, incoming=False)
        draft.put(place, stopping=True)
        draft.note(place.version, "moved", f"{which} is on worker {successor.worker_id} now")


def _fill(draft: Draft, number: int) -> None:
    """What ended first is started elsewhere once nothing is left of it."""
    version = draft.versions[number]
    have = {each.index for each in draft.traces(number)}
    for index in range(version.run.replicas):
        if index not in have:
            found = choose(version, draft.facts, draft.land, draft.places, "")
            if found.worker_id:
                draft.place(number, index, found.worker_id)

"""What becomes of a version that serves: it fails over, falls back, fails, or is given new containers. Pure."""

import msgspec

from blacktree.deployment import VersionState
from blacktree.orchestrator.draft import Draft
from blacktree.orchestrator.placement import choose, portable


def fail_over(draft: Draft) -> None:
    """Start elsewhere what a silent worker has stopped by now, where the run spec allows that."""
    for place in [each for each in draft.places if not each.stopping and not each.incoming]:
        version = draft.versions[place.version]
        fact = draft.facts.get(place.worker_id)
        patience = version.run.failover_seconds
        if patience is None or fact is None or fact.silent_seconds <= patience or not portable(version):
            continue
        if (successor := draft.successor(place)) is not None:
            # It was being moved when its worker fell silent.
            draft.put(successor, incoming=False)
            worker_id = successor.worker_id
        elif worker_id := choose(version, draft.facts, draft.land, draft.places, "", (place.worker_id,)).worker_id:
            draft.place(place.version, place.index, worker_id)
        else:
            continue
        draft.places.remove(place)
        text = f"replica {place.index} moves from worker {place.worker_id}, silent for {patience:g} s and more,"
        draft.note(place.version, "failover", f"{text} to {worker_id}")


def supervise(draft: Draft) -> None:
    """The version that serves: back to the one before it while that is there, or failed when nothing is left."""
    number = draft.serving
    if number is None:
        return
    places = draft.of(number)
    broken = [state for each in places if (state := draft.broke(each)) is not None]
    if broken and (standby := _standby(draft)) is not None:
        draft.fail_for(number, broken[0])
        draft.serving = standby
        # It is the last that ran, should somebody stop all and start it again.
        draft.versions[standby] = msgspec.structs.replace(
            draft.versions[standby], drain_until=None, running_at=draft.now
        )
        draft.note(standby, "taken_back", f"version {standby} serves again: version {number} broke")
        return
    seen = [draft.seen(each) for each in places]
    failed = [each for each in seen if each is not None and each.state == "failed"]
    if failed and len(failed) == len(places):
        draft.fail_for(number, failed[0])


def _standby(draft: Draft) -> int | None:
    """The version that was replaced, as long as it could take over again."""
    for number in sorted(draft.versions, reverse=True):
        version = draft.versions[number]
        if version.drain_until is not None and version.state is VersionState.RUNNING and draft.all_healthy(number):
            return number
    return None


def restart(draft: Draft) -> None:
    """Replica after replica gets a new container, the next one when the one before it is healthy."""
    number = draft.serving
    version = draft.versions.get(number or 0)
    if number is None or version is None or not version.restarting:
        return
    index = version.restarting[0]
    others = [each for each in draft.of(number) if each.index != index]
    if any((seen := draft.seen(each)) is None or seen.state not in ("healthy", "failed") for each in others):
        return
    draft.restarted(number, index)
    generation = version.generation + 1
    for place in draft.of(number):
        # One that is being moved gets a new container anyway.
        if place.index == index and draft.successor(place) is None:
            draft.versions[number] = msgspec.structs.replace(draft.versions[number], generation=generation)
            draft.put(place, generation=generation, placed_at=draft.steady, healthy_at=None, restarts=0)
            draft.note(number, "restart", f"replica {index} is started anew")

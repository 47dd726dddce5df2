"""What people and builds decide about a deployment, as plain functions: a new version, its image, stop, restart,
rollback. What follows from it is `rollout`'s."""

from datetime import datetime
from typing import Any

import msgspec

from blacktree.deployment import (
    ENDED,
    MAX_VERSIONS,
    Deployment,
    Happening,
    Version,
    VersionState,
    encode_deployment,
    move,
    short,
)
from blacktree.errors import Conflict, NotFound
from blacktree.event import StateChanged
from blacktree.job import Job
from blacktree.storage.documents import MAXIMUM_BYTES

S = VersionState
ROOM_BYTES = MAXIMUM_BYTES // 8


def new(name: str, now: datetime, first_generation: int = 0) -> Deployment:
    """A deployment without versions."""
    return Deployment(name=name, created_at=now, updated_at=now, first_generation=first_generation)


def check_deletable(deployment: Deployment) -> None:
    """Raises `Conflict` (code `not_stopped`) while anything of it runs or is on its way."""
    under_way = [each for each in deployment.versions if each.state not in ENDED]
    if under_way or deployment.placements or deployment.serving or deployment.target:
        state = "is still being stopped" if deployment.desired == "stopped" else "is not stopped"
        raise Conflict(
            f"deployment {deployment.name} {state}",
            code="not_stopped",
            advice=f"`blacktree stop {deployment.name}` first, and wait until its containers are gone",
        )


def add(deployment: Deployment, version: Version, now: datetime) -> Deployment:
    """A further version, whose number it is given here; from here on the deployment is meant to run."""
    version = msgspec.structs.replace(version, number=deployment.next_version, generation=deployment.first_generation)
    added = msgspec.structs.replace(
        deployment,
        versions=[*deployment.versions, version],
        next_version=version.number + 1,
        desired="running",
        updated_at=now,
    )
    told = f"rollback to version {version.rollback_of}" if version.rollback_of else ""
    added = _tell(added, StateChanged(now, version.number, "", S.PENDING, told))
    if version.image:
        added = built(added, version.number, now)
    return prune(added)


def known(deployment: Deployment, version: Version) -> Version | None:
    """The version that was made when the same was asked for with the same key. Raises `Conflict` if it was another."""
    found = next((each for each in deployment.versions if version.key and each.key == version.key), None)
    if found is not None and found.asked != version.asked:
        raise Conflict(
            f"the idempotency key {version.key[:100]!r} stands for another version of {deployment.name}",
            advice="use a new key for a new request",
        )
    return found


def built(deployment: Deployment, number: int, now: datetime, **image: Any) -> Deployment:
    """Its image is there (the fields of `Version` that tell of it): it is to take over, unless a newer one already is.

    A version that is not pending stays as it is.
    """
    version = deployment.version(number)
    if version is None or version.state is not S.PENDING:
        return deployment
    newer = [each for each in deployment.versions if each.number > number and each.state in (S.BUILT, S.RUNNING)]
    if newer:
        return _moved(deployment, number, S.STOPPED, now, f"superseded by version {newer[-1].number}", **image)
    return _aim(_moved(deployment, number, S.BUILT, now, **image), number, now)


def image_of(job: Job) -> dict[str, Any]:
    """The fields of `Version` that tell of a succeeded job's image: pushed, or on its worker alone."""
    image = job.image
    if image is None:
        return {"commit": job.commit}
    if image.digest:
        name = image.reference.partition("@")[0]
        head, slash, tail = name.rpartition("/")
        pulled = f"{head}{slash}{tail.partition(':')[0]}@{image.digest}"
        where: dict[str, Any] = {"image": pulled, "pull": True, "worker_id": None}
    else:
        where = {"image": image.id, "pull": False, "worker_id": job.worker_id}
    return {**where, "reference": image.reference, "digest": image.digest, "commit": job.commit}


def not_built(deployment: Deployment, number: int, now: datetime, job: Job | None) -> Deployment:
    """Its job has ended without an image, or was never put on record."""
    version = deployment.version(number)
    if version is None or version.state is not S.PENDING:
        return deployment
    if job is None:
        return _moved(deployment, number, S.FAILED, now, "its build was never put on record", code="not_submitted")
    if job.state == "canceled":
        why = f": {job.cancel_reason}" if job.cancel_reason else ""
        return _moved(deployment, number, S.STOPPED, now, f"its build {job.id} was canceled{why}", code="canceled")
    error = job.error
    reason = f"its build {job.id} {job.state.replace('_', ' ')}" + (f": {error.message}" if error else "")
    lines = short(error.last_lines) if error else []
    return _moved(deployment, number, S.FAILED, now, reason, code="build_failed", last_lines=lines)


def withdrawn(deployment: Deployment, number: int) -> Deployment:
    """Without a version whose job was not new after all."""
    kept = [each for each in deployment.versions if each.number != number or each.state is not S.PENDING]
    return msgspec.structs.replace(deployment, versions=kept)


def stop(deployment: Deployment, now: datetime) -> Deployment:
    """From here on it is meant to be stopped."""
    return msgspec.structs.replace(deployment, desired="stopped", updated_at=now)


def restart(deployment: Deployment, now: datetime) -> Deployment:
    """New containers for what serves, one replica after the other; for a stopped one, its last version once more.

    Raises `Conflict` when there is nothing that could be started.
    """
    serving = deployment.version(deployment.serving)
    if serving is not None and deployment.desired == "running":
        again = msgspec.structs.replace(serving, restarting=list(range(serving.run.replicas)))
        return msgspec.structs.replace(_with(deployment, again), updated_at=now)
    if deployment.target is not None and deployment.desired == "running":
        raise Conflict(
            f"version {deployment.target} of {deployment.name} is being started",
            code="busy",
            advice="wait for it, or stop it first",
        )
    if any(place.stopping for place in deployment.placements):
        raise Conflict(f"{deployment.name} is still being stopped", code="busy", advice="ask again in a moment")
    # What ran last; what has never run only when nothing else is there.
    ran = [each for each in deployment.versions if each.state in ENDED and each.image]
    chosen = max(ran, key=lambda each: (each.running_at is not None, each.running_at or each.created_at), default=None)
    if chosen is None:
        raise Conflict(
            f"{deployment.name} has no version that could be started",
            code="nothing_to_start",
            advice="deploy an image first",
        )
    running = msgspec.structs.replace(deployment, desired="running")
    changes: dict[str, Any] = {"ended_at": None, "code": "", "last_lines": []}
    return _aim(_moved(running, chosen.number, S.BUILT, now, "restart", **changes), chosen.number, now)


def rollback(deployment: Deployment, number: int | None, now: datetime) -> Deployment:
    """A new version with the image and the run spec of an earlier one: `number`, or the last that ran before what
    serves (or did last) and did not fail.

    Raises `NotFound` for a version that is not on record, `Conflict` for one without an image.
    """
    if number is None:
        ran = [each for each in deployment.versions if each.running_at is not None]
        # What serves, else what did so last.
        current = deployment.version(deployment.serving) or max(ran, key=_ran_at, default=None)
        # A rollback's own copy is no step back from it, nor is what took over later and broke.
        ran = [
            each
            for each in ran
            if current is not None
            and each.state is not S.FAILED
            and (each.image != current.image or each.run != current.run)
        ]
        if not ran:
            raise Conflict(
                f"{deployment.name} has no earlier version that ran and did not fail",
                code="nothing_earlier",
                advice="name the version to go back to",
            )
        chosen = max(ran, key=_ran_at)
    else:
        found = deployment.version(number)
        if found is None:
            known = ", ".join(str(each.number) for each in deployment.versions)
            raise NotFound(f"{deployment.name} has no version {number}", advice=f"it has {known}" if known else "")
        chosen = found
    if not chosen.image:
        raise Conflict(f"version {chosen.number} of {deployment.name} was never built", code="not_built")
    copy = msgspec.structs.replace(
        chosen,
        state=S.PENDING,
        created_at=now,
        rollback_of=chosen.number,
        job_id=None,
        code="",
        reason="",
        last_lines=[],
        running_at=None,
        ended_at=None,
        drain_until=None,
        restarting=[],
        key="",
        asked="",
    )
    return add(deployment, copy, now)


def _ran_at(version: Version) -> datetime:
    return version.running_at or version.created_at


def told(deployment: Deployment, next_number: int) -> Deployment:
    """Without the happenings that have reached the log: those below this number."""
    rest = [each for each in deployment.happenings if each.number >= next_number]
    return (
        msgspec.structs.replace(deployment, happenings=rest) if len(rest) != len(deployment.happenings) else deployment
    )


def prune(deployment: Deployment) -> Deployment:
    """Without the oldest versions that have ended, down to `MAX_VERSIONS` and to what fits in a document."""
    used = {each.version for each in deployment.placements} | {deployment.serving, deployment.target}
    versions = list(deployment.versions)
    while len(versions) > 1 and (
        len(versions) > MAX_VERSIONS or _size(deployment, versions) > MAXIMUM_BYTES - ROOM_BYTES
    ):
        oldest = next((each for each in versions[:-1] if each.state in ENDED and each.number not in used), None)
        if oldest is None:
            break
        versions.remove(oldest)
    return msgspec.structs.replace(deployment, versions=versions)


def _size(deployment: Deployment, versions: list[Version]) -> int:
    return len(encode_deployment(msgspec.structs.replace(deployment, versions=versions)))


def _tell(deployment: Deployment, record: StateChanged) -> Deployment:
    happening = Happening(number=deployment.next_happening, record=record)
    return msgspec.structs.replace(
        deployment, happenings=[*deployment.happenings, happening], next_happening=happening.number + 1
    )


def _with(deployment: Deployment, version: Version) -> Deployment:
    versions = [version if each.number == version.number else each for each in deployment.versions]
    return msgspec.structs.replace(deployment, versions=versions)


def _moved(
    deployment: Deployment, number: int, to: VersionState, now: datetime, reason: str = "", **changes: Any
) -> Deployment:
    version = deployment.version(number)
    assert version is not None
    if to in ENDED:
        changes.setdefault("ended_at", now)
    after = _with(deployment, move(version, to, reason=reason, **changes))
    return msgspec.structs.replace(_tell(after, StateChanged(now, number, version.state, to, reason)), updated_at=now)


def _aim(deployment: Deployment, number: int, now: datetime) -> Deployment:
    """This version is the one to take over now. One that was about to makes way for it."""
    if deployment.target is not None and deployment.target != number:
        old = deployment.target
        placed = any(each.version == old for each in deployment.placements)
        if not placed:
            deployment = _moved(deployment, old, S.STOPPED, now, f"superseded by version {number}")
    if deployment.desired == "stopped":
        return deployment
    return msgspec.structs.replace(deployment, target=number)

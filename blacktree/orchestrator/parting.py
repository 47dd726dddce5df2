"""Decisions about a job that is built in parts, as plain functions from what is on record.

Each platform is a job of its own, which pushes to a tag that nobody looks at. The whole is under way meanwhile, held by
no worker; once all parts are pushed it is queued again, for any worker to put them together under the wanted names.
Only what has ended is built upon, and that does not change any more, so every step may be taken again after a crash.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from blacktree.clock import now
from blacktree.event import CommitResolved, Notice, Record, StateChanged, StepFinished, StepStarted
from blacktree.job import Failure, Job, JobState, Part, move
from blacktree.orchestrator import moves
from blacktree.storage.base import Decide, Decision
from blacktree.tracecontext import new_span_id, parse

S = JobState

Parts = Mapping[str, Job | None]
"""The jobs of a whole by id, as last read; None for one that is not on record."""


class Errands(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about the parts themselves: these put on record, those canceled."""

    create: tuple[Part, ...] = ()
    cancel: tuple[str, ...] = ()


def split(generation: int, parts: Sequence[Part], rules: moves.Rules) -> Decide:
    """queued → assigned → running, without a worker; nothing if the ticket is obsolete."""

    def decide(job: Job) -> Decision | None:
        if job.state is not S.QUEUED or job.generation != generation or job.parts:
            return None
        time = now()
        names = ", ".join(f"{part.platform} (job {part.job_id})" for part in parts)
        records: list[Record] = [
            StateChanged(time, job.attempt, S.QUEUED, S.ASSIGNED, "in parts: no one worker builds all platforms"),
            StateChanged(time, job.attempt, S.ASSIGNED, S.RUNNING, ""),
            Notice(time, job.attempt, "in_parts", f"built in parts: {names}"),
        ]
        after = move(move(job, S.ASSIGNED), S.RUNNING, started_at=job.started_at or time, parts=list(parts), steps=[])
        return _decision(msgspec.structs.replace(after, not_before=None, worker_id=None), records, rules)

    return decide


def part_job(whole: Job, part: Part) -> Job:
    """The job that builds this part. The same whenever it is asked, but for its times and its span."""
    time = now()
    root = parse(whole.trace)
    spec = msgspec.structs.replace(
        whole.spec,
        platform=part.platform,
        platforms=[],
        tags=[part.tag],
        run=None,
        idempotency_key=None,
        traceparent=whole.trace,
    )
    return Job(
        id=part.job_id,
        state=S.QUEUED,
        spec=spec,
        created_at=time,
        queued_at=time,
        commit=whole.commit,
        origin=whole.origin,
        submitted_by=whole.submitted_by,
        part_of=whole.id,
        trace=root.child(new_span_id()).traceparent if root is not None else None,
    )


def errands(whole: Job, parts: Parts) -> Errands:
    """The first part alone until the commit is known: all must build the same one. Nothing new once one has failed."""
    there = {id: job for id, job in parts.items() if job is not None}
    if whole.state is S.CANCELING or any(_failed(job) for job in there.values()):
        return Errands(cancel=tuple(id for id, job in there.items() if not job.ended and job.state is not S.CANCELING))
    missing = tuple(part for part in whole.parts if not part.digest and part.job_id not in there)
    if whole.commit is None and not there:
        return Errands(create=missing[:1])
    # A build that came from no commit leaves none to wait for.
    known = whole.commit is not None or all(job.ended for job in there.values())
    return Errands(create=missing if known else ())


def advance(parts: Parts, rules: moves.Rules) -> Decide:
    """Put on the whole's record what has become of its parts; and its end, or its last leg, once all have ended."""

    def decide(job: Job) -> Decision | None:
        if not job.gathers:
            return None
        time = now()
        records: list[Record] = []
        there = [found for part in job.parts if (found := parts.get(part.job_id)) is not None]
        after = job
        commit = next((each.commit for each in there if each.commit), None)
        if commit is not None and after.commit is None:
            records.append(CommitResolved(time, job.attempt, commit))
            after = msgspec.structs.replace(after, commit=commit)
        for part in job.parts:
            if (found := parts.get(part.job_id)) is not None:
                records += _told(job, part, found, time)
        after = msgspec.structs.replace(
            after, steps=moves.steps_after(after, records), parts=[_with_digest(part, parts) for part in job.parts]
        )
        publish = False
        if all(each.ended for each in there):
            if job.state is S.CANCELING:
                after = move(after, S.CANCELED, finished_at=time)
                records.append(StateChanged(time, job.attempt, job.state, S.CANCELED, job.cancel_reason or ""))
            elif (ended := _worst(there)) is not None:
                state, error = _end(ended)
                after = move(after, state, finished_at=time, error=error)
                records.append(StateChanged(time, job.attempt, job.state, state, error.message))
            elif all(part.digest for part in after.parts):
                after = move(after, S.QUEUED, generation=job.generation + 1, queued_at=time)
                records.append(StateChanged(time, job.attempt, job.state, S.QUEUED, "all parts are pushed"))
                publish = True
        if after == job:
            return None
        decision = _decision(after, records, rules)
        more = (moves.ticket(after),) if publish else ()
        return msgspec.structs.replace(decision, outgoing=(*decision.outgoing, *more))

    return decide


def _with_digest(part: Part, parts: Parts) -> Part:
    job = parts.get(part.job_id)
    return msgspec.structs.replace(part, digest=_digest(job)) if job is not None and not part.digest else part


def _digest(job: Job) -> str:
    """What it has pushed, once it has succeeded."""
    pushed = job.image.digest if job.state is S.SUCCEEDED and job.image is not None else None
    return pushed or ""


def _failed(job: Job) -> bool:
    return job.ended and not _digest(job)


def _worst(parts: Sequence[Job]) -> Job | None:
    """The part that the whole fails with: the first that failed by itself, else one that somebody canceled."""
    failed = [job for job in parts if _failed(job)]
    return min(failed, key=lambda job: (job.state is S.CANCELED, job.finished_at or job.created_at), default=None)


def _end(part: Job) -> tuple[JobState, Failure]:
    platform = part.spec.platform
    if part.state is S.SUCCEEDED:
        message = f"{platform}: built by job {part.id}, which has pushed nothing"
        return S.FAILED, Failure(code="part_not_pushed", message=message, advice="name `push` in worker.steps")
    if part.state is S.CANCELED:
        message = f"{platform}: job {part.id} was canceled"
        return S.FAILED, Failure(code="part_canceled", message=message, advice="`blacktree retry` builds all of it")
    error = part.error or Failure(code=str(part.state), message=f"job {part.id} is {part.state}")
    return part.state, msgspec.structs.replace(error, message=f"{platform}: {error.message}")


def _told(whole: Job, part: Part, job: Job, time: datetime) -> list[Record]:
    """Its step, as it begins and as it ends; once each."""
    step, name = f"part-{part.platform.replace('/', '-')}", f"[{part.platform}] job {part.job_id}"
    known = {each.step: each for each in whole.steps}.get(step)
    told: list[Record] = []
    began = job.started_at or job.finished_at
    if known is None and began is not None:
        told.append(StepStarted(time, whole.attempt, step, name))
    if job.ended and (known is None or known.ok is None):
        seconds = max(0.0, ((job.finished_at or time) - (began or time)).total_seconds())
        told.append(StepFinished(time, whole.attempt, step, name, False, seconds, job.state is S.SUCCEEDED))
    return told


def _decision(job: Job, records: Sequence[Record], rules: moves.Rules) -> Decision:
    return Decision(job=job, records=tuple(records), outgoing=tuple(moves.announce(job, records, rules)))

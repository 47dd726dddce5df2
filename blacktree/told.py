"""A job as everybody outside sees it: over the door, and in messages about its end. Tokens of attempts stay inside."""

from datetime import datetime

import msgspec

from blacktree import job as inside
from blacktree.job import Failure, Image, JobState, Origin, Part, StepRecord
from blacktree.spec import JobSpec


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One hand-off that a worker accepted."""

    attempt: int
    worker_id: str
    assigned_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    error: Failure | None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `waiting` says why it waits, if it does; `tries` counts the attempts that were lost or may be retried.

    `parts`: the jobs that build it, one a platform, where no single worker does; each of them names it in `part_of`.
    `submitted_by`: the name of the token that asked for it at the door; empty where nobody did.
    """

    id: str
    state: JobState
    spec: JobSpec
    attempt: int
    tries: int
    attempts: list[Attempt]
    worker_id: str | None
    commit: str | None
    image: Image | None
    waiting: str | None
    error: Failure | None
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[StepRecord]
    retry_of: str | None
    origin: Origin | None
    part_of: str | None = None
    parts: list[Part] = []
    trace: str | None = None
    submitted_by: str = ""
    cancel_reason: str | None = None


def told(job: inside.Job, *, waiting: str | None = None) -> Job:
    """What is told of it. Not by way of plain dicts: lists of jobs are asked for again and again."""
    return Job(
        id=job.id,
        state=job.state,
        spec=job.spec,
        attempt=job.attempt,
        tries=job.tries,
        attempts=[_attempt(each) for each in job.attempts],
        worker_id=job.worker_id,
        commit=job.commit,
        image=job.image,
        waiting=waiting,
        error=job.error,
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        steps=job.steps,
        retry_of=job.retry_of,
        origin=job.origin,
        part_of=job.part_of,
        parts=job.parts,
        trace=job.trace,
        submitted_by=job.submitted_by,
        cancel_reason=job.cancel_reason,
    )


def _attempt(attempt: inside.Attempt) -> Attempt:
    return Attempt(
        attempt=attempt.attempt,
        worker_id=attempt.worker_id,
        assigned_at=attempt.assigned_at,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        outcome=attempt.outcome,
        error=attempt.error,
    )

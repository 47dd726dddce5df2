"""Every decision about one job, as plain functions from the job on record to what is committed.

They run inside the store's transaction, so what they see is the truth, and whoever commits first wins. The fence
stands here: a report is taken only for the attempt that is current, known by its token.
"""

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from blacktree.clock import now, rfc3339
from blacktree.errors import Conflict
from blacktree.event import CommitResolved, Lines, Notice, Record, StateChanged, StepFinished, StepStarted
from blacktree.job import ENDED, Attempt, Failure, Job, JobState, Outcome, StepRecord, move, with_current
from blacktree.rpc.peer import AttemptName, Batch
from blacktree.storage.base import Decide, Decision, Outgoing

S = JobState
MAX_STEPS = 2000


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the decisions depend on besides the job: back-off (seconds), and which messages are wanted.

    `herald`: what outgoing webhooks are told of these changes."""

    retry_first_seconds: float = 2.0
    retry_limit_seconds: float = 300.0
    status: bool = False
    events: bool = False
    herald: Callable[[Job, Sequence[Record]], list[Outgoing]] | None = None


class Fenced(Conflict):
    """A report for an attempt that is not the current one: nothing of it is accepted."""

    default_code = "fenced"


def ticket(job: Job) -> Outgoing:
    """The message that brings this generation of the job to the dispatcher of its pool."""
    body = msgspec.json.encode({"id": job.id, "generation": job.generation})
    return Outgoing(
        kind="ticket",
        job_id=job.id,
        generation=job.generation,
        pool=job.spec.pool,
        priority=job.spec.priority,
        body=body,
    )


def announce(job: Job, records: Sequence[Record], rules: Rules, first_seq: int = 0) -> list[Outgoing]:
    """What RabbitMQ is told of these records: each state change (if wanted), and the result of an ended job."""
    told: list[Outgoing] = []
    if rules.events:
        for record in records:
            if type(record) is StateChanged:
                body = {
                    "id": job.id,
                    "time": rfc3339(record.time),
                    "attempt": record.attempt,
                    "from": record.previous or None,
                    "to": record.to,
                    "reason": record.reason,
                }
                told.append(Outgoing(kind="event", job_id=job.id, body=msgspec.json.encode(body)))
    # A part is nobody's order: its whole answers.
    if job.part_of is not None:
        return told
    if rules.herald is not None:
        told += rules.herald(job, records)
    if rules.status and job.state in ENDED:
        told.append(Outgoing(kind="status", job_id=job.id))
    return told


def _decision(job: Job, records: list[Record], rules: Rules, *, publish: bool = False) -> Decision:
    told = announce(job, records, rules)
    if publish:
        told.append(ticket(job))
    return Decision(job=job, records=tuple(records), outgoing=tuple(told))


def _changed(
    time: datetime, before: Job, after: JobState, reason: str = "", attempt: int | None = None
) -> StateChanged:
    return StateChanged(time, before.attempt if attempt is None else attempt, before.state, after, reason)


def assign(generation: int, worker_id: str, incarnation: str, token: str, rules: Rules) -> Decide:
    """queued → assigned, if the ticket's generation is the current one; else nothing (the ticket is obsolete)."""

    def decide(job: Job) -> Decision | None:
        if job.state is not S.QUEUED or job.generation != generation:
            return None
        time = now()
        number = job.attempt + 1
        attempt = Attempt(attempt=number, worker_id=worker_id, assigned_at=time, token=token, incarnation=incarnation)
        after = move(
            job, S.ASSIGNED, attempt=number, attempts=[*job.attempts, attempt], worker_id=worker_id, not_before=None
        )
        return _decision(after, [_changed(time, job, S.ASSIGNED, f"worker {worker_id}", number)], rules)

    return decide


def refuse(name: AttemptName, reason: str, rules: Rules) -> Decide:
    """assigned → queued, when the worker did not take it: the attempt never was. A cancel meanwhile ends the job."""

    def decide(job: Job) -> Decision | None:
        if not _is_current(job, name):
            return None
        time = now()
        attempts = job.attempts[:-1]
        if job.state is S.CANCELING:
            after = move(job, S.CANCELED, attempts=attempts, attempt=job.attempt - 1, finished_at=time, worker_id=None)
            return _decision(after, [_changed(time, job, S.CANCELED, job.cancel_reason or "")], rules)
        if job.state is not S.ASSIGNED:
            return None
        after = move(job, S.QUEUED, attempts=attempts, attempt=job.attempt - 1, worker_id=None, queued_at=time)
        return _decision(after, [_changed(time, job, S.QUEUED, f"hand-off refused: {reason}", job.attempt - 1)], rules)

    return decide


def cancel(reason: str, rules: Rules) -> Decide:
    """queued → canceled at once; assigned or running → canceling; anything else stays as it is."""

    def decide(job: Job) -> Decision | None:
        time = now()
        if job.state is S.QUEUED:
            after = move(job, S.CANCELED, finished_at=time, cancel_reason=reason, not_before=None)
        elif job.state in (S.ASSIGNED, S.RUNNING):
            after = move(job, S.CANCELING, cancel_reason=reason)
        else:
            return None
        return _decision(after, [_changed(time, job, after.state, reason)], rules)

    return decide


def order_stop(name: AttemptName, why: str) -> Decide:
    """Put on record that this attempt was ordered to stop, so that its end is judged right even after a restart."""

    def decide(job: Job) -> Decision | None:
        if not _is_current(job, name) or job.attempts[-1].stop:
            return None
        return Decision(job=with_current(job, stop=why))

    return decide


def report(name: AttemptName, batches: Sequence[Batch], rules: Rules) -> Decide:
    """Take the batches that are new, in order, and the outcome if the last one bears it.

    Raises `Fenced` for an attempt that is not current. A batch already on record is passed over; one after a gap
    is left for when the gap is filled.
    """

    def decide(job: Job) -> Decision | None:
        if not _is_current(job, name):
            raise Fenced(f"attempt {name!r} is not the current one")
        expected = job.attempts[-1].next_batch
        fresh: list[Batch] = []
        for batch in batches:
            if batch.number == expected + len(fresh):
                fresh.append(batch)
        if not fresh:
            return None
        records: list[Record] = []
        after = _running(job, records)
        outcome: Outcome | None = None
        for batch in fresh:
            records.extend(batch.records)
            if batch.commit and after.commit is None:
                records.append(CommitResolved(now(), job.attempt, batch.commit))
                after = msgspec.structs.replace(after, commit=batch.commit)
            outcome = outcome or batch.outcome
        after = with_current(after, next_batch=expected + len(fresh))
        after = msgspec.structs.replace(after, steps=steps_after(after, records))
        publish = False
        if outcome is not None and not outcome.proven:
            text = outcome.error.message if outcome.error else "it cannot be shown that nothing of this build is left"
            records.append(Notice(now(), job.attempt, "unproven", text))
            after = with_current(after, unproven=True)
        elif outcome is not None:
            after, publish = _settled(after, outcome, records, rules)
        return _decision(after, records, rules, publish=publish)

    return decide


def fail(name: AttemptName, failure: Failure, rules: Rules) -> Decide:
    """End an attempt that no worker has, or ever will have: as if it had reported this failure."""

    def decide(job: Job) -> Decision | None:
        if not _is_current(job, name):
            return None
        outcome = Outcome(state="failed", error=failure)
        return report(name, [Batch(number=job.attempts[-1].next_batch, outcome=outcome)], rules)(job)

    return decide


def lose(name: AttemptName, why: str, rules: Rules, *, counts: bool = True, code: str = "worker_lost") -> Decide:
    """The attempt's lease is over, or its worker said that nothing of it runs: whatever it still sends is refused.

    `counts`: whether this uses up one of the job's tries.
    """

    def decide(job: Job) -> Decision | None:
        if not _is_current(job, name):
            return None
        time = now()
        stop = job.attempts[-1].stop
        counted = counts and stop != "shutdown"
        records: list[Record] = [Notice(time, job.attempt, code, why)]
        if counts:
            text = "what this attempt printed and had not delivered is lost"
            records.append(Notice(time, job.attempt, "tail_lost", text))
        error = Failure(code=code, message=why, retryable=True)
        after = with_current(job, finished_at=time, outcome="lost" if counted else "returned", error=error)
        if job.state is S.CANCELING:
            after = move(after, S.CANCELED, finished_at=time)
            records.append(_changed(time, job, S.CANCELED, job.cancel_reason or ""))
            return _decision(after, records, rules)
        if stop == "timed_out" and job.state is S.RUNNING:
            after = move(after, S.TIMED_OUT, finished_at=time, error=timed_out(job))
            records.append(_changed(time, job, S.TIMED_OUT, after.error.message if after.error else ""))
            return _decision(after, records, rules)
        if counted and job.tries + 1 >= job.spec.max_attempts:
            most = job.spec.max_attempts
            message = f"{why}; that was the {'only try' if most == 1 else f'last of {most} tries'}"
            final = Failure(code=code, message=message, advice="submit it again with `blacktree retry`", retryable=True)
            after = move(after, S.LOST, tries=job.tries + 1, finished_at=time, error=final)
            records.append(_changed(time, job, S.LOST, message))
            return _decision(after, records, rules)
        after = _again(after, time, why, records, tries=job.tries + counted, wait=None)
        return _decision(after, records, rules, publish=True)

    return decide


def absent(name: AttemptName, rules: Rules) -> Decide:
    """The worker said that nothing of this attempt runs or ever will: a cancel is proven, else it goes back."""
    return lose(name, "the worker does not hold this attempt", rules, counts=False, code="not_held")


def timed_out(job: Job) -> Failure:
    """Why a job that ran too long ended."""
    return Failure(
        code="timed_out",
        message=f"not done after {job.spec.timeout_seconds:g} s",
        advice="raise `timeout_seconds` (--timeout), or make the build quicker",
    )


def steps_after(job: Job, records: Sequence[Record]) -> list[StepRecord]:
    """The job's steps once these records are known; steps of earlier attempts drop out."""
    changed = False
    steps = {step.step: step for step in job.steps if step.attempt == job.attempt}
    for record in records:
        if type(record) is StepStarted:
            if len(steps) < MAX_STEPS:
                steps[record.step] = StepRecord(
                    step=record.step, name=record.name, attempt=job.attempt, started_at=record.time
                )
                changed = True
        elif type(record) is StepFinished:
            earlier = steps.get(record.step)
            if earlier is not None or len(steps) < MAX_STEPS:
                steps[record.step] = StepRecord(
                    step=record.step,
                    name=record.name,
                    attempt=job.attempt,
                    cached=record.cached,
                    seconds=record.seconds,
                    ok=record.ok,
                    started_at=earlier.started_at if earlier else record.time,
                )
                changed = True
    return list(steps.values()) if changed else job.steps


def backoff_seconds(tries: int, rules: Rules) -> float:
    """Exponential, with full jitter above half: the n-th try waits between half and all of first * 2^(n-1)."""
    ceiling = min(rules.retry_limit_seconds, rules.retry_first_seconds * float(1 << min(tries - 1, 30)))
    return ceiling * random.uniform(0.5, 1.0)


def has_lines(records: Sequence[Record]) -> bool:
    """Whether any of these is log text."""
    return any(type(record) is Lines for record in records)


def _is_current(job: Job, name: AttemptName) -> bool:
    current = job.current
    return current is not None and current.attempt == name.attempt and current.token == name.token


def _running(job: Job, records: list[Record]) -> Job:
    """The job once its worker has begun: the first batch of an attempt makes it running."""
    if job.state is not S.ASSIGNED:
        return job
    time = now()
    records.append(_changed(time, job, S.RUNNING))
    after = move(job, S.RUNNING, started_at=job.started_at or time, steps=[])
    return with_current(after, started_at=time)


def _settled(job: Job, outcome: Outcome, records: list[Record], rules: Rules) -> tuple[Job, bool]:
    """The job after its attempt's outcome, and whether it must be queued again."""
    time = now()
    canceling = job.state is S.CANCELING
    after = with_current(job, finished_at=time, outcome=outcome.state, error=outcome.error)
    error = outcome.error
    # Ordered to stop because its time was over: that ends the job, also if its worker names another cause for the end.
    out_of_time = job.attempts[-1].stop == "timed_out" and not canceling
    match outcome.state:
        case "returned" | "failed" if out_of_time and (error is None or error.retryable):
            after = move(after, S.TIMED_OUT, finished_at=time, error=timed_out(job))
            records.append(_changed(time, job, S.TIMED_OUT))
        case "succeeded":
            after = move(after, S.SUCCEEDED, finished_at=time, image=outcome.image)
            records.append(_changed(time, job, S.SUCCEEDED))
        case "timed_out":
            after = move(after, S.TIMED_OUT, finished_at=time, error=error or timed_out(job))
            records.append(_changed(time, job, S.TIMED_OUT))
        case "failed":
            error = error or Failure(code="failed", message="the build failed")
            tries = job.tries + error.retryable
            if error.retryable and not canceling and tries < job.spec.max_attempts:
                wait = backoff_seconds(tries, rules)
                return _again(after, time, error.message, records, tries=tries, wait=wait), wait == 0
            after = move(after, S.FAILED, finished_at=time, error=error, tries=tries)
            records.append(_changed(time, job, S.FAILED, error.message))
        case _ if canceling and outcome.state in ("canceled", "returned"):
            after = move(after, S.CANCELED, finished_at=time)
            records.append(_changed(time, job, S.CANCELED, job.cancel_reason or ""))
        case _:
            # Handed back: a drain, a shutdown, or a worker that stopped for want of contact.
            return _again(after, time, "handed back by its worker", records, tries=job.tries, wait=None), True
    return after, False


def _again(job: Job, time: datetime, reason: str, records: list[Record], *, tries: int, wait: float | None) -> Job:
    """Back to the queue under a new generation: no ticket of an earlier one counts any more."""
    until = time + timedelta(seconds=wait) if wait else None
    text = f"{reason}; again in {wait:.0f} s" if wait else f"{reason}; again"
    records.append(_changed(time, job, S.QUEUED, text))
    return move(
        job,
        S.QUEUED,
        generation=job.generation + 1,
        tries=tries,
        queued_at=time,
        worker_id=None,
        not_before=until,
    )

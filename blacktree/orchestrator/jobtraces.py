"""`JobTraces`: what the orchestrator knows of a job's trace: the job itself, its waits, and attempts that were lost."""

import os
from datetime import datetime

from blacktree.clock import now
from blacktree.concurrency.tracing import Span, Tracer
from blacktree.job import ENDED, Attempt, Job, JobState
from blacktree.spec import JobSpec
from blacktree.storage.base import Commit
from blacktree.tracecontext import TraceContext, attempt_span_id, begin, new_span_id, parse

_WELL = frozenset({JobState.SUCCEEDED, JobState.CANCELED})


class JobTraces:
    """Spans are made of what is on record when a change is committed, so a restart in between loses none of them."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, spec: JobSpec) -> str | None:
        """The `traceparent` of a new job's own span."""
        return begin(parse(spec.traceparent), os.environ).traceparent

    def on_commit(self, commit: Commit) -> None:
        """Tell the spans that this change ended."""
        job, previous = commit.job, commit.previous
        root = parse(job.trace)
        if root is None or not root.sampled or previous is None or previous is job.state:
            return
        newest = job.attempts[-1] if job.attempts else None
        if previous is JobState.QUEUED:
            until = newest.assigned_at if newest is not None and job.state is JobState.ASSIGNED else now()
            self._tell("queued", root, job, start=job.queued_at, end=until)
        if newest is not None and previous is JobState.ASSIGNED and newest.started_at is not None:
            attributes: dict[str, str | int | bool] = {
                "blacktree.attempt": newest.attempt,
                "blacktree.worker": newest.worker_id,
            }
            self._tell("dispatched", root, job, start=newest.assigned_at, end=newest.started_at, more=attributes)
        if newest is not None and newest.outcome == "lost" and newest.finished_at == _time_of(commit):
            self._lost(root, job, newest)
        if job.state in ENDED:
            self._whole(root, job)

    def _tell(
        self,
        name: str,
        root: TraceContext,
        job: Job,
        *,
        start: datetime,
        end: datetime,
        more: dict[str, str | int | bool] | None = None,
    ) -> None:
        context = root.child(new_span_id())
        attributes: dict[str, str | int | bool] = {"blacktree.job": job.id, **(more or {})}
        self._tracer.add(
            Span(name=name, context=context, parent=root.span_id, start=start, end=end, attributes=attributes)
        )

    def _lost(self, root: TraceContext, job: Job, attempt: Attempt) -> None:
        """Its worker cannot tell any more."""
        self._tracer.add(
            Span(
                name="attempt",
                context=root.child(attempt_span_id(root.trace_id, job.id, attempt.attempt)),
                parent=root.span_id,
                start=attempt.started_at or attempt.assigned_at,
                end=attempt.finished_at or now(),
                attributes={
                    "blacktree.job": job.id,
                    "blacktree.attempt": attempt.attempt,
                    "blacktree.worker": attempt.worker_id,
                    "blacktree.outcome": "lost",
                },
                error=attempt.error.message if attempt.error else "lost",
            )
        )

    def _whole(self, root: TraceContext, job: Job) -> None:
        caller = parse(job.spec.traceparent)
        attributes: dict[str, str | int | bool] = {
            "blacktree.job": job.id,
            "blacktree.state": str(job.state),
            "blacktree.pool": job.spec.pool,
            "blacktree.attempts": job.attempt,
            "vcs.repository.url.full": job.spec.repository,
        }
        if job.commit:
            attributes["vcs.ref.head.revision"] = job.commit
        error = None if job.state in _WELL else (job.error.message if job.error else str(job.state))
        self._tracer.add(
            Span(
                name="job",
                context=root,
                parent=caller.span_id if caller is not None and caller.trace_id == root.trace_id else "",
                start=job.created_at,
                end=job.finished_at or now(),
                attributes=attributes,
                error=error,
            )
        )


def _time_of(commit: Commit) -> object:
    return commit.records[-1].time if commit.records else None

"""`AttemptTrace`: an attempt and each of its steps as spans of the job's trace."""

from datetime import datetime

from blacktree.clock import now
from blacktree.concurrency.tracing import Span, Tracer
from blacktree.job import Outcome
from blacktree.rpc.peer import Assignment
from blacktree.tracecontext import TraceContext, attempt_span_id, new_span_id, parse

MOST_OPEN = 1000
_WELL = frozenset({"succeeded", "canceled", "returned"})


class AttemptTrace:
    """Told by the attempt's sink. Steps that nobody ended end with the attempt."""

    def __init__(self, tracer: Tracer, root: TraceContext, assignment: Assignment, worker_id: str) -> None:
        name = assignment.name
        self._tracer = tracer
        self._root = root
        self._context = root.child(attempt_span_id(root.trace_id, name.job_id, name.attempt))
        self._began = now()
        self._open: dict[str, tuple[str, datetime]] = {}
        self._about: dict[str, str | int | bool] = {
            "blacktree.job": name.job_id,
            "blacktree.attempt": name.attempt,
            "blacktree.worker": worker_id,
        }

    def step_started(self, step: str, name: str) -> None:
        """A step began."""
        if len(self._open) < MOST_OPEN:
            self._open[step] = (name, now())

    def step_finished(self, step: str, name: str, *, cached: bool, ok: bool) -> None:
        """A step ended, or came from the cache."""
        _, began = self._open.pop(step, (name, now()))
        self._step(step, name, began, {"blacktree.cached": cached}, None if ok else "failed")

    def finished(self, outcome: Outcome) -> None:
        """The attempt is over."""
        for step, (name, began) in self._open.items():
            self._step(step, name, began, {}, "not ended")
        error = None if outcome.state in _WELL else (outcome.error.message if outcome.error else outcome.state)
        self._tracer.add(
            Span(
                name="attempt",
                context=self._context,
                parent=self._root.span_id,
                start=self._began,
                end=now(),
                attributes={**self._about, "blacktree.outcome": outcome.state},
                error=error,
            )
        )

    def _step(
        self, step: str, name: str, began: datetime, more: dict[str, str | int | bool], error: str | None
    ) -> None:
        self._tracer.add(
            Span(
                name=f"step {name}"[:256],
                context=self._root.child(new_span_id()),
                parent=self._context.span_id,
                start=began,
                end=now(),
                attributes={**self._about, "blacktree.step": step, **more},
                error=error,
            )
        )


def trace_of(tracer: Tracer | None, assignment: Assignment, worker_id: str) -> AttemptTrace | None:
    """None where nothing is traced, or this job is not."""
    root = parse(assignment.traceparent) if tracer is not None else None
    if tracer is None or root is None or not root.sampled:
        return None
    return AttemptTrace(tracer, root, assignment, worker_id)

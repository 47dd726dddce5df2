"""What jobs, attempts and steps took, counted as their changes are committed; and how the queue stands."""

import re
from datetime import datetime

import structlog
import trio

from blacktree.clock import now
from blacktree.concurrency.every import every
from blacktree.errors import StorageFailed
from blacktree.event import Lines, Record, StepFinished
from blacktree.histogram import OTHER, QUICK, Histogram, Spread
from blacktree.job import ACTIVE, JobState
from blacktree.spec import DEFAULT_POOL
from blacktree.storage.base import Commit, Store

LOOK_SECONDS = 2.0
_OUTCOMES = ("succeeded", "failed", "canceled", "timed_out", "lost", "returned")

_INSTRUCTIONS = frozenset(
    [
        "add",
        "arg",
        "cmd",
        "copy",
        "entrypoint",
        "env",
        "expose",
        "from",
        "healthcheck",
        "label",
        "maintainer",
        "onbuild",
        "run",
        "shell",
        "stopsignal",
        "user",
        "volume",
        "workdir",
    ]
)
_INSTRUCTION = re.compile(r"(?:\[[^\]]*\] ?){0,2}([A-Za-z]+)\b")

log = structlog.get_logger()


class Measures:
    """Histograms and counters over every job of this process's life. Nothing here is labelled by what users name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._oldest: dict[str, datetime] = {}
        # What is counted is there from the start: an increase from nothing to one is none to Prometheus.
        self._queued = {DEFAULT_POOL: 0}
        self.waits = Spread(most=64)
        self.dispatch = Histogram(QUICK)
        self.jobs = Spread()
        self.steps = Spread()
        self.attempts = dict.fromkeys(_OUTCOMES, 0)
        self.log_bytes = 0
        self.log_lines = 0

    def on_commit(self, commit: Commit) -> None:
        """See what this change ended."""
        job, previous = commit.job, commit.previous
        self._count(commit.records)
        if previous is job.state or previous is None:
            return
        newest = job.attempts[-1] if job.attempts else None
        if previous is JobState.ASSIGNED and newest is not None and newest.started_at is not None:
            self.waits.observe(_seconds(job.queued_at, newest.assigned_at), job.spec.pool)
            self.dispatch.observe(_seconds(newest.assigned_at, newest.started_at))
        if previous in ACTIVE and job.state not in ACTIVE and _ended_now(commit):
            assert newest is not None
            outcome = newest.outcome or OTHER
            self.attempts[outcome] = self.attempts.get(outcome, 0) + 1
        if job.ended and job.finished_at is not None:
            self.jobs.observe(_seconds(job.started_at or job.created_at, job.finished_at), job.state)

    def _count(self, records: tuple[Record, ...]) -> None:
        for record in records:
            if type(record) is Lines:
                text = record.text
                self.log_bytes += len(text) if text.isascii() else len(text.encode())
                self.log_lines += text.count("\n")
            elif type(record) is StepFinished:
                outcome = ("cached" if record.cached else "succeeded") if record.ok else "failed"
                self.steps.observe(record.seconds, step_kind(record.step, record.name), outcome)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the queue every other second, until cancelled."""
        task_status.started()
        async for _ in every(LOOK_SECONDS):
            try:
                queued = await self._store.queued_by_pool()
                self._oldest = await self._store.oldest_queued() if queued else {}
                self._queued = dict.fromkeys(self._queued, 0) | queued
            except StorageFailed as error:
                log.info("queue not looked at", reason=str(error))

    def figures(self) -> dict[str, object]:
        """For `/metrics`."""
        moment = now()
        return {
            "queue_jobs": self._queued,
            "queue_oldest_seconds": dict.fromkeys(self._queued, 0.0)
            | {pool: _seconds(since, moment) for pool, since in self._oldest.items()},
            "job_wait_seconds": self.waits.parts,
            "job_dispatch_seconds": self.dispatch,
            "job_duration_seconds": self.jobs.parts,
            "step_duration_seconds": self.steps.parts,
            "attempts_total": self.attempts,
            "log_bytes_total": self.log_bytes,
            "log_lines_total": self.log_lines,
        }


def step_kind(step: str, name: str) -> str:
    """What sort of step this is, of a fixed few: the farm's own, or the instruction of the Dockerfile."""
    if step in ("sync", "tag", "push"):
        return step
    if step.startswith("push"):
        return "push_layer"
    if name.startswith("[internal]"):
        return "internal"
    if name.startswith(("exporting", "importing")):
        return "export" if name.startswith("ex") else "import"
    found = _INSTRUCTION.match(name)
    word = found[1].lower() if found else ""
    return word if word in _INSTRUCTIONS else OTHER


def _ended_now(commit: Commit) -> bool:
    """Whether the newest attempt ended in this change; one whose hand-off was refused never was."""
    attempts, records = commit.job.attempts, commit.records
    return bool(attempts and records and attempts[-1].finished_at == records[-1].time)


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())

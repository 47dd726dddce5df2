"""The attempts that workers hold now, and the one cancel scope of each job."""

import math
from collections.abc import Iterable

import trio

from blacktree.clock import now
from blacktree.job import Job, JobState
from blacktree.rpc.peer import AttemptName
from blacktree.storage.base import Commit


class Held:
    """One attempt that is current on record. `done` is set once it no longer is, whatever became of the job."""

    def __init__(self, job: Job) -> None:
        attempt = job.attempts[-1]
        self.job = job
        self.name = AttemptName(job_id=job.id, attempt=attempt.attempt, token=attempt.token)
        self.worker_id = attempt.worker_id
        self.incarnation = attempt.incarnation
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.why = attempt.stop or ("canceled" if job.state is JobState.CANCELING else "")
        self.grant_until = -math.inf
        # One that has begun was taken, also where this process did not see it.
        self.accepted = attempt.started_at is not None
        self.waits_for_lease = False

    @property
    def unproven(self) -> bool:
        """Whether its worker is done with it and could not show that nothing is left: only time is proof then."""
        return not self.done.is_set() and self.job.attempts[-1].unproven

    def stop(self, why: str) -> None:
        """End this job's wait: its task then asks the worker to stop. The first reason counts."""
        if not self.why:
            self.why = why
        self.scope.cancel(reason=self.why)


class Book:
    """Every current attempt by job id; kept in step with the record by listening to its commits."""

    def __init__(self, *, timeout_margin_seconds: float = 2.0) -> None:
        self._held: dict[str, Held] = {}
        self._margin = timeout_margin_seconds

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: AttemptName) -> Held | None:
        """The held attempt of exactly this name, token included."""
        held = self._held.get(name.job_id)
        return held if held is not None and held.name == name else None

    def of_job(self, job_id: str) -> Held | None:
        """The held attempt of this job, if a worker has one."""
        return self._held.get(job_id)

    def of_worker(self, worker_id: str) -> list[Held]:
        """Everything that this worker holds."""
        return [held for held in self._held.values() if held.worker_id == worker_id]

    def workers(self) -> set[str]:
        """The workers that hold anything."""
        return {held.worker_id for held in self._held.values()}

    def enter(self, jobs: Iterable[Job]) -> list[Held]:
        """Take unfinished jobs from the record at the start."""
        entered = [Held(job) for job in jobs]
        for held in entered:
            if held.job.state is JobState.RUNNING and (began := held.job.attempts[-1].started_at) is not None:
                timeout = held.job.spec.timeout_seconds
                # A clock that was set back meanwhile gives no more time than there is at most.
                left = min(timeout, max(0.0, timeout - (now() - began).total_seconds()))
                held.scope.deadline = trio.current_time() + left + self._margin
        self._held |= {held.name.job_id: held for held in entered}
        return entered

    def on_commit(self, commit: Commit) -> None:
        """Follow the record: a new attempt enters, one that is over leaves, a cancel reaches its scope."""
        job = commit.job
        held = self._held.get(job.id)
        current = job.current
        if held is not None and (current is None or current.token != held.name.token):
            del self._held[job.id]
            held.job = job
            held.done.set()
            held = None
        if current is None:
            return
        if held is None:
            held = self._held[job.id] = Held(job)
        held.job = job
        if commit.previous is JobState.ASSIGNED and job.state is JobState.RUNNING:
            held.scope.deadline = trio.current_time() + job.spec.timeout_seconds + self._margin
        if job.state is JobState.CANCELING and commit.previous is not JobState.CANCELING:
            held.stop("canceled")

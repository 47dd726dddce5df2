"""What this worker answers to: `WorkerSide`. It refuses what the machine cannot hold, and says why."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from blacktree.errors import NotAllowed
from blacktree.rpc.peer import (
    Answer,
    Assignment,
    AttemptName,
    PingAnswer,
    StopAnswer,
    StopOrder,
)
from blacktree.rpc.replica import ReplicaAck, ReplicaOrders
from blacktree.worker.attempt import Attempt
from blacktree.worker.identity import Identity
from blacktree.worker.pipeline import Pipeline
from blacktree.worker.replicas import Replicas
from blacktree.worker.roster import Roster
from blacktree.worker.standing import Standing

log = structlog.get_logger()


class Intake:
    """Builds start here, in the daemon's `builds` nursery."""

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        standing: Standing,
        pipeline: Pipeline,
        builds: trio.Nursery,
        make: Callable[[Assignment], Attempt],
        changed: Callable[[], None],
        admission: Callable[[], Awaitable[None]],
        replicas: Replicas | None = None,
    ) -> None:
        self._identity = identity
        self._roster = roster
        self._standing = standing
        self._pipeline = pipeline
        self._builds = builds
        self._make = make
        self._changed = changed
        self._admission = admission
        self._replicas = replicas

    async def run_jobs(self, assignments: Sequence[Assignment]) -> list[Answer]:
        await trio.lowlevel.checkpoint()
        await self._admission()
        answers = [self._run(assignment) for assignment in assignments]
        # The guard and the reporter hear of all of them at once.
        self._changed()
        return answers

    async def stop_jobs(self, orders: Sequence[StopOrder]) -> list[StopAnswer]:
        await trio.lowlevel.checkpoint()
        return [self._stop(order) for order in orders]

    async def ping(self) -> PingAnswer:
        await trio.lowlevel.checkpoint()
        return PingAnswer(
            worker_id=self._identity.worker_id,
            incarnation=self._identity.incarnation,
            status=self._standing.status(),
        )

    async def apply_replicas(self, orders: ReplicaOrders) -> ReplicaAck:
        await trio.lowlevel.checkpoint()
        if self._replicas is None:
            raise NotAllowed("this worker runs no replicas: its provider keeps no containers", code="no_replicas")
        return await self._replicas.apply(orders)

    def _run(self, assignment: Assignment) -> Answer:
        name = assignment.name
        if (earlier := self._roster.earlier(name)) is not None:
            return earlier
        answer = self._judge(name)
        self._roster.remember(name, answer)
        if answer.accepted:
            attempt = self._make(assignment)
            self._roster.held[attempt.key] = attempt
            self._builds.start_soon(self._pipeline.run, attempt, name=f"build {name!r}")
        else:
            log.info("job refused", job=name.job_id, attempt=name.attempt, code=answer.code, reason=answer.reason)
        return answer

    def _judge(self, name: AttemptName) -> Answer:
        code, reason = self._standing.refusal()
        if not code and (name.job_id, name.attempt) in self._roster.held:
            code, reason = "attempt_held", "another token was used for this attempt before"
        if not code and self._roster.holds_job(name.job_id):
            code, reason = "job_held", "an earlier attempt of this job has not ended here yet"
        if not code and self._standing.full:
            code, reason = "busy", "all slots are busy"
        return Answer(accepted=not code, code=code, reason=reason)

    def _stop(self, order: StopOrder) -> StopAnswer:
        attempt = self._roster.find(order.name)
        if attempt is None:
            # It may still be on its way: a stop that overtakes its job must not be forgotten.
            gone = Answer(accepted=False, code="stopped", reason="this attempt was stopped before it came")
            if self._roster.earlier(order.name) is None:
                self._roster.remember(order.name, gone)
            return StopAnswer(known=False)
        log.info("build stops", job=order.name.job_id, attempt=order.name.attempt, why=order.why)
        attempt.stop(order.why, order.reason)
        return StopAnswer(known=True)

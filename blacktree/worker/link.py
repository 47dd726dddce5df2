"""The worker's end of the conversation: registers, reports, obeys verdicts, keeps the lease.

A report is also the heartbeat. One call is under way at a time, and it carries what gathered for all attempts while
the one before was on its way.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence

import structlog
import trio

from blacktree.errors import BadRequest, BlacktreeError, NotAllowed, Unavailable
from blacktree.job import Failure
from blacktree.rpc.peer import (
    MAX_REPORT_BYTES,
    Admission,
    AttemptReport,
    Batch,
    OrchestratorSide,
    Registration,
    Report,
    ReportAnswer,
    Verdict,
)
from blacktree.services.reliability.retry import backoff_seconds
from blacktree.worker.attempt import Attempt
from blacktree.worker.bell import Bell
from blacktree.worker.guard import Guard
from blacktree.worker.identity import Identity
from blacktree.worker.lease import Lease, boottime
from blacktree.worker.outbox import BATCH_BYTES
from blacktree.worker.roster import Roster
from blacktree.worker.standing import Standing

log = structlog.get_logger()

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
REFUSED_PAUSE_SECONDS = 30.0
REGISTER_SECONDS = 10.0
LOOK_SECONDS = 0.25
ADMISSION_SECONDS = 1.0


def pause(failures: int, longest: float = LONGEST_PAUSE_SECONDS) -> float:
    """How long to wait after so many failures in a row before this one."""
    return backoff_seconds(failures + 1, FIRST_PAUSE_SECONDS, longest, random.random)


class Link:
    """`run` for ever; `watch` beside it keeps the lease honest, also while a call is under way."""

    def __init__(
        self,
        side: OrchestratorSide,
        identity: Identity,
        roster: Roster,
        standing: Standing,
        lease: Lease,
        bell: Bell,
        guard: Guard,
        present: Callable[[], Registration],
    ) -> None:
        self._side = side
        self._identity = identity
        self._roster = roster
        self._standing = standing
        self._lease = lease
        self._bell = bell
        self._guard = guard
        self._present = present
        self._first = 0
        self._suspects: deque[Attempt | None] = deque()
        self._known = False
        self._emptied = trio.Event()
        self._contact = trio.Event()
        self._admission = trio.Event()

    async def run(self) -> None:
        """Register, report until the orchestrator does not know us any more, and again. Ends when cancelled."""
        while True:
            await self._register()
            await self._report()
            # Whoever admits us and then does not know us must not be asked in circles.
            await trio.sleep(pause(0))

    async def watch(self) -> None:
        """Stop what must end before the lease does, and throw away what outlived it. Ends when cancelled."""
        while True:
            self.keep()
            # An idle worker has nothing to lose and looks rarely.
            wait = LOOK_SECONDS if self._roster.held else 5 * LOOK_SECONDS
            with trio.move_on_after(min(wait, max(self._lease.seconds, 1.0) / 20)):
                await self._contact.wait()

    def keep(self) -> None:
        """Hold the attempts against the lease, now; and tell the guard."""
        now = boottime()
        building = self._roster.building
        self._guard.deadline(self._lease.kill_at if building else 0.0)
        if not self._roster.held or not self._lease.ends:
            return
        if self._lease.over(now):
            for attempt in self._roster.held.values():
                if attempt.why != "fenced":
                    log.error("lease over, attempt dropped", job=attempt.name.job_id, attempt=attempt.name.attempt)
                attempt.stop("fenced", "the worker's lease is over")
            self._settle()
        elif not self._lease.holds(now):
            for attempt in building:
                if not attempt.why:
                    log.warning("no contact, build stops", job=attempt.name.job_id, attempt=attempt.name.attempt)
                attempt.stop("shutdown", "the orchestrator was out of reach for too long")

    async def admission(self) -> None:
        """Wait out a registration that is under way: its first job may overtake its answer."""
        if not self._known:
            with trio.move_on_after(ADMISSION_SECONDS):
                await self._admission.wait()

    async def emptied(self) -> None:
        """Wait until every outcome is stored, or thrown away."""
        while self._roster.held:
            await self._emptied.wait()

    async def leave(self) -> None:
        """Say good-bye. An orchestrator that does not hear it counts the lease out."""
        if self._known:
            try:
                await self._side.leave(self._identity.worker_id, self._identity.incarnation)
            except BlacktreeError as error:
                log.info("left without an answer", reason=str(error))

    async def _register(self) -> None:
        failures = 0
        self._known = False
        self._admission = trio.Event()
        while True:
            self.keep()
            sent = boottime()
            try:
                with trio.fail_after(REGISTER_SECONDS):
                    admission = await self._side.register(self._present())
            except (Unavailable, trio.TooSlowError) as error:
                # The first one is news, the others are not.
                level = log.warning if failures == 0 else log.debug
                level("the orchestrator is out of reach", reason=str(error) or "no answer in time")
                await trio.sleep(pause(failures, self._longest_pause()))
                failures += 1
            except BlacktreeError as error:
                log.error("the orchestrator refuses this worker", reason=error.message, advice=error.advice)
                await trio.sleep(REFUSED_PAUSE_SECONDS * random.uniform(0.5, 1.0))
            else:
                self._admitted(admission, sent)
                return

    def _admitted(self, admission: Admission, sent: float) -> None:
        self._known = True
        self._identity.remember(admission)
        self._standing.draining = admission.drain
        self._renew(sent, admission.lease_seconds)
        self._admission.set()
        log.info("registered", farm=admission.farm_id, lease_seconds=admission.lease_seconds)
        self._obey(admission.verdicts, sent)

    async def _report(self) -> None:
        failures = 0
        while True:
            await self._bell.hear(self._lease.heartbeat_seconds)
            while True:
                self.keep()
                report, told = await self._gather()
                sent = boottime()
                try:
                    with trio.fail_after(max(self._lease.heartbeat_seconds, 0.5)):
                        answer = await self._side.report(report)
                    break
                except NotAllowed as error:
                    log.error("the orchestrator refuses this worker", reason=error.message, advice=error.advice)
                    return
                except (BlacktreeError, trio.TooSlowError) as error:
                    if isinstance(error, BadRequest) and self._look_for_the_culprit(report, error):
                        continue
                    level = log.warning if failures == 0 else log.debug
                    level("report not answered", reason=str(error) or "no answer in time")
                    await trio.sleep(pause(failures, self._longest_pause()))
                    failures += 1
            failures = 0
            if not answer.known:
                log.warning("the orchestrator does not know this worker")
                return
            if self._suspects:
                self._suspects.popleft()
            self._standing.draining = answer.drain
            self._renew(sent, None)
            self._obey(answer.verdicts, sent)
            self._ring_for_rest(told, answer)

    async def _gather(self) -> tuple[Report, int]:
        """Every attempt is listed; who comes first changes, so that one loud build does not silence the others."""
        attempts = [each for each in self._roster.held.values() if each.why != "fenced"]
        while self._suspects and (first := self._suspects[0]) is not None:
            if first in attempts and first.outbox.pending:
                break
            self._suspects.popleft()
        if attempts:
            self._first = (self._first + 1) % len(attempts)
            attempts = attempts[self._first :] + attempts[: self._first]
        left = MAX_REPORT_BYTES - 2 * BATCH_BYTES
        told = 0
        reports: list[AttemptReport] = []
        for attempt in attempts:
            batches, size = await self._take(attempt, left)
            left -= size
            told += len(batches)
            wants = attempt.wants_publish
            names = list(attempt.references) if wants else []
            reports.append(AttemptReport(name=attempt.name, batches=batches, publish=wants, references=names))
        report = Report(
            worker_id=self._identity.worker_id,
            incarnation=self._identity.incarnation,
            status=self._standing.status(),
            attempts=reports,
        )
        return report, told

    async def _take(self, attempt: Attempt, most_bytes: int) -> tuple[list[Batch], int]:
        if self._suspects:
            # One batch of one attempt a report, until it is known which one is refused.
            return await attempt.outbox.take(0) if attempt is self._suspects[0] else ([], 0)
        return await attempt.outbox.take(most_bytes) if most_bytes > 0 and attempt.outbox.pending else ([], 0)

    def _look_for_the_culprit(self, report: Report, error: BadRequest) -> bool:
        """The orchestrator cannot read this: find whose it is, and end that one. False if it is nobody's."""
        if self._suspects:
            culprit = self._suspects.popleft()
            if culprit is None or culprit.outbox.refused:
                # Refused although it brings nothing of any build, or nothing that a build wrote.
                self._suspects.clear()
                return False
            log.error("report refused", job=culprit.name.job_id, attempt=culprit.name.attempt, reason=str(error))
            culprit.outbox.refuse(
                Failure(
                    code="report_refused",
                    message=f"the orchestrator refuses what this attempt reports: {error.message}",
                    advice="this is a fault of a step or of Blacktree, not of the build; see the worker's log",
                )
            )
            culprit.stop("shutdown", "its report was refused")
            return True
        names = [each.name for each in report.attempts if each.batches]
        if names:
            # First without any batch: what the worker says of itself is no attempt's fault.
            found = [each for name in names if (each := self._roster.find(name)) is not None]
            self._suspects.extend([None, *found])
        return bool(names)

    def _renew(self, sent: float, seconds: float | None) -> None:
        self._lease.renew(sent, seconds)
        self._contact.set()
        self._contact = trio.Event()
        self.keep()

    def _obey(self, verdicts: Sequence[Verdict], sent: float) -> None:
        for verdict in verdicts:
            attempt = self._roster.find(verdict.name)
            if attempt is None:
                continue
            if verdict.stop == "fenced":
                attempt.stop("fenced")
                continue
            if not attempt.outbox.acknowledge(verdict.next_batch):
                log.error("asked for what was stored before", job=verdict.name.job_id, batch=verdict.next_batch)
                attempt.stop("fenced", "the orchestrator lost what it had stored")
            if verdict.stop:
                attempt.stop(verdict.stop)
            if verdict.publish_seconds > 0:
                attempt.grant(sent + verdict.publish_seconds, verdict.withheld)
        self._settle()

    def _settle(self) -> None:
        self._roster.settle()
        if not self._roster.held:
            self._emptied.set()
            self._emptied = trio.Event()

    def _ring_for_rest(self, told: int, answer: ReportAnswer) -> None:
        """What did not fit goes at once if the last call was of use, else at the usual pace."""
        rest = [each for each in self._roster.held.values() if each.why != "fenced" and each.outbox.pending]
        if not rest:
            return
        if told and answer.verdicts and any(each.outbox.memory_bytes > BATCH_BYTES for each in rest):
            self._bell.ring_urgently()
        else:
            self._bell.ring()

    def _longest_pause(self) -> float:
        """While builds run, trying again must not cost them their lease."""
        return min(LONGEST_PAUSE_SECONDS, self._lease.seconds / 12) if self._roster.held else LONGEST_PAUSE_SECONDS

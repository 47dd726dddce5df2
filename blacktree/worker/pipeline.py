"""A build, read top to bottom: gate, directory, secrets, steps, outcome. And the proof that nothing of it is left."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog
import trio

from blacktree.concurrency.threads import in_thread
from blacktree.concurrency.tracing import Tracer
from blacktree.config import WorkerConfig
from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.job import Failure, Image, Outcome
from blacktree.providers.aws.ecr import Ecr, settings_of
from blacktree.providers.base import Provider, Unproven
from blacktree.providers.docker.logins import reader
from blacktree.rpc.peer import Assignment
from blacktree.secretfiles import SecretDirectory
from blacktree.services.core.context import Build, Pushed
from blacktree.services.core.masking import Masker
from blacktree.services.core.workspace import open_workspace
from blacktree.worker import logins
from blacktree.worker.attempt import Attempt
from blacktree.worker.attempttrace import trace_of
from blacktree.worker.identity import Identity
from blacktree.worker.report import AttemptSink
from blacktree.worker.roster import Roster
from blacktree.worker.standing import Standing
from blacktree.worker.steps import MakeStep
from blacktree.worker.verdict import chief, failure, stopped

log = structlog.get_logger()

# How long a build whose end could not be shown holds back its outcome while the engine is swept.
PROOF_SECONDS = 8.0
PROOF_PAUSE_SECONDS = 0.25
# The one step that puts together what other jobs have built and pushed.
PUSH = "push"


class Pipeline:
    """Runs attempts. One for all of a worker's builds."""

    def __init__(
        self,
        config: WorkerConfig,
        provider: Provider,
        steps: Sequence[tuple[str, MakeStep]],
        identity: Identity,
        roster: Roster,
        standing: Standing,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._provider = provider
        self._steps = steps
        self._identity = identity
        self._roster = roster
        self._standing = standing
        self._tracer = tracer
        self._ecr = Ecr(settings_of(config))
        self._login = logins.with_ecr(self._ecr, reader(os.environ))

    async def run(self, attempt: Attempt) -> None:
        """Build it and leave the outcome in its outbox. Raises nothing: this is the edge of one job."""
        structlog.contextvars.bind_contextvars(job=attempt.name.job_id, attempt=attempt.name.attempt)
        trace = trace_of(self._tracer, attempt.assignment, self._identity.worker_id)
        sink = AttemptSink(attempt.outbox, attempt.name.attempt, trace)
        attempt.outbox.begin()
        log.debug("build began")
        began = trio.current_time()
        try:
            outcome = await self._build(attempt, sink)
            sink.flush()
            attempt.outbox.finish(outcome)
            if trace is not None:
                trace.finished(outcome)
        finally:
            attempt.building = False
            self._standing.built = True
        log.info("build ended", outcome=outcome.state, seconds=round(trio.current_time() - began, 3))

    async def _build(self, attempt: Attempt, sink: AttemptSink) -> Outcome:
        running = ""
        build: Build | None = None
        complete = False
        timeout = attempt.assignment.spec.timeout_seconds
        attempt.scope.deadline = trio.current_time() + timeout
        try:
            with attempt.scope:
                await self._standing.gate()
                async with open_workspace(self._identity.state, attempt.name.job_id, attempt.name.attempt) as workspace:
                    build = await self._prepare(attempt, sink, workspace)
                    for name, make in self._steps:
                        if build.parts and name != PUSH:
                            continue
                        running = name
                        await make().run(build)
                    if build.parts and build.image is None:
                        raise _no_push()
                    # Every step is done: from here on the build has succeeded, whatever is ordered.
                    complete = True
        except Exception as error:
            return await self._judged(attempt, sink, chief(error), running)
        if complete and build is not None:
            return Outcome(state="succeeded", image=build.image or _nameless(build))
        return stopped(attempt.why, timeout)

    async def _judged(self, attempt: Attempt, sink: AttemptSink, error: BaseException, running: str) -> Outcome:
        proven = True
        if isinstance(error, Unproven | EngineLost):
            proven = await self._prove(attempt, sink, error)
        if isinstance(error, Unproven) and attempt.scope.cancel_called:
            return stopped(attempt.why, attempt.assignment.spec.timeout_seconds, proven=proven)
        if not isinstance(error, BlacktreeError | Unproven):
            log.error("a step broke", step=running, exc_info=error)
        sink.flush()
        step = getattr(error, "step", "") or running
        found = failure(error, running, sink.tail.lines(step))
        return Outcome(state="failed", error=self._told(sink, found), proven=proven)

    def _told(self, sink: AttemptSink, found: Failure) -> Failure:
        """The failure as the reader gets it: masked, and with advice where none came with it."""
        step = sink.masked(found.step) if found.step else found.step
        message, advice = sink.masked(found.message), sink.masked(found.advice)
        return msgspec.structs.replace(found, step=step, message=message, advice=advice)

    async def _prove(self, attempt: Attempt, sink: AttemptSink, error: BaseException) -> bool:
        """Sweep until nothing of the build is left. Without success the worker stays suspect and takes no work."""
        job_id = attempt.name.job_id
        what = error.what if isinstance(error, Unproven) else str(error)
        self._standing.suspect = f"unproven: something of job {job_id} may still run on the engine: {what}"
        self._standing.left_open.add(job_id)
        log.warning("end not proven", what=what)
        # Not to be hurried: who asked for the end waits for this proof, and the lease bounds it anyway.
        with trio.move_on_after(PROOF_SECONDS, shield=True):
            while True:
                try:
                    await self._provider.sweep([each for each in self._roster.alive_jobs if each != job_id])
                    if not await self._provider.remaining(job_id):
                        self._standing.left_open.discard(job_id)
                        if not self._standing.left_open:
                            self._standing.suspect = ""
                        return True
                except (BlacktreeError, Unproven) as again:
                    log.info("sweep failed", reason=str(again))
                await trio.sleep(PROOF_PAUSE_SECONDS)
        sink.notice_nowait("unproven", f"it could not be shown that nothing of this attempt is left: {what}")
        return False

    async def _prepare(self, attempt: Attempt, sink: AttemptSink, workspace: Path) -> Build:
        assignment = attempt.assignment
        secrets = await self._secrets(assignment)
        if hidden := [*secrets.values(), *logins.to_hide(assignment)]:
            masker = Masker(hidden)
            sink.hide(masker)
            if masker.ignored:
                await sink.notice("secret_too_short", f"{masker.ignored} secrets are too short to be masked in the log")
        return Build(
            job_id=attempt.name.job_id,
            attempt=attempt.name.attempt,
            spec=assignment.spec,
            config=self._config,
            workspace=workspace,
            provider=self._provider,
            sink=sink,
            resolved=sink.resolved,
            publishing=attempt.publishing,
            expect_publishing=attempt.expect,
            allow_local_sources=assignment.allow_local_sources,
            commit=assignment.commit,
            trusted=assignment.trusted,
            cache_from=assignment.cache_from,
            part=assignment.part,
            parts=[Pushed(platform=each.platform, digest=each.digest, tag=each.tag) for each in assignment.parts],
            secrets=secrets,
            clone_token=assignment.clone_token,
            login=logins.login_for(assignment, self._login),
            ecr=self._ecr if assignment.trusted else None,
        )

    async def _secrets(self, assignment: Assignment) -> Mapping[str, bytes]:
        """What came with the job, and from this worker's own store what did not."""
        missing = [name for name in assignment.spec.secrets if name not in assignment.secrets]
        if not missing or not assignment.trusted:
            return assignment.secrets
        store = SecretDirectory(self._config.secrets_directory)
        return assignment.secrets | await in_thread(lambda: store.read(missing))


def _no_push() -> StepFailed:
    advice = "name it, or let another pool's workers put the parts together"
    return StepFailed("there is no step `push` in worker.steps", code="no_push_step", advice=advice, step=PUSH)


def _nameless(build: Build) -> Image | None:
    """What was built where no step gives it a name."""
    return Image(reference=build.built.id, id=build.built.id) if build.built else None

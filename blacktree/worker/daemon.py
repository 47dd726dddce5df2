"""The worker's nursery tree: island ▸ provider ▸ links ▸ builds. Ending is leaving it."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

import blacktree
from blacktree.concurrency.every import every
from blacktree.concurrency.island import open_island
from blacktree.concurrency.notify import notify, watchdog_seconds
from blacktree.concurrency.stopping import stopping
from blacktree.concurrency.tracing import Tracer, open_tracer
from blacktree.config import Config, WorkerConfig, default_state_directory
from blacktree.errors import BadRequest, BlacktreeError
from blacktree.platforms import runs
from blacktree.providers import open_provider
from blacktree.providers.base import Provider, ProviderSettings
from blacktree.rpc.client import connect_orchestrator
from blacktree.rpc.peer import PROTOCOL_VERSION, Assignment, OrchestratorSide, Registration
from blacktree.rpc.replica import CAPABILITY as REPLICAS
from blacktree.rpc.replica import KEEPS
from blacktree.rpc.server import serve_worker
from blacktree.rpc.tls import Tls, require_tls
from blacktree.worker.attempt import Attempt
from blacktree.worker.bell import Bell
from blacktree.worker.guard import Guard
from blacktree.worker.housekeeping import Housekeeping
from blacktree.worker.identity import Identity, open_identity
from blacktree.worker.intake import Intake
from blacktree.worker.lease import Lease
from blacktree.worker.link import Link
from blacktree.worker.outbox import Outbox
from blacktree.worker.pipeline import PROOF_SECONDS, Pipeline
from blacktree.worker.roster import Roster
from blacktree.worker.running import fence_of, find_running
from blacktree.worker.spool import Spool, SpoolBudget
from blacktree.worker.standing import Standing
from blacktree.worker.steps import MakeStep, find_steps
from blacktree.worker.verdict import leaves

log = structlog.get_logger()

# After the builds have ended: for their outcomes to be stored, and for the good-bye.
FAREWELL_SECONDS = 1.5
FIRST_SWEEP_SECONDS = 20.0
FIRST_SWEEP_PAUSE_SECONDS = 1.0
STATUS_SECONDS = 5.0


async def serve(
    config: Config,
    *,
    signals: bool = True,
    guarded: bool = True,
    stop: trio.Event | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a worker until it is told to leave: by SIGTERM (if `signals`), or by `stop`.

    `started` gives the address it serves on; it registers from then on. `guarded` false: no guard process, for a
    worker that shares its process with the orchestrator and would take it along.
    Raises `BadRequest` or `NotAllowed` for a configuration that cannot work, `Conflict` for a state directory in use.
    """
    worker = config.worker
    steps = find_steps(worker.steps)
    tls = _tls(worker)
    for address in (worker.listen, worker.orchestrator):
        require_tls(address, tls, worker.allow_plaintext_grpc)
    state = Path(worker.state_directory or default_state_directory(os.environ, "worker"))
    token = _join_token(worker.join_token_file)
    worker = msgspec.structs.replace(worker, state_directory=str(state))
    with open_identity(worker.id, state) as identity, _unwrapped():
        settings = ProviderSettings(owner=identity.owner, engine=worker.engine, state_directory=str(state))
        async with open_island(), open_provider(worker.provider, settings) as provider:
            # A connection that ends is news: an orchestrator that was restarted must not wait for the next heartbeat.
            bell = Bell()
            connect = connect_orchestrator(worker.orchestrator, join_token=token, tls=tls, on_lost=bell.ring)
            tracing = open_tracer(config.traces, "blacktree-worker", identity.worker_id)
            async with tracing as tracer, connect as side:
                daemon = Daemon(worker, identity, provider, steps, side, bell, tracer)
                await daemon.run(token, tls, signals=signals, guarded=guarded, stop=stop, task_status=task_status)


@contextmanager
def _unwrapped() -> Iterator[None]:
    """One error of ours comes out as itself, not as the groups of the nurseries that it passed."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = list(leaves(group))
        if len(found) == 1 and isinstance(found[0], BlacktreeError):
            raise found[0] from None
        raise


class Daemon:
    """The parts of one worker, put together."""

    def __init__(
        self,
        config: WorkerConfig,
        identity: Identity,
        provider: Provider,
        steps: list[tuple[str, MakeStep]],
        side: OrchestratorSide,
        bell: Bell,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._identity = identity
        self._address = ""
        self._spool_budget = SpoolBudget(config.spool_bytes)
        self._leaving = trio.Event()
        self._hurry = trio.Event()
        self.bell = bell
        self.lease = Lease()
        self.roster = Roster()
        self.standing = Standing(config, identity.state, self.roster, self.lease)
        self.guard = Guard(self._guard_changed, fence_of(config, identity, provider))
        self.pipeline = Pipeline(config, provider, steps, identity, self.roster, self.standing, tracer)
        self.link = Link(
            side, identity, self.roster, self.standing, self.lease, self.bell, self.guard, self._registration
        )
        self.running = find_running(config, identity, provider, side, self.lease)
        self.housekeeping = Housekeeping(config, provider, identity, self.roster, self.standing, self.bell.ring)

    def leave(self) -> None:
        """Take nothing more, let the builds run on for the grace. A second time: without it."""
        if self._leaving.is_set():
            self._hurry.set()
        self._leaving.set()

    async def run(
        self,
        token: str,
        tls: Tls | None,
        *,
        signals: bool,
        guarded: bool,
        stop: trio.Event | None,
        task_status: trio.TaskStatus[str],
    ) -> None:
        with self._closing():
            async with trio.open_nursery() as links:
                if signals:
                    await links.start(stopping, self.leave, self.leave)
                if stop is not None:
                    links.start_soon(self._hear, stop, name="stop")
                if guarded:
                    await links.start(self.guard.run, name="guard")
                async with trio.open_nursery() as builds:
                    intake = Intake(
                        self._identity,
                        self.roster,
                        self.standing,
                        self.pipeline,
                        builds,
                        self._attempt,
                        self.link.keep,
                        self.link.admission,
                        self.running.replicas if self.running else None,
                    )
                    if self.running:
                        # First of all: their fronts must be open again as soon as can be.
                        await links.start(self.running.run)
                    serving = partial(serve_worker, intake, self._config.listen, join_token=token, tls=tls)
                    self._address = await links.start(serving, name="rpc")
                    notify("READY=1")
                    task_status.started(self._address)
                    log.info("worker serves", worker=self._identity.worker_id, address=self._address)
                    links.start_soon(self._connect, name="link")
                    links.start_soon(self.link.watch, name="lease")
                    links.start_soon(self._tell_systemd, name="systemd")
                    await self._leaving.wait()
                    notify("STOPPING=1")
                    self.standing.leaving = True
                    self.bell.ring_urgently()
                    log.info("worker leaves", builds=len(self.roster.building))
                    await self._wait_out_the_grace()
                    for attempt in self.roster.building:
                        attempt.stop("shutdown", "the worker shuts down")
                    builds.cancel_scope.deadline = trio.current_time() + PROOF_SECONDS + FAREWELL_SECONDS
                with trio.move_on_after(FAREWELL_SECONDS):
                    await self.link.emptied()
                    await self.link.leave()
                links.cancel_scope.cancel()

    async def _connect(self) -> None:
        await self._first_sweep()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.run, name="report")
            nursery.start_soon(self.housekeeping.run, name="housekeeping")

    async def _first_sweep(self) -> None:
        """What a predecessor left goes before we present ourselves: the orchestrator takes our word for it.

        Where the engine is away, the predecessor's lease is waited out instead; then we come, and say what is wrong.
        """
        last = self._identity.last_admission()
        with trio.move_on_after(max(last.lease_seconds, FIRST_SWEEP_SECONDS)):
            while True:
                await self.housekeeping.check()
                if not self.standing.health.refusal and await self.housekeeping.sweep():
                    return
                if not last.lease_seconds:
                    return  # it was never admitted anywhere: nobody's attempts can be left
                await trio.sleep(FIRST_SWEEP_PAUSE_SECONDS)

    async def _wait_out_the_grace(self) -> None:
        with trio.move_on_after(self._config.shutdown_grace_seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._built, nursery.cancel_scope)
                await self._hurry.wait()
                nursery.cancel_scope.cancel()

    async def _built(self, scope: trio.CancelScope) -> None:
        async for _ in every(0.02):
            if not self.roster.building:
                scope.cancel()

    async def _tell_systemd(self) -> None:
        """The watchdog hears from us as long as tasks are run at all."""
        async for _ in every(watchdog_seconds() or STATUS_SECONDS):
            building = len(self.roster.building)
            _, refusal = self.standing.refusal()
            status = f"{building} of {self._config.slots} slots busy" + (f"; {refusal}" if refusal else "")
            if not notify(f"WATCHDOG=1\nSTATUS={status}"):
                return

    async def _hear(self, stop: trio.Event) -> None:
        await stop.wait()
        self.leave()

    def _attempt(self, assignment: Assignment) -> Attempt:
        spool = Spool(self._identity.state, self._spool_budget)
        return Attempt(assignment, Outbox(self.bell, spool, attempt=assignment.name.attempt), self.bell)

    def _guard_changed(self) -> None:
        self.standing.guarded = self.guard.up
        self.link.keep()
        self.bell.ring()

    def _registration(self) -> Registration:
        config = self._config
        return Registration(
            worker_id=self._identity.worker_id,
            incarnation=self._identity.incarnation,
            secret=self._identity.secret,
            protocol=PROTOCOL_VERSION,
            version=blacktree.__version__,
            address=config.advertise or self._address,
            pool=config.pool,
            labels=config.labels,
            platform=runs(platform.machine())[0],
            status=self.standing.status(),
            running=[each.name for each in self.roster.held.values() if each.why != "fenced"],
            capabilities=[REPLICAS, KEEPS] if self.running else [],
        )

    @contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.guard.close()
            for attempt in self.roster.held.values():
                attempt.outbox.discard()


def _tls(config: WorkerConfig) -> Tls | None:
    if not (config.tls_certificate_file or config.tls_key_file or config.tls_ca_file):
        return None
    return Tls(certificate_file=config.tls_certificate_file, key_file=config.tls_key_file, ca_file=config.tls_ca_file)


def _join_token(path: str) -> str:
    if not path:
        raise BadRequest(
            "the worker has no join token",
            path="worker.join_token_file",
            code="invalid_config",
            advice="copy the orchestrator's join token to a file and name it in worker.join_token_file",
        )
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"cannot read the join token in {path}: {getattr(error, 'strerror', None) or error}",
            path="worker.join_token_file",
            code="invalid_config",
            advice="check the path and its permissions",
        ) from None
    if not token:
        raise BadRequest(f"{path} is empty", path="worker.join_token_file", code="invalid_config")
    return token

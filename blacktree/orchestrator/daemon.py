"""The orchestrator's nursery tree: services ▸ running ▸ intake. Ending is nothing but leaving it."""

import platform
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
import trio

from blacktree import __version__
from blacktree.clock import new_id
from blacktree.concurrency.island import open_island
from blacktree.concurrency.loopdelay import sample_loop_delay
from blacktree.concurrency.notify import notify, reloading
from blacktree.concurrency.stopping import stopping
from blacktree.concurrency.tracing import Tracer, open_tracer
from blacktree.config import Config
from blacktree.errors import BlacktreeError
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.parts import Parts
from blacktree.rpc.server import serve_orchestrator
from blacktree.rpc.tls import Tls, require_tls
from blacktree.scaling import OpenWorkerProvider
from blacktree.spec import DEFAULT_POOL
from blacktree.storage import open_store
from blacktree.storage.base import Store

log = structlog.get_logger()

FAREWELL_SECONDS = 1.5


class Door(Protocol):
    """A way in, handed in by whoever puts the parts together."""

    async def run(self, *, task_status: trio.TaskStatus[Any]) -> None:
        """Serve until cancelled; `started()` once it can be reached."""
        ...

    def reload(self) -> None:
        """SIGHUP: read what may have changed on disk. Raises `BadRequest`; then everything is as before."""
        ...


Doors = Callable[[Control], Sequence[Door]]


async def serve(
    config: Config,
    *,
    doors: Doors = lambda control: (),
    signals: bool = True,
    stop: trio.Event | None = None,
    farewell: Callable[[], Awaitable[None]] | None = None,
    key_place: Callable[[str], KeyPlace] = lambda farm_id: KeyPlace(),
    open_worker_provider: OpenWorkerProvider | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The whole daemon, until SIGTERM (with `signals`) or `stop`. `started()` gives the gRPC address.

    `farewell` is awaited, for a bounded time, when all jobs are settled and workers can still leave in order.
    `open_worker_provider`: who starts workers for `[scaling]`; without one no pool is scaled.
    Cancelling it is like the second SIGTERM: builds are stopped on their workers without grace and go back.
    `key_place` says where the key of this farm's secrets is.
    """
    settings = config.orchestrator
    token = _read_token(settings.join_token_file)
    tls = _tls(config)
    require_tls(settings.grpc_listen, tls, settings.allow_plaintext_grpc)
    store = open_store(settings.state_directory or None, minimum_free_bytes=settings.minimum_free_disk_bytes)
    stop, hurry = trio.Event() if stop is None else stop, trio.Event()
    house: House | None = None

    def reload() -> None:
        if house is not None:
            house.reload()

    tracing = open_tracer(config.traces, "blacktree-orchestrator")
    async with tracing as tracer, open_island(), trio.open_nursery() as ground:
        if signals:
            # Before all that may take long: to be told to end while starting is nothing to die of.
            await ground.start(stopping, stop.set, hurry.set, reload)
        await ground.start(store.run)
        house = await _build(config, store, token, tls, key_place, open_worker_provider, tracer)
        await house.live(
            doors,
            token,
            tls,
            stop=stop,
            hurry=hurry,
            farewell=farewell,
            task_status=task_status,
        )
        ground.cancel_scope.cancel(reason="everything else has ended")


def _read_token(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()


def _tls(config: Config) -> Tls | None:
    settings = config.orchestrator
    # Any of them: half a setting must not mean plaintext.
    if not (settings.tls_certificate_file or settings.tls_key_file or settings.tls_client_ca_file):
        return None
    return Tls(
        certificate_file=settings.tls_certificate_file,
        key_file=settings.tls_key_file,
        ca_file=settings.tls_client_ca_file,
    )


async def _build(
    config: Config,
    store: Store,
    token: str,
    tls: Tls | None,
    key_place: Callable[[str], KeyPlace],
    open_worker_provider: OpenWorkerProvider | None,
    tracer: Tracer | None,
) -> "House":
    farm_id = await store.meta("farm_id", new_id())
    assert farm_id is not None
    return House(config, store, farm_id, token, tls, key_place(farm_id), open_worker_provider, tracer)


class House(Parts):
    """The parts, alive: three rings."""

    async def live(
        self,
        doors: Doors,
        token: str,
        tls: Tls | None,
        *,
        stop: trio.Event,
        hurry: trio.Event,
        farewell: Callable[[], Awaitable[None]] | None,
        task_status: trio.TaskStatus[str],
    ) -> None:
        """The three rings, from the first to the last."""
        self.doors: list[Door] = []
        settings = self.config.orchestrator
        await self.journal.count()
        await self.vault.load()
        await self.access.load()
        await self.audit.load()
        await self.sources.load()
        await self.targets.load()
        await self.notifier.load()
        await self.groups.load(self.store)
        await self.deployments.start()
        await self.reconciler.start()
        await self.tokens.start()
        unfinished = await self.store.unfinished()
        for whole in unfinished:
            if whole.gathers:
                self.splits.take(whole.id)
        adopted = self.book.enter(job for job in unfinished if not job.gathers)
        async with trio.open_nursery() as services:
            await services.start(self.broker.run)
            await services.start(self.chronicle.run)
            await services.start(self.audit.run)
            await services.start(self.relay.run)
            await services.start(self.delays.run)
            await services.start(self.tokens.run)
            await services.start(self.workers.run)
            await services.start(self.losses.run)
            await services.start(self.splits.run)
            await services.start(self.deployments.run)
            serve_grpc = partial(serve_orchestrator, self.registration, settings.grpc_listen, join_token=token, tls=tls)
            address = await services.start(serve_grpc)
            # Whatever was under way has one full lease, from when its worker can reach us again.
            for worker_id in self.book.workers():
                self.workers.renew(worker_id)
            for held in adopted:
                if held.unproven:
                    self.losses.unproven(held)
            await services.start(self.statuses.run)
            await services.start(self.notifier.run)
            await services.start(self.hookwork.run)
            await services.start(self.retention.run)
            for door in doors(self.desk):
                self.doors.append(door)
                await services.start(door.run)
            await services.start(self.condition.run, self.intake)
            await services.start(self.measures.run)
            await services.start(sample_loop_delay, self.condition.loop_delay)
            await services.start(self.scaler.run, address)
            async with trio.open_nursery() as running:
                for held in adopted:
                    running.start_soon(self.jobs.adopt, held, name=f"job {held.name.job_id}")
                async with trio.open_nursery() as intake:
                    await intake.start(self.intake.run, running)
                    for pool in {DEFAULT_POOL, *(await self.store.pools())}:
                        self.intake.ensure(pool)
                    await services.start(self.reconciler.run)
                    self._ready(address, adopted=len(adopted))
                    task_status.started(address)
                    await stop.wait()
                    self._leaving()
                    # The grace runs while the lanes close: a broker that does not answer must not lengthen it.
                    running.cancel_scope.deadline = trio.current_time() + settings.shutdown_grace_seconds
                    services.start_soon(_cut_short, hurry, running.cancel_scope)
                    intake.cancel_scope.cancel(reason="stop taking work")
            self.registration.closing = True
            with trio.move_on_after(FAREWELL_SECONDS):
                async with trio.open_nursery() as leaving:
                    leaving.start_soon(self.scaler.leave)
                    if farewell is not None:
                        leaving.start_soon(farewell)
            self.chronicle.note("stopped", "the orchestrator stopped")
            services.cancel_scope.cancel(reason="all jobs settled")

    def _ready(self, address: str, *, adopted: int) -> None:
        self.condition.set("ready")
        text = f"the orchestrator started (version {__version__}, {platform.node()})"
        self.chronicle.note("started", text)
        log.info("ready", grpc=address, broker=self.broker.status().kind, adopted=adopted)
        notify("READY=1")

    def _leaving(self) -> None:
        self.condition.set("draining")
        self.scaler.close()
        self.chronicle.note("stopping", "the orchestrator is shutting down")
        grace = self.config.orchestrator.shutdown_grace_seconds
        patience = {"grace_seconds": grace, "cut_by": "a second signal"} if len(self.book) else {}
        log.info("shutting down", running=len(self.book), **patience)
        notify(f"STOPPING=1\nSTATUS=shutting down, {len(self.book)} builds running")

    def reload(self) -> None:
        """SIGHUP: the doors' certificates are read anew, secrets are at each use; the farm's log is told."""
        if self.condition.phase != "ready":
            # READY=1 is a promise that the door answers, and after STOPPING=1 there is no way back.
            return
        reloading()
        text = "SIGHUP: the door's certificate was read anew, secrets are at each use; changed settings need a restart"
        try:
            for door in self.doors:
                door.reload()
        except BlacktreeError as error:
            log.error("the old certificate is still used", reason=str(error))
            text = f"SIGHUP: the door's old certificate is still used: {error}"
        self.chronicle.note("reloaded", text)
        notify("READY=1")


async def _cut_short(hurry: trio.Event, running: trio.CancelScope) -> None:
    await hurry.wait()
    running.cancel(reason="second signal")

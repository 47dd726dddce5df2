"""The orchestrator's nursery tree: services ▸ running ▸ intake. Ending is nothing but leaving it."""

import platform
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
import trio

from blacktree import __version__
from blacktree.broker import open_broker
from blacktree.clock import new_id
from blacktree.concurrency.island import open_island
from blacktree.concurrency.notify import notify, reloading
from blacktree.concurrency.stopping import stopping
from blacktree.config import Config
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator import moves
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.clonetokens import CloneTokens
from blacktree.orchestrator.condition import Condition, figures
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.deliveries import Deliveries
from blacktree.orchestrator.deploymentdesk import DeploymentDesk
from blacktree.orchestrator.deployments import Deployments
from blacktree.orchestrator.desk import Desk
from blacktree.orchestrator.enclosure import enclosed
from blacktree.orchestrator.groups import Groups
from blacktree.orchestrator.held import Book
from blacktree.orchestrator.hooks import Hooks
from blacktree.orchestrator.hookwork import HookWork
from blacktree.orchestrator.intake import Intake
from blacktree.orchestrator.jobs import Jobs
from blacktree.orchestrator.journal import Journal
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.losses import Losses
from blacktree.orchestrator.original import Translator
from blacktree.orchestrator.parcel import Parcels
from blacktree.orchestrator.publications import Publications
from blacktree.orchestrator.recent import Recent
from blacktree.orchestrator.reconcile import Delays, Reconciler
from blacktree.orchestrator.registration import RegistrationDesk
from blacktree.orchestrator.relay import Relay
from blacktree.orchestrator.retention import Retention
from blacktree.orchestrator.runlogs import RuntimeLogs
from blacktree.orchestrator.runsecrets import RunSecrets
from blacktree.orchestrator.scaler import Scaler
from blacktree.orchestrator.sources import Sources, own_places
from blacktree.orchestrator.statuses import Statuses
from blacktree.orchestrator.vault import Vault
from blacktree.orchestrator.workers import Workers
from blacktree.rpc.client import connect_worker
from blacktree.rpc.server import serve_orchestrator
from blacktree.rpc.tls import Tls, require_tls
from blacktree.scaling import OpenWorkerProvider
from blacktree.secretfiles import SecretDirectory
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

    async with open_island(), trio.open_nursery() as ground:
        if signals:
            # Before all that may take long: to be told to end while starting is nothing to die of.
            await ground.start(stopping, stop.set, hurry.set, reload)
        await ground.start(store.run)
        house = await _build(config, store, token, tls, key_place, open_worker_provider)
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
) -> "House":
    farm_id = await store.meta("farm_id", new_id())
    assert farm_id is not None
    return House(config, store, farm_id, token, tls, key_place(farm_id), open_worker_provider)


class House:
    """Every long-lived part of the orchestrator, put together once."""

    def __init__(
        self,
        config: Config,
        store: Store,
        farm_id: str,
        token: str,
        tls: Tls | None,
        key_place: KeyPlace,
        open_worker_provider: OpenWorkerProvider | None = None,
    ) -> None:
        settings = config.orchestrator
        rabbit = bool(settings.broker_url)
        rules = moves.Rules(
            retry_first_seconds=settings.retry_first_seconds,
            retry_limit_seconds=settings.retry_limit_seconds,
            # Without RabbitMQ nobody could read these queues.
            status=rabbit,
            events=rabbit and config.queue.events,
        )
        self.config = config
        self.store = store
        self.broker = open_broker(config, store, farm_id)
        self.journal = Journal(store)
        self.chronicle = Chronicle(store, self.journal.touch)
        self.book = Book()
        self.recent = Recent()
        self.relay = Relay(store, self.broker)
        self.publications = Publications(store, self.book)
        self.retention = Retention(store, self.chronicle, settings.retention_days, self._forgotten)
        self.delays = Delays(self.relay)
        self.workers = Workers(
            store,
            self.book,
            self.chronicle,
            lambda address: connect_worker(address, join_token=token, tls=tls),
            lease_seconds=settings.lease_seconds,
            ping_seconds=settings.health_interval_seconds,
            changed=self.journal.touch,
        )
        self.losses = Losses(store, self.workers, self.book, rules)
        self.vault = Vault(
            store, Keyring(key_place), lambda type, text, about: self.chronicle.note(type, text, subject=about)
        )
        self.secrets = SecretDirectory(settings.secrets_directory)
        self.tokens = CloneTokens(store, self.vault)
        self.jobs = Jobs(
            store,
            self.workers,
            self.book,
            self.recent,
            self.chronicle,
            rules,
            accept=lambda submission, ticket, then: self.desk.accept(submission, ticket, then),
            translate=Translator(config.queue).submission,
            parcels=Parcels(
                self.tokens,
                lambda job: enclosed(job, self.vault, self.secrets),
                self.publications.cache_for,
                allow_local_sources=settings.allow_local_sources,
            ),
            slot_wait_seconds=settings.slot_wait_seconds,
        )
        self.intake = Intake(
            self.broker,
            self.workers,
            self.jobs,
            self.chronicle,
            prefetch=config.queue.prefetch,
            maximum_pools=settings.maximum_pools,
        )
        self.sources = Sources(
            store, self.chronicle, config.sources, own_places(config.door.public_url, settings.listen)
        )
        self.groups = Groups()
        self.statuses = Statuses(
            store,
            self.sources,
            self.vault,
            self.chronicle,
            public_url=config.door.public_url,
            first_seconds=settings.retry_first_seconds,
            limit_seconds=settings.retry_limit_seconds,
        )
        webhooks = config.webhooks
        deliveries = Deliveries(store, days=webhooks.remember_days, most=webhooks.maximum_remembered)
        self.hookwork = HookWork(
            store,
            self.sources,
            deliveries,
            self.groups,
            lambda spec, origin, not_before: self.desk.submit_from(spec, origin, not_before),
            self.statuses,
            self.chronicle,
            rules,
            settle_seconds=webhooks.settle_seconds,
        )
        self.hooks = Hooks(self.sources, deliveries, self.vault, self.hookwork)
        run_secrets = RunSecrets(self.vault)
        runtime_logs = RuntimeLogs(store, keep_bytes=settings.runtime_log_bytes, status=rabbit)
        self.deployments = Deployments(store, self.workers, self.chronicle, runtime_logs, run_secrets)
        self.condition = Condition(store, self.broker, self.journal)
        self.scaler = Scaler(
            config,
            store,
            self.workers,
            self.chronicle,
            open_worker_provider,
            farm_id=farm_id,
            occupied=self.deployments.placed,
        )
        self.condition.more.append(self.scaler.troubles)
        self.desk = Desk(
            store,
            self.broker,
            self.workers,
            self.journal,
            self.intake,
            self.chronicle,
            rules,
            self.tokens,
            allow_local_sources=settings.allow_local_sources,
            readiness=self.condition.readiness,
            figures=self.figures,
            secrets=self.vault,
            sources=self.sources,
            hooks=self.hooks,
            deployments=DeploymentDesk(
                store,
                self.deployments,
                self.journal,
                run_secrets,
                submit=lambda spec, key, actor: self.desk.submit(spec, key=key, actor=actor),
                readiness=self.condition.readiness,
            ),
            hope=self.scaler.waiting,
        )
        self.registration = RegistrationDesk(
            store,
            self.workers,
            self.book,
            self.losses,
            self.publications,
            rules,
            self.deployments,
            farm_id=farm_id,
            ensure_pool=self.intake.ensure,
        )
        self.reconciler = Reconciler(
            store, self.broker, self.relay, self.intake, self.delays, self.chronicle, self.jobs.aside
        )
        for listener in (
            self.book.on_commit,
            self.recent.on_commit,
            self.relay.on_commit,
            self.tokens.on_commit,
            self.delays.on_commit,
            self.journal.on_commit,
            self.groups.on_commit,
            self.statuses.on_commit,
            self.deployments.on_commit,
            self.scaler.on_commit,
        ):
            store.listen(listener, streams=listener in (self.relay.on_commit, self.journal.on_commit))

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
        settings = self.config.orchestrator
        await self.journal.count()
        await self.vault.load()
        await self.sources.load()
        await self.groups.load(self.store)
        await self.deployments.start()
        await self.reconciler.start()
        await self.tokens.start()
        adopted = self.book.enter(await self.store.unfinished())
        async with trio.open_nursery() as services:
            await services.start(self.broker.run)
            await services.start(self.chronicle.run)
            await services.start(self.relay.run)
            await services.start(self.delays.run)
            await services.start(self.tokens.run)
            await services.start(self.workers.run)
            await services.start(self.losses.run)
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
            await services.start(self.hookwork.run)
            await services.start(self.retention.run)
            for door in doors(self.desk):
                await services.start(door.run)
            await services.start(self.condition.run, self.intake)
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
        log.info("shutting down", running=len(self.book))
        notify(f"STOPPING=1\nSTATUS=shutting down, {len(self.book)} builds running")

    def reload(self) -> None:
        """SIGHUP: secrets are read anew at each use, so there is nothing to swap; the farm's log is told."""
        if self.condition.phase != "ready":
            # READY=1 is a promise that the door answers, and after STOPPING=1 there is no way back.
            return
        reloading()
        self.chronicle.note("reloaded", "SIGHUP: secrets are read anew at each use; changed settings need a restart")
        notify("READY=1")

    async def _forgotten(self) -> None:
        await self.publications.forget()
        await self.journal.count()

    def figures(self) -> dict[str, Any]:
        """See `Control.figures`."""
        return (
            self.deployments.figures()
            | self.hooks.figures()
            | self.scaler.figures()
            | figures(
                book=self.book,
                jobs=self.jobs,
                journal=self.journal,
                losses=self.losses,
                relay=self.relay,
                workers=self.workers,
                broker=self.broker,
                condition=self.condition,
            )
        )


async def _cut_short(hurry: trio.Event, running: trio.CancelScope) -> None:
    await hurry.wait()
    running.cancel(reason="second signal")

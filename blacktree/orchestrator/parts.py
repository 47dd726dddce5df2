"""`Parts`: every long-lived part of the orchestrator, put together once, with who knows whom."""

from typing import Any

from blacktree.broker import open_broker
from blacktree.concurrency.tracing import Tracer
from blacktree.config import Config
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator import moves
from blacktree.orchestrator.audit import Audit
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.clonetokens import CloneTokens
from blacktree.orchestrator.condition import Condition, figures
from blacktree.orchestrator.deliveries import Deliveries
from blacktree.orchestrator.deploymentdesk import DeploymentDesk
from blacktree.orchestrator.deployments import Deployments
from blacktree.orchestrator.desk import Desk
from blacktree.orchestrator.enclosure import enclosed
from blacktree.orchestrator.groups import Groups
from blacktree.orchestrator.held import Book
from blacktree.orchestrator.herald import Herald
from blacktree.orchestrator.hooks import Hooks
from blacktree.orchestrator.hookwork import HookWork
from blacktree.orchestrator.intake import Intake
from blacktree.orchestrator.jobs import Jobs
from blacktree.orchestrator.jobtraces import JobTraces
from blacktree.orchestrator.journal import Journal
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.losses import Losses
from blacktree.orchestrator.measures import Measures
from blacktree.orchestrator.notifier import Notifier
from blacktree.orchestrator.notifydesk import NotifyDesk
from blacktree.orchestrator.original import Translator
from blacktree.orchestrator.parcel import Parcels
from blacktree.orchestrator.parking import Parking
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
from blacktree.orchestrator.splits import Splits
from blacktree.orchestrator.statuses import Statuses
from blacktree.orchestrator.targets import Targets
from blacktree.orchestrator.tokens import Tokens
from blacktree.orchestrator.vault import Vault
from blacktree.orchestrator.workers import Workers
from blacktree.rpc.client import connect_worker
from blacktree.rpc.tls import Tls
from blacktree.scaling import OpenWorkerProvider
from blacktree.secretfiles import SecretDirectory
from blacktree.storage.base import Store


class Parts:
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
        tracer: Tracer | None = None,
    ) -> None:
        settings = config.orchestrator
        rabbit = bool(settings.broker_url)
        self.targets = Targets(store, config.notify)
        herald = Herald(self.targets, config.door.public_url)
        rules = moves.Rules(
            retry_first_seconds=settings.retry_first_seconds,
            retry_limit_seconds=settings.retry_limit_seconds,
            # Without RabbitMQ nobody could read these queues.
            status=rabbit,
            events=rabbit and config.queue.events,
            herald=herald.of_job,
        )
        self.config = config
        self._tracer = tracer
        traces = JobTraces(tracer) if tracer is not None else None
        self.store = store
        self.broker = open_broker(config, store, farm_id)
        self.journal = Journal(store)
        self.chronicle = Chronicle(store, self.journal.touch)
        self.book = Book()
        self.recent = Recent()
        self.measures = Measures(store)
        self.relay = Relay(store, self.broker, events=rules.events)
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
        self.splits = Splits(store, rules)
        self.losses = Losses(store, self.workers, self.book, rules)
        self.vault = Vault(
            store, Keyring(key_place), lambda type, text, about: self.chronicle.note(type, text, subject=about)
        )
        self.secrets = SecretDirectory(settings.secrets_directory)
        self.tokens = CloneTokens(store, self.vault)
        self.access = Tokens(store)
        self.audit = Audit(store, days=config.door.audit_days)
        self.parking = Parking(self.workers)
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
            parking=self.parking,
            slot_wait_seconds=settings.slot_wait_seconds,
        )
        self.intake = Intake(
            self.broker,
            self.workers,
            self.jobs,
            self.parking,
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
        runtime_logs = RuntimeLogs(
            store, keep_bytes=settings.runtime_log_bytes, status=rabbit, herald=herald.of_deployment
        )
        self.deployments = Deployments(store, self.workers, self.chronicle, runtime_logs, run_secrets)
        notifications = config.notifications
        self.notifier = Notifier(
            store,
            self.targets,
            self.vault,
            self.chronicle,
            first_seconds=settings.retry_first_seconds,
            limit_seconds=settings.retry_limit_seconds,
            patience_seconds=notifications.patience_seconds,
            maximum_waiting=notifications.maximum_waiting,
        )
        self.condition = Condition(store, self.broker, self.journal)
        self.scaler = Scaler(
            config,
            store,
            self.workers,
            self.chronicle,
            open_worker_provider,
            farm_id=farm_id,
            occupied=self.deployments.placed,
            hopeless=self.parking.hopeless,
        )
        self.condition.more += [self.scaler.troubles, self.deployments.troubles]
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
            tokens=self.access,
            audit=self.audit,
            sources=self.sources,
            hooks=self.hooks,
            notify=NotifyDesk(self.targets, self.notifier, self.chronicle),
            deployments=DeploymentDesk(
                store,
                self.deployments,
                self.journal,
                run_secrets,
                submit=lambda spec, key, actor: self.desk.submit(spec, key=key, actor=actor),
                readiness=self.condition.readiness,
                declared=self.sources.run_secrets,
            ),
            hope=self.scaler.waiting,
            trace=traces.begin if traces is not None else lambda spec: spec.traceparent,
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
            self.parking.on_commit,
            self.splits.on_commit,
            self.recent.on_commit,
            self.relay.on_commit,
            self.tokens.on_commit,
            self.delays.on_commit,
            self.journal.on_commit,
            self.measures.on_commit,
            self.groups.on_commit,
            self.statuses.on_commit,
            self.deployments.on_commit,
            self.scaler.on_commit,
            self.notifier.rows.on_commit,
        ):
            streams = (self.relay.on_commit, self.journal.on_commit, self.notifier.rows.on_commit)
            store.listen(listener, streams=listener in streams)
        if traces is not None:
            store.listen(traces.on_commit)

    async def _forgotten(self) -> None:
        await self.publications.forget()
        await self.journal.count()

    def figures(self) -> dict[str, Any]:
        """See `Control.figures`."""
        return (
            self.deployments.figures()
            | self.hooks.figures()
            | self.scaler.figures()
            | self.measures.figures()
            | self.notifier.figures()
            | ({"trace_spans_total": dict(self._tracer.results)} if self._tracer is not None else {})
            | {"store_commit_seconds": self.store.commit_seconds}
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

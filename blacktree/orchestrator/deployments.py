"""Deployments, kept as they are meant to be: decided from what is on record and what workers report, and nothing else.

So there is nothing to lose: after a kill at any step the same documents and the same reports lead to the same next
step. Ending this part, or the daemon, touches no container.
"""

from datetime import datetime
from functools import partial

import structlog
import trio

from blacktree.clock import Steady, now
from blacktree.deployment import (
    Deployment,
    Version,
    VersionState,
)
from blacktree.errors import BlacktreeError, StorageFailed, Unavailable
from blacktree.event import Notice, StateChanged
from blacktree.orchestrator import releases
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.control import Leaving
from blacktree.orchestrator.couriers import Couriers
from blacktree.orchestrator.deploymentrecord import DAMAGED, Decide, DeploymentRecord
from blacktree.orchestrator.evacuation import outlook
from blacktree.orchestrator.expectations import Expectations
from blacktree.orchestrator.orders import Plan, plans
from blacktree.orchestrator.placement import Facts, Land, survey
from blacktree.orchestrator.rollout import advance, refuse
from blacktree.orchestrator.runlogs import RuntimeLogs
from blacktree.orchestrator.runsecrets import RunSecrets
from blacktree.orchestrator.sightings import Sightings
from blacktree.orchestrator.workers import Workers
from blacktree.rpc.replica import ReplicaAnswer, ReplicaName, ReplicaReport
from blacktree.storage.base import Commit, Store

log = structlog.get_logger()

MOVING_SECONDS = 0.25
RESTING_SECONDS = 5.0
STORE_SECONDS = 1.0
CHANGE_SECONDS = 5.0


class Deployments:
    """`start` before workers can report, then `run`. `record`: what is on record."""

    def __init__(
        self, store: Store, workers: Workers, chronicle: Chronicle, logs: RuntimeLogs, secrets: RunSecrets
    ) -> None:
        self._store = store
        self._workers = workers
        self._chronicle = chronicle
        self._secrets = secrets
        self._steady = Steady()
        self._stir = trio.Event()
        self.logs = logs
        self.record = DeploymentRecord(store, self._wake)
        logs.kept = self._is_kept
        self.sightings = Sightings(workers, self.record)
        self.expectations = Expectations(store, self.record, self._wake)
        self._couriers = Couriers(workers, secrets, self.sightings.held, lambda: self.record.damaged)
        self._damage_told: set[str] = set()
        self.switches = 0
        self.failures = 0

    def _wake(self) -> None:
        self._stir.set()

    # Its life

    async def start(self) -> None:
        """Read what is on record. To be called once, before doors and workers come in. Raises `StorageFailed`."""
        self.sightings.start()
        epoch = int((await self._store.settings("replica_epoch")).get("replica_epoch", "0")) + 1
        await self._store.setting("replica_epoch", str(epoch))
        self._couriers.begin(epoch)
        for name in await self.record.load():
            await self.record.finish_deletion(name, partial(self.logs.drop, name))
        await self.expectations.start()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep at it until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._couriers.run)
            self._stir.set()
            task_status.started()
            while True:
                moving = any(each.moving or each.happenings for each in self.record.known.values())
                with trio.move_on_after(MOVING_SECONDS if moving else RESTING_SECONDS):
                    await self._stir.wait()
                self._stir = trio.Event()
                try:
                    await self._turn()
                except StorageFailed as error:
                    if error.code == "storage_closed":
                        raise
                    log.error("deployments wait for the store", reason=str(error))
                    await trio.sleep(STORE_SECONDS)
                    self._stir.set()

    async def _turn(self) -> None:
        await self.record.be_sure()
        await self.expectations.settle()
        self._tell_damage()
        self._couriers.give(plans(self.record.known.values()))
        self.sightings.forget()
        facts = self.facts()
        for name in list(self.record.known):
            try:
                facts = await self._advance(name, facts)
                after = self.record.known.get(name)
                if after is not None and after.happenings:
                    await self._tell(after)
            except BlacktreeError as error:
                if isinstance(error, StorageFailed) and error.code != DAMAGED:
                    raise
                # The edge of one deployment: the others go on.
                log.error("deployment stands still", deployment=name, reason=str(error))

    def _tell_damage(self) -> None:
        for name in sorted(set(self.record.damaged) - self._damage_told):
            self._chronicle.note("deployment_damaged", str(self.record.damaged[name]), subject=name)
        self._damage_told = set(self.record.damaged)

    async def _advance(self, name: str, facts: Facts) -> Facts:
        """Take one deployment as far as it goes now; answers how the workers stand afterwards."""
        for _ in range(20):
            land = survey(self.record.known.values(), name, self.sightings.doubtful())
            moment, steady = now(), self._steady.now()
            before = self.record.known.get(name)
            if before is None:
                # Withdrawn meanwhile: the job that was to make its only version was refused.
                break
            target = before.version(before.target)
            fresh = target is not None and all(place.version != target.number for place in before.placements)
            if target is not None and fresh and (trouble := await self._trouble(target)):
                decide = _refuse(target.number, trouble)
            elif advance(before, facts, land, moment, steady) is before:
                break
            else:
                decide = _advance(facts, land, moment, steady)
            await self.record.change(name, decide)
            self._couriers.give(plans(self.record.known.values()))
            facts = self.facts()
        return facts

    async def _trouble(self, version: Version) -> str:
        """Why a version cannot be started by any worker; empty if it can."""
        try:
            await self._secrets.check(version.run, version.source, version.repository)
        except StorageFailed:
            raise
        except BlacktreeError as error:
            return str(error)
        return ""

    async def _tell(self, deployment: Deployment) -> None:
        """What happened goes to the log and to the farm's events; then it need not be kept any longer."""
        number = await self.logs.tell(deployment)
        for each in deployment.happenings:
            self._chronicled(deployment.name, each.record)
        await self.record.change(
            deployment.name, lambda found: releases.told(found, number) if found is not None else None
        )

    def _chronicled(self, name: str, record: StateChanged | Notice) -> None:
        if type(record) is Notice:
            self._chronicle.note(f"deployment_{record.code}", f"deployment {name}: {record.text}", subject=name)
        elif type(record) is StateChanged and record.to in ("running", "failed", "stopped"):
            self.switches += record.to == "running"
            self.failures += record.to == "failed"
            why = f": {record.reason}" if record.reason else ""
            text = f"version {record.attempt} of deployment {name} {_said(record.to)}{why}"
            self._chronicle.note(f"deployment_{record.to}", text, subject=name)

    def on_commit(self, commit: Commit) -> None:
        """A build of ours has ended: see what becomes of its version."""
        if commit.job.ended and commit.job.spec.run is not None:
            self._stir.set()

    # What workers say

    async def report(self, report: ReplicaReport) -> ReplicaAnswer:
        """See `rpc.peer.OrchestratorSide.report_replicas`."""
        if self._workers.member(report.worker_id, report.incarnation) is None:
            return ReplicaAnswer(known=False)
        stored = await self.logs.take(report.logs, self._wanted) if report.logs else []
        news = self.sightings.put(report)
        self._couriers.heard(report.worker_id, report.incarnation, report.revision)
        if news:
            self.record.touch()
        return ReplicaAnswer(known=True, stored=stored)

    def joined(self, worker_id: str) -> None:
        """A worker has registered: it is brought its list at once."""
        self._couriers.joined(worker_id)
        self._stir.set()

    def _wanted(self, name: ReplicaName) -> bool:
        return self._is_kept(name.deployment)

    def _is_kept(self, name: str) -> bool:
        return name in self.record.known or name in self.record.damaged

    def troubles(self) -> list[str]:
        """Reasons for being degraded."""
        names = ", ".join(sorted(self.record.damaged))
        text = f"deployments: {names} cannot be read: what runs of them stays as it is; see `blacktree deployment NAME`"
        return [text] if names else []

    def facts(self) -> Facts:
        """Every worker that is here, and every one that has something of ours."""
        return self.sightings.facts(self._couriers)

    def placed(self) -> set[str]:
        """The workers that some deployment is placed on."""
        return self.sightings.placed() | set(self.sightings.doubtful())

    async def has_room(self, worker_id: str, version: Version) -> bool:
        """Whether the worker's list, secrets included, still fits in one message with a replica of this version."""
        name = ReplicaName(deployment=version.run.name, version=1, index=0)
        plan = Plan(
            name=name,
            generation=1,
            image=version.image,
            pull=version.pull,
            serve=False,
            run=version.run,
            source=version.source,
            repository=version.repository,
        )
        without = version.run.name if version.run.strategy.kind == "recreate" else ""
        return await self._couriers.fits(worker_id, plan, without)

    async def delete(self, name: str, *, by: str = "") -> None:
        """Forget a deployment that is stopped, and its log. Raises `NotFound`, `Conflict`, `StorageFailed`."""
        if name in self.record.damaged:
            await self.record.give_up(name, partial(self.logs.drop, name))
            self._chronicle.note("deployment_deleted", f"deployment {name}, damaged, was deleted{by}", subject=name)
            return
        with trio.move_on_after(CHANGE_SECONDS):
            # What happened last is told first.
            version = 0
            while (await self.record.get(name)).happenings:
                version = await self.record.wait_changed(version)
        await self.record.delete(name, _check_deletable, partial(self.logs.drop, name))
        self._chronicle.note("deployment_deleted", f"deployment {name} was deleted{by}", subject=name)

    def leaving(self, worker_id: str) -> list[Leaving]:
        """What becomes of each replica on a worker that is drained."""
        return outlook(self.record.known.values(), self.facts(), worker_id, self.sightings.doubtful())

    def drained(self) -> None:
        """A worker is drained, or no longer: what runs on it is looked at."""
        self.record.touch()

    def figures(self) -> dict[str, object]:
        """For `/metrics`."""
        states = [str(each.state) for each in self.record.known.values()]
        replicas = self.sightings.states()
        return {
            "deployments": {state: states.count(state) for state in VersionState},
            "deployment_replicas": {state: replicas.count(state) for state in sorted(set(replicas))},
            "deployment_switches_total": self.switches,
            "deployment_failures_total": self.failures,
            "deployment_log_lines_total": self.logs.stored_lines,
        }


def _advance(facts: Facts, land: Land, moment: datetime, steady: datetime) -> Decide:
    def decide(found: Deployment | None) -> Deployment | None:
        after = advance(found, facts, land, moment, steady) if found is not None else None
        return releases.prune(after) if after is not None and after is not found else after

    return decide


def _refuse(number: int, reason: str) -> Decide:
    return lambda found: refuse(found, number, "refused", reason, now()) if found is not None else None


def _check_deletable(found: Deployment) -> None:
    releases.check_deletable(found)
    if found.happenings:
        raise Unavailable(
            f"what happened to {found.name} is not on its log yet", code="busy", advice="ask again in a moment"
        )


def _said(state: str) -> str:
    return {"running": "runs", "failed": "failed"}.get(state, state)

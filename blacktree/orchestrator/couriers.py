"""One courier a worker: brings it the complete list of its replicas, again after every change and every return."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog
import trio

from blacktree.errors import BlacktreeError, StorageFailed
from blacktree.orchestrator.cargo import Held, load, size
from blacktree.orchestrator.orders import Plan, order
from blacktree.orchestrator.runsecrets import RunSecrets
from blacktree.orchestrator.workers import Workers
from blacktree.rpc.peer import MAX_MESSAGE_BYTES
from blacktree.rpc.replica import CAPABILITY, KEEPS, ReplicaName, ReplicaOrder, ReplicaOrders

log = structlog.get_logger()

AGAIN_SECONDS = 1.0


class Round:
    """What one worker is to have. `kept`: deployments of which that is not known. `acknowledged`: the process of it
    that has taken which revision.

    `brought`: which generations that process was told to run. `waiting`: what was kept back, and for what it waits;
    `unread`: those of them whose secrets could not be read.
    """

    def __init__(self, revision: int) -> None:
        self.plans: Sequence[Plan] = ()
        self.kept: frozenset[str] = frozenset()
        self.revision = revision
        self.acknowledged: tuple[str, int] = ("", 0)
        self.brought: tuple[str, Held] = ("", {})
        self.waiting: Mapping[ReplicaName, str] = {}
        self.unread: frozenset[ReplicaName] = frozenset()
        self.changed = trio.Event()
        self.over = False


class Couriers:
    """`give` says what every worker should have; `run` sees that they get it. Revisions rise over restarts too.

    `held`: what a worker has, as far as is known: that is never taken from it for want of secrets or of room. `kept`:
    deployments of which it is not known what workers should have; one that cannot be told so is brought nothing.
    """

    def __init__(
        self, workers: Workers, secrets: RunSecrets, held: Callable[[str], Held], kept: Callable[[], Collection[str]]
    ) -> None:
        self._workers = workers
        self._secrets = secrets
        self._held = held
        self._kept = kept
        self._rounds: dict[str, Round] = {}
        self._revision = 0
        self._nursery: trio.Nursery | None = None
        self.sent = 0

    def begin(self, epoch: int) -> None:
        """Count revisions from here: `epoch` rises with every start."""
        self._revision = epoch << 32

    def revision(self, worker_id: str) -> int:
        """The revision of what the worker should have now."""
        found = self._rounds.get(worker_id)
        return found.revision if found is not None else 0

    def waiting(self, worker_id: str) -> Mapping[ReplicaName, str]:
        """What the worker is not told to start yet, and what it waits for."""
        found = self._rounds.get(worker_id)
        return found.waiting if found is not None else {}

    async def fits(self, worker_id: str, more: Plan, without: str = "") -> bool:
        """Whether the worker's list has room for a further plan, the replicas of deployment `without` left out."""
        found = self._rounds.get(worker_id)
        plans = [each for each in (found.plans if found is not None else ()) if each.name.deployment != without]
        made = [await self._order(plan) for plan in (*plans, more)]
        return size([each for each in made if isinstance(each, ReplicaOrder)]) <= MAX_MESSAGE_BYTES

    def give(self, wanted: Mapping[str, Sequence[Plan]]) -> None:
        """The complete lists; a worker that is not named should have nothing."""
        members, kept = self._workers.ids(), frozenset(self._kept())
        for worker_id in set(self._rounds).difference(wanted, members):
            gone = self._rounds.pop(worker_id)
            gone.over = True
            self._wake(gone)
        for worker_id in {*wanted, *members}:
            found = self._rounds.get(worker_id)
            if found is None:
                found = self._rounds[worker_id] = Round(self._next())
                found.plans, found.kept = wanted.get(worker_id, ()), kept
                if self._nursery is not None:
                    self._nursery.start_soon(self._serve, worker_id, found, name=f"courier {worker_id}")
            elif (plans := wanted.get(worker_id, ())) != found.plans or kept != found.kept:
                found.plans, found.kept, found.revision = plans, kept, self._next()
                self._wake(found)

    def joined(self, worker_id: str) -> None:
        """It is here (again)."""
        if found := self._rounds.get(worker_id):
            self._wake(found)

    def heard(self, worker_id: str, incarnation: str, revision: int) -> None:
        """A worker said by which revision it goes: bring it the present one if that is another."""
        found = self._rounds.get(worker_id)
        if found is None:
            return
        if revision > found.revision:
            # From a record that was put back from a backup, say: what counts is what is wanted now.
            self._revision = max(self._revision, revision)
            found.revision = self._next()
        if revision != found.revision and found.acknowledged == (incarnation, found.revision):
            found.acknowledged = ("", 0)
        self._wake(found)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; ending it changes nothing on the workers."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for worker_id, found in self._rounds.items():
                nursery.start_soon(self._serve, worker_id, found, name=f"courier {worker_id}")
            task_status.started()
            await trio.sleep_forever()

    def _next(self) -> int:
        self._revision += 1
        return self._revision

    @staticmethod
    def _wake(found: Round) -> None:
        changed, found.changed = found.changed, trio.Event()
        changed.set()

    async def _serve(self, worker_id: str, found: Round) -> None:
        while not found.over:
            changed = found.changed
            brought = await self._bring(worker_id, found)
            with trio.move_on_after(math.inf if brought else AGAIN_SECONDS):
                await changed.wait()

    async def _bring(self, worker_id: str, found: Round) -> bool:
        """Bring it what it has not taken yet; False if that has to be tried again."""
        member = self._workers.member(worker_id)
        if member is None or CAPABILITY not in member.registration.capabilities:
            return True
        if found.kept != frozenset(self._kept()) or (found.kept and KEEPS not in member.registration.capabilities):
            return False
        incarnation, revision = member.registration.incarnation, found.revision
        if found.acknowledged == (incarnation, revision) and not found.unread:
            return True
        try:
            made = [(plan, await self._order(plan)) for plan in found.plans]
            unread = frozenset(plan.name for plan, order in made if isinstance(order, str))
            if found.revision != revision:
                # Something else is wanted by now.
                return False
            if unread != found.unread:
                # Another list than before: workers keep a list by its revision.
                found.unread, found.revision = unread, self._next()
                revision = found.revision
            if found.acknowledged == (incarnation, revision):
                return False
            brought = found.brought[1] if found.brought[0] == incarnation else {}
            cargo = load(made, {**self._held(worker_id), **brought})
            self._keep_back(worker_id, found, cargo.waiting)
            orders = ReplicaOrders(worker_id=worker_id, revision=revision, orders=cargo.orders, kept=sorted(found.kept))
            answer = await member.apply_replicas(orders)
        except BlacktreeError as error:
            log.warning("replicas not ordered", worker=worker_id, reason=str(error))
            return False
        self.sent += 1
        if answer.revision > revision:
            self._revision = max(self._revision, answer.revision)
            found.revision = self._next()
            return False
        found.brought = (incarnation, {each.name: each.generation for each in cargo.orders})
        if found.revision == revision:
            found.acknowledged = (incarnation, revision)
        return not unread

    @staticmethod
    def _keep_back(worker_id: str, found: Round, waiting: Mapping[ReplicaName, str]) -> None:
        for name, reason in waiting.items():
            if found.waiting.get(name) != reason:
                log.warning("a replica is not brought", worker=worker_id, replica=repr(name), waits_for=reason)
        found.waiting = waiting

    async def _order(self, plan: Plan) -> ReplicaOrder | str:
        """Its order, or why its secrets cannot be read."""
        try:
            return order(plan, await self._secrets.of(plan), await self._secrets.logins(plan))
        except StorageFailed:
            # It comes back; without its secrets this would count as brought, and be brought no more.
            raise
        except BlacktreeError as error:
            return f"its secrets: {error}"

"""All replicas of this worker: what was ordered becomes what runs.

`apply` sets the goal, `run` goes there and stays there. Ending `run` leaves every container as it is: a worker that is
restarted, or killed, adopts them by their labels, and its fronts come back.
"""

import msgspec
import structlog
import trio

from blacktree.concurrency.every import every
from blacktree.concurrency.threads import in_thread
from blacktree.errors import NotAllowed, StorageFailed
from blacktree.providers.containers import Container, Containers
from blacktree.rpc.replica import ReplicaAck, ReplicaName, ReplicaOrder, ReplicaOrders, ReplicaState
from blacktree.worker.bell import Bell
from blacktree.worker.fence import cut_off_at
from blacktree.worker.front import Traffic
from blacktree.worker.fronts import Candidate, Fronts, Key
from blacktree.worker.lease import boottime
from blacktree.worker.replica import Replica
from blacktree.worker.replica_labels import RUN
from blacktree.worker.replica_left import ReplicaSweep, find_left
from blacktree.worker.replica_logs import LogBook
from blacktree.worker.replica_store import ReplicaStore
from blacktree.worker.surroundings import Surroundings

log = structlog.get_logger()

LOOK_SECONDS = 0.25
CUT_OFF = "cut_off"


class Replicas:
    """`apply`, `states` and `books` may be called once `run` has started."""

    def __init__(
        self,
        worker_id: str,
        containers: Containers,
        store: ReplicaStore,
        surroundings: Surroundings,
        bell: Bell,
        traffic: Traffic,
    ) -> None:
        self._worker_id = worker_id
        self._containers = containers
        self._store = store
        self._around = surroundings
        self._bell = bell
        self.fronts = Fronts(traffic)
        self.revision = 0
        self.contact = 0.0
        self._wanted: dict[ReplicaName, ReplicaOrder] = {}
        self._kept: frozenset[str] = frozenset()
        self._fresh = False
        self._held: dict[ReplicaName, Replica] = {}
        self._gone: dict[Key, ReplicaState] = {}
        self._books: dict[Key, LogBook] = {}
        self._left: set[Key] = set()
        """Whose output a predecessor left: it is sent, though nothing of them is there."""
        self._failed: dict[Key, ReplicaState] = {}
        self._cut: set[Key] = set()
        self._adoptable: dict[Key, Container] = {}
        self._nursery: trio.Nursery | None = None
        self._adopted = trio.Event()
        self._dirty = trio.Event()
        self._writing = trio.Lock()

    async def apply(self, orders: ReplicaOrders) -> ReplicaAck:
        """See `rpc.peer.WorkerSide.apply_replicas`."""
        if orders.worker_id != self._worker_id:
            raise NotAllowed(f"these orders are for {orders.worker_id}, this is {self._worker_id}", code="wrong_worker")
        async with self._writing:
            if orders.revision < self.revision:
                return ReplicaAck(revision=self.revision)
            orders = self._whole(orders)
            changed = orders.revision != self.revision
            before, self._failed = (
                self._failed,
                {
                    (order.name, order.generation): self._failed[order.name, order.generation]
                    for order in orders.orders
                    if (order.name, order.generation) in self._failed
                },
            )
            if changed or before != self._failed:
                await self._keep(orders)
            self.revision, self._fresh = orders.revision, True
            self._wanted = {order.name: order for order in orders.orders}
            self._kept = frozenset(orders.kept)
            # Who sends orders is there, and wants these to run: what was cut off may begin anew.
            self._cut = {key for key in self._cut if key[0].deployment in self._kept}
            if not self.contact:
                self.contact = boottime()
        if self.ready:
            self._converge()
            self._bell.ring_urgently()
        return ReplicaAck(revision=self.revision)

    def _whole(self, orders: ReplicaOrders) -> ReplicaOrders:
        """With what we were told last of the deployments that it says nothing of."""
        named = {order.name for order in orders.orders}
        last = [order for name, order in self._wanted.items() if name.deployment in orders.kept and name not in named]
        return msgspec.structs.replace(orders, orders=orders.orders + last) if last else orders

    async def _keep(self, orders: ReplicaOrders) -> None:
        try:
            await in_thread(lambda: self._store.write(orders, list(self._failed.values())))
        except OSError as error:
            raise StorageFailed(f"the worker cannot keep its orders: {error.strerror}", code="state_unusable") from None

    @property
    def ready(self) -> bool:
        """Whether it is known what runs: before that there is nothing to be told, and nothing is begun."""
        return self._adopted.is_set()

    @property
    def told_revision(self) -> int:
        """The revision as the orchestrator is told: none, while something was cut off and needs to be ordered anew."""
        return 0 if any(name.deployment not in self._kept for name, _ in self._cut) else self.revision

    def states(self) -> list[ReplicaState]:
        """How everything stands: what runs, and what has stopped and was not told yet."""
        return [each.state() for each in self._held.values()] + list(self._gone.values())

    def books(self) -> list[tuple[Key, LogBook]]:
        """The output of all of them, also of those that are gone."""
        return list(self._books.items())

    def told(self, states: list[ReplicaState]) -> None:
        """A report with these was answered: what has stopped need not be said again once its output is stored, too."""
        for state in states:
            key = state.name, state.generation
            if state.state == "stopped" and key in self._gone and not self._books[key].pending:
                del self._gone[key]
                self._books.pop(key).remove()
                self._bell.ring()
        self._forget_left()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt what runs, then keep what is ordered until cancelled. `started` once orders are taken."""
        await in_thread(self._store.prepare)
        kept = await in_thread(self._store.read)
        self.revision = kept.revision
        self._wanted = {order.name: order for order in kept.orders}
        self._failed = {(state.name, state.generation): state for state in kept.failed}
        self.contact = await in_thread(lambda: self._store.contact() or 0.0)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.fronts.run)
            nursery.start_soon(self._lead, name="fronts")
            task_status.started()
            await self._adopt()
            nursery.start_soon(self._watch_contact, name="failover")
            sweep = ReplicaSweep(self._containers, self._around.secrets, self._marks)
            nursery.start_soon(sweep.run, name="replica sweep")

    async def _adopt(self) -> None:
        """Take over what a predecessor left, but for what was to be cut off meanwhile."""
        found, self._adoptable = await find_left(self._containers)
        await self._find_books()
        now = boottime()
        for order in self._wanted.values():
            if order.run.failover_seconds is not None and now >= self._cut_off_at(order):
                self._cut.add((order.name, order.generation))
        if self._adoptable:
            log.info("replicas adopted", replicas=[repr(name) for name, _ in self._adoptable])
        runs = {each.labels.get(RUN, "") for each in found}
        await in_thread(lambda: self._around.secrets.keep(runs))
        self._adopted.set()
        self._converge()

    async def _find_books(self) -> None:
        """Output of what is not ordered any more: a predecessor was killed before all of it was sent."""
        wanted = {(order.name, order.generation) for order in self._wanted.values()}

        def found() -> dict[Key, LogBook]:
            left = [key for key in self._store.books() if key not in wanted]
            return {key: LogBook(*key, self._store.book(*key)) for key in left}

        books = await in_thread(found)
        self._books |= books
        # Orders may have come meanwhile.
        self._left = set(books) - {(order.name, order.generation) for order in self._wanted.values()}
        self._forget_left()

    def _forget_left(self) -> None:
        for key in [key for key in self._left if not self._books[key].pending]:
            self._left.discard(key)
            self._books.pop(key).remove()

    def _converge(self) -> None:
        """Start, replace and end what the orders say. No checkpoint: one step."""
        for name, replica in self._held.items():
            order = self._wanted.get(name)
            if order is None:
                replica.end("removed", "it is no longer wanted here")
            elif order.generation > replica.order.generation:
                replica.end("replaced", f"generation {order.generation} takes its place")
            elif order.generation == replica.order.generation:
                replica.update(order, fresh=self._is_fresh(order))
        for name, order in self._wanted.items():
            key = name, order.generation
            if name not in self._held and key not in self._cut:
                self._begin(order)
        self.changed()

    def _begin(self, order: ReplicaOrder) -> None:
        assert self._nursery is not None
        key = order.name, order.generation
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = LogBook(order.name, order.generation, self._store.book(*key))
        self._gone.pop(key, None)
        self._left.discard(key)
        replica = Replica(
            order,
            self._around,
            book,
            self.changed,
            fresh=self._is_fresh(order),
            adopted=self._adoptable.pop(key, None),
            failed=self._failed.get(key),
        )
        self._held[order.name] = replica
        self._nursery.start_soon(self._run, replica, name=f"replica {order.name!r}")

    def _is_fresh(self, order: ReplicaOrder) -> bool:
        """Whether it bears what is not kept on disk; of one that is only kept, what we still have."""
        whole = set(order.run.secrets) <= set(order.secrets)
        return self._fresh and (whole or order.name.deployment not in self._kept)

    async def _run(self, replica: Replica) -> None:
        await replica.run()
        # Only when it was ended, not when the worker ends.
        del self._held[replica.name]
        self._gone[replica.key] = replica.state()
        self._failed.pop(replica.key, None)
        self._converge()

    def changed(self) -> None:
        """Something may stand otherwise: the fronts and the orchestrator hear of it."""
        self.fronts.lead(Candidate(each.order, each.ports) for each in self._held.values())
        self._mark()
        for replica in self._held.values():
            key = replica.key
            if replica.phase == "failed" and key not in self._failed:
                self._failed[key] = replica.state()
                self._dirty.set()
        self._bell.ring()

    def _mark(self) -> None:
        for replica in self._held.values():
            replica.routed = self.fronts.leads_to(replica.key)
            replica.trouble = self.fronts.trouble(replica.name.deployment) if replica.order.serve else ""

    async def _lead(self) -> None:
        while True:
            await self.fronts.changed()
            self._mark()
            self._bell.ring_urgently()

    def _marks(self) -> set[str] | None:
        """Of all containers that are somebody's; without any orders there is nothing to judge by."""
        return {mark for replica in self._held.values() for mark in replica.runs} if self.revision else None

    def _cut_off_at(self, order: ReplicaOrder) -> float:
        return cut_off_at(self.contact, order.run.failover_seconds or 0.0)

    async def _watch_contact(self) -> None:
        """End what the orchestrator may soon start elsewhere, while it is out of our reach; keep what has failed."""
        async for _ in every(LOOK_SECONDS):
            now = boottime()
            for replica in list(self._held.values()):
                order = replica.order
                if order.run.failover_seconds is None or replica.key in self._cut or now < self._cut_off_at(order):
                    continue
                self._cut.add(replica.key)
                replica.end(CUT_OFF, f"no contact with the orchestrator for {now - self.contact:.0f} s", at_once=True)
            if self._dirty.is_set():
                self._dirty = trio.Event()
                async with self._writing:
                    orders = list(self._wanted.values())
                    try:
                        await self._keep(
                            ReplicaOrders(worker_id=self._worker_id, revision=self.revision, orders=orders)
                        )
                    except StorageFailed as error:
                        log.warning("failed replicas not kept", reason=str(error))

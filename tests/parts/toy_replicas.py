"""A toy worker that also keeps replicas: it takes its orders, and they fare as the test says."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from blacktree.clock import now
from blacktree.errors import Unavailable
from blacktree.event import Lines
from blacktree.rpc.replica import (
    CAPABILITY,
    KEEPS,
    ReplicaAck,
    ReplicaLog,
    ReplicaName,
    ReplicaOrder,
    ReplicaOrders,
    ReplicaReport,
    ReplicaState,
)
from tests.parts.toy_worker import ToyWorker


class ToyReplicas(ToyWorker):
    """By itself every replica becomes healthy at once. `fates`: how those of a version fare instead (fields of
    `ReplicaState`). `deaf`: it takes no orders."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.capabilities = [CAPABILITY, KEEPS]
        self.orders_given = ReplicaOrders(worker_id=self.id, revision=0)
        self.fates: dict[int, dict[str, Any]] = {}
        self.states: dict[ReplicaName, ReplicaState] = {}
        self.logs: list[ReplicaLog] = []
        self.numbers: dict[tuple[ReplicaName, int], int] = {}
        self.history: list[set[int]] = []
        """Which versions were ordered to serve, message by message."""
        self.deaf = False
        self.mute = False
        self.on_orders: Callable[[], None] = lambda: None
        """Called with new orders in hand, before they are answered."""
        self._stirred = trio.Event()

    async def apply_replicas(self, orders: ReplicaOrders) -> ReplicaAck:
        if self.deaf:
            raise Unavailable("it is deaf")
        if orders.revision >= self.orders_given.revision:
            last = [each for each in self.orders_given.orders if each.name.deployment in orders.kept]
            orders = msgspec.structs.replace(orders, orders=orders.orders + last)
            self.orders_given = orders
            self.history.append({each.name.version for each in orders.orders if each.serve})
            self.on_orders()
            self.stir()
        return ReplicaAck(revision=self.orders_given.revision)

    def order(self, version: int, index: int = 0) -> ReplicaOrder | None:
        """What it is told of this replica now."""
        found = [each for each in self.orders_given.orders if (each.name.version, each.name.index) == (version, index)]
        return found[0] if found else None

    def fare(self, version: int, **fate: Any) -> None:
        """From now on the replicas of this version stand so."""
        self.fates[version] = fate
        self.stir()

    def say(self, name: ReplicaName, generation: int, *texts: str) -> None:
        """A replica prints lines; they go with the next report, and again until they are stored."""
        number = self.numbers.get((name, generation), 0) + 1
        self.numbers[name, generation] = number
        records = [Lines(now(), 1, "", "stdout", "".join(f"{text}\n" for text in texts))]
        self.logs.append(ReplicaLog(name=name, generation=generation, number=number, records=list(records)))
        self.stir()

    def stir(self) -> None:
        """Report at once."""
        self._stirred.set()

    def _fare(self) -> None:
        before, self.states = self.states, {}
        for order in self.orders_given.orders:
            fate = self.fates.get(order.name.version, {"state": "healthy"})
            state = ReplicaState(name=order.name, generation=order.generation, since=now(), serving=order.serve, **fate)
            old = before.get(order.name)
            if old is not None and msgspec.structs.replace(old, since=state.since) == state:
                state = old
            self.states[order.name] = state

    async def report_all(self) -> bool:
        """One report; False if the orchestrator does not know us."""
        assert self.side is not None
        self._fare()
        answer = await self.side.report_replicas(
            ReplicaReport(
                worker_id=self.id,
                incarnation=self.incarnation,
                revision=self.orders_given.revision,
                states=list(self.states.values()),
                logs=list(self.logs),
            )
        )
        stored = {(each.name, each.generation): each.next_number for each in answer.stored}
        self.logs = [each for each in self.logs if each.number >= stored.get((each.name, each.generation), 0)]
        return answer.known

    async def run(
        self,
        orchestrator: str,
        token: str,
        directory: Path,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(super().run, orchestrator, token, directory))
            nursery.start_soon(self._keep_reporting)
            task_status.started()

    async def _keep_reporting(self) -> None:
        while True:
            with trio.move_on_after(0.3):
                await self._stirred.wait()
            self._stirred = trio.Event()
            if self.mute or self.silent:
                continue
            try:
                await self.report_all()
            except Unavailable:
                await trio.sleep(0.05)

"""The record against the broker: no loss of the broker goes untold, no queue is flooded, no job forgotten."""

from datetime import timedelta

import pytest
import trio
import trio.testing

from blacktree.broker.embedded import EmbeddedBroker
from blacktree.clock import now
from blacktree.concurrency.every import every
from blacktree.job import Job, JobState
from blacktree.orchestrator import moves, reconcile
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.reconcile import Delays, Reconciler
from blacktree.orchestrator.relay import Relay
from blacktree.spec import JobSpec
from blacktree.storage.memory import MemoryStore


class SlowCounting(MemoryStore):
    """Counting takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = trio.Event(), trio.Event()

    async def queued_by_pool(self) -> dict[str, int]:
        self.asked.set()
        await self.go_on.wait()
        return await super().queued_by_pool()


class Nobody(frozenset[str]):
    """Nobody waits for a worker that builds their platform."""

    def count(self, pool: str) -> int:
        return 0


class Lanes:
    """An intake without any lane."""

    def __init__(self) -> None:
        self.lanes: dict[str, object] = {}
        self.parking = Nobody()


async def test_a_loss_during_the_look_is_told() -> None:
    store = SlowCounting()
    broker = EmbeddedBroker(store, status_maximum=10, event_maximum=10)
    chronicle, relay = Chronicle(store), Relay(store, broker)
    reconciler = Reconciler(store, broker, relay, Lanes(), Delays(relay), chronicle)
    async with trio.open_nursery() as nursery:
        for part in (store.run, broker.run, chronicle.run, reconciler.run):
            await nursery.start(part)
        await store.asked.wait()
        broker._stand("cut")
        await trio.testing.wait_all_tasks_blocked(0.05)
        broker._stand("")
        store.go_on.set()
        with trio.fail_after(40):
            async for _ in every(0.01):
                told = [event.type for event in await store.noted(1)]
                if told == ["broker_lost", "broker_back"]:
                    break
        assert (broker.status().connected, broker.status().reason) == (True, "")
        nursery.cancel_scope.cancel()


class IdleLane:
    """A dispatcher that waits, and to whom nobody brings anything."""

    pool, refused, idle_since = "default", "", 0.0


async def test_tickets_that_nobody_brings_are_not_published_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "LOOK_SECONDS", 0.05)
    store = MemoryStore()
    broker = EmbeddedBroker(store, status_maximum=10, event_maximum=10)
    chronicle, relay = Chronicle(store), Relay(store, broker)
    store.listen(relay.on_commit)
    lanes = Lanes()
    lanes.lanes = {"default": IdleLane()}
    reconciler = Reconciler(store, broker, relay, lanes, Delays(relay), chronicle)
    async with trio.open_nursery() as nursery:
        for part in (store.run, broker.run, relay.run):
            await nursery.start(part)
        old = now() - timedelta(seconds=60)
        for name in "ab":
            job = Job(id=name, state=JobState.QUEUED, spec=JobSpec(repository="x"), created_at=old, queued_at=old)
            await store.create(job, [], [moves.ticket(job)])
        while await store.queue_depth("execute.queue") < 2:
            await trio.sleep(0.01)
        await nursery.start(reconciler.run)
        await trio.sleep(0.5)
        assert await store.queue_depth("execute.queue") == 2
        # One that is really missing is still brought back.
        await store.queue_purge("execute.queue")
        with trio.fail_after(40):
            while await store.queue_depth("execute.queue") < 2:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()

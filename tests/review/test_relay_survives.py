"""What cannot be said now is said later, and what nobody is told any more is dropped: neither ends the relay."""

import msgspec
import trio

from blacktree.broker.base import STATUS_QUEUE
from blacktree.broker.embedded import EmbeddedBroker
from blacktree.broker.rabbit import RabbitBroker
from blacktree.clock import now
from blacktree.errors import StorageFailed
from blacktree.job import Job, JobState
from blacktree.orchestrator import moves
from blacktree.orchestrator.relay import Relay
from blacktree.spec import JobSpec
from blacktree.storage.base import Outgoing
from blacktree.storage.memory import MemoryStore


class UnreadableStore(MemoryStore):
    """Jobs cannot be read the first time."""

    failures = 1

    async def get(self, job_id: str) -> Job:
        if self.failures:
            self.failures -= 1
            raise StorageFailed("as the test wants")
        return await super().get(job_id)


async def test_a_result_that_cannot_be_read_now_is_said_later() -> None:
    store = UnreadableStore()
    broker = EmbeddedBroker(store, status_maximum=10, event_maximum=10)
    relay = Relay(store, broker)
    store.listen(relay.on_commit)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await nursery.start(broker.run)
        await nursery.start(relay.run)
        time = now()
        job = Job(id="j", state=JobState.QUEUED, spec=JobSpec(repository="x"), created_at=time, queued_at=time)
        await store.create(job, [], [])
        await store.change("j", moves.cancel("enough", moves.Rules(status=True)))
        with trio.fail_after(40):
            async with broker.deliveries(STATUS_QUEUE, prefetch=1) as deliveries:
                delivery = await anext(deliveries)
                assert msgspec.json.decode(delivery.body)["job"]["state"] == "canceled"
        nursery.cancel_scope.cancel()


async def test_events_of_an_earlier_life_are_dropped_where_there_is_no_event_queue_any_more() -> None:
    store = MemoryStore()
    # Not even connected: what it has no queue for it refuses all the same.
    broker = RabbitBroker("amqp://127.0.0.1:1/", status_maximum=10, event_maximum=10, events=False, farm_id="f")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        time = now()
        job = Job(id="j", state=JobState.QUEUED, spec=JobSpec(repository="x"), created_at=time, queued_at=time)
        await store.create(job, [], [Outgoing(kind="event", job_id="j", body=b"{}")])
        relay = Relay(store, broker, events=False)
        await nursery.start(relay.run)
        with trio.fail_after(40):
            while await store.outgoing():
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()

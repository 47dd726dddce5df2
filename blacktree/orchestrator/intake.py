"""Per pool: one queue, one consumer, one dispatcher, and a channel without buffer between them."""

import structlog
import trio

from blacktree.broker.base import Broker, Consumer, Delivery, execute_queue
from blacktree.errors import BrokerLost, Conflict
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.jobs import Jobs
from blacktree.orchestrator.parking import Parking
from blacktree.orchestrator.workers import Workers

log = structlog.get_logger()

RETRY_TAKEN_SECONDS = 2.0
PARK_SECONDS = 0.1


class Lane:
    """A pool's way from the broker to the workers.

    `wanted` is set while the dispatcher has a free slot and waits for a delivery, `idle_since` says since when.
    """

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.wanted = trio.Event()
        self.idle_since: float | None = None
        self.refused = ""


class Intake:
    """Opens a lane for every pool that has a job or a worker. Ends first: cancelling it gives back what is in hand."""

    def __init__(
        self,
        broker: Broker,
        workers: Workers,
        jobs: Jobs,
        parking: Parking,
        chronicle: Chronicle,
        *,
        prefetch: int,
        maximum_pools: int,
    ) -> None:
        self._broker = broker
        self._workers = workers
        self._jobs = jobs
        self.parking = parking
        self._chronicle = chronicle
        self._prefetch = prefetch
        self._maximum_pools = maximum_pools
        self.lanes: dict[str, Lane] = {}
        self._opened, self._to_open = trio.open_memory_channel[Lane](maximum_pools + 1)

    def ensure(self, pool: str) -> None:
        """A lane for this pool. Never waits."""
        if pool in self.lanes:
            return
        if self.full:
            log.error("too many pools: this one is not served", pool=pool, maximum=self._maximum_pools)
            return
        lane = self.lanes[pool] = Lane(pool)
        self._opened.send_nowait(lane)

    @property
    def full(self) -> bool:
        """Whether no further pool can be opened."""
        return len(self.lanes) >= self._maximum_pools

    @property
    def refusals(self) -> list[str]:
        """Why a lane gets no deliveries although the broker is there."""
        return [lane.refused for lane in self.lanes.values() if lane.refused]

    async def run(
        self, running: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve every lane until cancelled; the jobs themselves run in the nursery that encloses this one."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._unpark, running, name="dispatcher of the parked")
            task_status.started()
            async for lane in self._to_open:
                sink, deliveries = trio.open_memory_channel[Delivery](0)
                nursery.start_soon(self._dispatch, lane, deliveries, running, name=f"dispatcher {lane.pool}")
                nursery.start_soon(self._consume, lane, sink, name=f"consumer {lane.pool}")

    async def _dispatch(
        self, lane: Lane, deliveries: trio.MemoryReceiveChannel[Delivery], running: trio.Nursery
    ) -> None:
        while True:
            # The slot first, then the delivery: what comes late with a higher priority still overtakes.
            await self._workers.wait_free(lane.pool)
            lane.idle_since = trio.current_time()
            lane.wanted.set()
            delivery = await deliveries.receive()
            lane.idle_since = None
            if not self._workers.has_free(lane.pool):
                # The slot went before the delivery came. In our hand it would go ahead of a higher priority.
                await _give_back(delivery)
                continue
            # Returns once a slot is leased; until then everything else waits in the broker.
            await running.start(self._jobs.run, delivery, lane.pool)

    async def _unpark(self, running: trio.Nursery) -> None:
        while True:
            delivery = await self.parking.next()
            await running.start(self._jobs.run, delivery, delivery.pool)

    async def _consume(self, lane: Lane, sink: trio.MemorySendChannel[Delivery]) -> None:
        queue = execute_queue(lane.pool)
        while True:
            try:
                async with self._broker.deliveries(queue, prefetch=self._prefetch) as deliveries:
                    lane.refused = ""
                    while True:
                        await self._until_wanted(lane, deliveries)
                        delivery = await anext(deliveries)
                        # One wish, one delivery: a second one would lie here while the first one's build runs.
                        # Granted only now: a session that breaks before leaves the wish to the next one.
                        lane.wanted = trio.Event()
                        await _pass_on(delivery, sink)
            except BrokerLost as error:
                log.info("deliveries interrupted", queue=queue, reason=str(error))
                await trio.sleep(0.05)
            except Conflict as error:
                if not lane.refused:
                    log.error("queue refused", queue=queue, reason=str(error))
                    self._chronicle.note("queue_refused", str(error), subject=queue)
                lane.refused = str(error)
                await trio.sleep(RETRY_TAKEN_SECONDS)

    async def _until_wanted(self, lane: Lane, deliveries: Consumer) -> None:
        """While nobody has a slot nothing is held here: not for priority's sake, nor for the broker's patience."""
        with trio.move_on_after(PARK_SECONDS) as waiting:
            await lane.wanted.wait()
        if waiting.cancelled_caught:
            await deliveries.park()
            await lane.wanted.wait()


async def _pass_on(delivery: Delivery, sink: trio.MemorySendChannel[Delivery]) -> None:
    try:
        await sink.send(delivery)
    except trio.Cancelled:
        await _give_back(delivery)
        raise


async def _give_back(delivery: Delivery) -> None:
    """In our hand and in nobody else's: it goes back now, not when the connection closes."""
    with trio.move_on_after(0.5, shield=True):
        try:
            await delivery.requeue()
        except BrokerLost:
            pass

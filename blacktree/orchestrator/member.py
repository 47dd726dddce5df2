"""One registered worker: what it said of itself, what it holds, and the two grouped calls to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager

import structlog
import trio

from blacktree.clock import now
from blacktree.concurrency.every import every
from blacktree.concurrency.gather import Gather
from blacktree.errors import BlacktreeError, PeerLost
from blacktree.orchestrator.census import Candidate
from blacktree.orchestrator.ways import Profile
from blacktree.platforms import family
from blacktree.rpc.peer import Answer, Assignment, Registration, StopAnswer, StopOrder, WorkerSide, WorkerStatus
from blacktree.rpc.replica import ReplicaAck, ReplicaOrders

log = structlog.get_logger()

Connect = Callable[[str], AbstractAsyncContextManager[WorkerSide]]
CALL_SECONDS = 10.0
REFUSAL_SECONDS = 1.0
CONNECT_AGAIN_SECONDS = 5.0
HAND_OFF_PACE_SECONDS = 0.004


class Member:
    """A worker of this incarnation. `gone` is set when it left, died or was replaced."""

    def __init__(self, registration: Registration, *, draining: bool) -> None:
        self.registration = registration
        self.id = registration.worker_id
        self.status: WorkerStatus = registration.status
        self.draining = draining
        self.jobs: set[str] = set()
        self.registered_at = now()
        self.last_seen_at = self.registered_at
        self.gone = trio.Event()
        self.unreachable = "it is being reached"
        self._refused = ""
        self._side: WorkerSide | None = None
        self.run_job: Gather[Assignment, Answer] = Gather(self._run_jobs, most=64, pace_seconds=HAND_OFF_PACE_SECONDS)
        self.stop_job: Gather[StopOrder, StopAnswer] = Gather(self._stop_jobs, most=256)

    @property
    def slots(self) -> int:
        """Build slots."""
        return self.registration.status.slots

    def candidate(self) -> Candidate:
        """This worker as the choice sees it."""
        return Candidate(
            id=self.id,
            pool=self.registration.pool,
            slots=self.slots,
            busy=len(self.jobs),
            refusal=self.unreachable or self.status.refusal or self._refused,
            draining=self.draining,
            warm=self.status.warm,
            profile=self.profile,
        )

    @property
    def profile(self) -> Profile:
        """The platforms that it builds; of one that does not say, the one it runs on."""
        native = self.status.platforms or [self.registration.platform]
        return Profile(frozenset(map(family, native)), frozenset(map(family, self.status.emulated)))

    def refused(self, reason: str) -> None:
        """It did not take a job, for this reason."""
        self._refused = reason

    def forget_refusal(self) -> None:
        """Let it be asked again."""
        self._refused = ""

    async def run(self, connect: Connect, changed: Callable[[], None], *, ping_seconds: float) -> None:
        """Hold the connection, serve the grouped calls and ping, until this member is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run_job.run)
            nursery.start_soon(self.stop_job.run)
            nursery.start_soon(self._keep_reaching, connect, changed, ping_seconds)
            await self.gone.wait()
            nursery.cancel_scope.cancel(reason=f"worker {self.id} is gone")

    async def _keep_reaching(self, connect: Connect, changed: Callable[[], None], ping_seconds: float) -> None:
        while True:
            try:
                async with connect(self.registration.address) as self._side:
                    await self._keep_pinging(changed, ping_seconds)
            except BlacktreeError as error:
                # Certificates, for one, may be missing while they are replaced.
                log.warning("worker cannot be reached", worker=self.id, reason=str(error))
                self.unreachable = f"cannot be reached at {self.registration.address}: {error}"
                changed()
                await trio.sleep(CONNECT_AGAIN_SECONDS)

    async def _keep_pinging(self, changed: Callable[[], None], ping_seconds: float) -> None:
        # Until it has answered once a worker gets no job: it could report to us, but we could not stop its builds.
        delay = 0.1
        while not await self._ping(changed):
            await trio.sleep(delay)
            delay = min(delay * 2, 5.0)
        async for _ in every(ping_seconds, at_once=False):
            while not await self._ping(changed):
                await trio.sleep(min(5.0, ping_seconds))

    async def _ping(self, changed: Callable[[], None]) -> bool:
        try:
            with trio.fail_after(CALL_SECONDS):
                answer = await self._reached().ping()
        except (BlacktreeError, trio.TooSlowError) as error:
            why = str(error) or "no answer"
            reason = f"cannot be reached at {self.registration.address}: {why}"
            if self.unreachable != reason:
                log.warning("worker does not answer", worker=self.id, reason=reason)
            self.unreachable = reason
            changed()
            return False
        if answer.incarnation != self.registration.incarnation:
            self.unreachable = "another process answers at its address"
        else:
            self.unreachable = ""
            self.status = answer.status
        changed()
        return not self.unreachable

    async def apply_replicas(self, orders: ReplicaOrders) -> ReplicaAck:
        """Bring it its list of replicas. Raises as the call, `PeerLost` after a while without an answer."""
        with _bounded(self.id):
            return await self._reached().apply_replicas(orders)

    def _reached(self) -> WorkerSide:
        if self._side is None:
            raise PeerLost(f"worker {self.id} {self.unreachable}")
        return self._side

    async def _run_jobs(self, assignments: Sequence[Assignment]) -> Sequence[Answer | Exception]:
        with _bounded(self.id):
            return await self._reached().run_jobs(assignments)

    async def _stop_jobs(self, orders: Sequence[StopOrder]) -> Sequence[StopAnswer | Exception]:
        with _bounded(self.id):
            return await self._reached().stop_jobs(orders)


@contextmanager
def _bounded(worker_id: str) -> Iterator[None]:
    try:
        with trio.fail_after(CALL_SECONDS):
            yield
    except trio.TooSlowError:
        raise PeerLost(f"worker {worker_id} did not answer within {CALL_SECONDS:g} s") from None

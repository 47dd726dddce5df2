"""`Keeper`: one pool's size. Looks, decides (`sizing`), does, and again; a provider that fails is given pauses."""

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.config import ScaledPool, ScalingConfig
from blacktree.errors import BlacktreeError, NotFound
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.control import WorkerView
from blacktree.orchestrator.setback import Setback
from blacktree.orchestrator.sizing import NEVER, Hand, HandState, Plan, Situation, decide
from blacktree.orchestrator.waits import Waits
from blacktree.orchestrator.workers import Workers
from blacktree.scaling import Machine, OpenWorkerProvider, WorkerProvider, WorkerProviderSettings
from blacktree.storage.base import Store

log = structlog.get_logger()

LIST_SECONDS = 10.0
CALL_SECONDS = 60.0
END_SECONDS = 180.0


class Keeper:
    """Keeps one pool between its bounds through one provider. `retiring`: ends once nothing of it is left."""

    def __init__(
        self,
        pool: str,
        rules: ScaledPool,
        config: ScalingConfig,
        store: Store,
        workers: Workers,
        waits: Waits,
        chronicle: Chronicle,
        *,
        retiring: bool = False,
        occupied: Callable[[], Collection[str]] = tuple,
        hopeless: Callable[[str], Collection[str]] = lambda pool: (),
    ) -> None:
        self.pool = pool
        self.rules = rules
        self.retiring = retiring
        self._occupied = occupied
        self._hopeless = hopeless
        self._interval_seconds = config.interval_seconds
        self._store = store
        self._workers = workers
        self._waits = waits
        self._chronicle = chronicle
        self._starts = Setback(config.retry_first_seconds, config.retry_limit_seconds)
        self._calls = Setback(config.retry_first_seconds, config.retry_limit_seconds)
        self._provider: WorkerProvider | None = None
        self._machines: list[Machine] | None = None
        self._listed_at = NEVER
        self._last_change = NEVER
        self._useful: set[str] = set()
        """Workers that took builds once."""
        self._ours: set[str] = set()
        self._since: dict[str, tuple[HandState, float]] = {}
        self._details: dict[str, str] = {}
        self._starting: set[str] = set()
        self._gone: set[str] = set()
        self._wake = trio.Event()
        self.hands: Sequence[Hand] = ()
        self.wanted = 0
        self.started = self.removed = 0
        self.closing = False

    async def run(self, open_provider: OpenWorkerProvider, settings: WorkerProviderSettings) -> None:
        """Until cancelled (or, retiring, until nothing is left)."""
        while not self.closing:
            try:
                async with open_provider(self.rules.provider, settings) as self._provider:
                    await self._rounds()
                    return
            except BlacktreeError as error:
                self._troubled(self._calls, f"its provider `{self.rules.provider}` cannot be used: {error}")
            except Exception as error:
                self._broken(self._calls, error)
            finally:
                self._provider = None
            await trio.sleep(self._calls.left_seconds)

    async def leave(self) -> None:
        """The farm ends in order."""
        if self._provider is not None:
            try:
                await self._provider.leave()
            except Exception as error:
                log.warning("workers not ended", pool=self.pool, reason=str(error) or repr(error))

    def nudge(self) -> None:
        """A job waits: where there is no worker, look now."""
        if not self.hands:
            self._wake.set()

    # What others may know

    @property
    def troubles(self) -> list[str]:
        """Why this pool does not have what it should have; sentences."""
        return [f"scaling of pool {self.pool}: {each.reason}" for each in (self._calls, self._starts) if each.reason]

    @property
    def failures(self) -> int:
        """How many calls have failed so far."""
        return self._calls.count + self._starts.count

    def waiting(self) -> str:
        """What a job that waits in this pool may hope for."""
        if self.retiring or self.closing or not self.rules.maximum:
            return ""
        if self._starting or any(hand.state == "starting" for hand in self.hands):
            return "a worker is being started"
        for setback in (self._calls, self._starts):
            if setback.reason:
                return f"no worker could be started, again in {setback.left_seconds:.0f} s: {setback.reason}"
        if not self.hands:
            return "a worker is being started"
        full = len(self.hands) >= self.rules.maximum
        return f"the pool has its {self.rules.maximum} workers" if full else ""

    # Rounds

    async def _rounds(self) -> None:
        while not self.closing:
            self._wake = trio.Event()
            try:
                if not self._calls.left_seconds:
                    await self._round()
                    if self._calls.over():
                        self._note("scaling_recovered", "its provider answers again")
                    if self.retiring and not self.hands and not self._gone:
                        return
            except trio.TooSlowError:
                self._troubled(self._calls, f"its provider did not answer within {CALL_SECONDS:g} s")
            except BlacktreeError as error:
                self._troubled(self._calls, str(error))
            except Exception as error:
                self._broken(self._calls, error)
            with trio.move_on_after(self._interval_seconds):
                await self._wake.wait()
                await trio.sleep(min(0.1, self._interval_seconds))
        # The provider stays open: its workers have to leave in order, at the very end.
        await trio.sleep_forever()

    async def _round(self) -> None:
        time = trio.current_time()
        self.hands = self._seen(await self._list(), time)
        await self._forget()
        plan = decide(self.rules, await self._situation(time))
        if self.closing:
            return
        if self._starts.left_seconds:
            plan = msgspec.structs.replace(plan, start=0)
        self.wanted = plan.wanted
        await self._do(plan)

    async def _list(self) -> list[Machine]:
        settled = all(hand.state == "working" for hand in self.hands)
        time = trio.current_time()
        if self._machines is None or not settled or time - self._listed_at >= LIST_SECONDS:
            assert self._provider is not None
            with trio.fail_after(CALL_SECONDS):
                found = await self._provider.machines()
            if self._listed_at == NEVER and found:
                names = ", ".join(each.id for each in found)
                self._note("scaling_found", f"found {len(found)} workers of an earlier start: {names}")
            if self._listed_at == NEVER:
                self._gone |= await self._remembered() - {each.id for each in found}
            self._machines, self._listed_at = found, time
        return self._machines

    async def _remembered(self) -> set[str]:
        """Ids of this pool's earlier workers that something is still kept of."""
        known = await self._store.settings(f"worker/auto-{self.pool}-")
        ids = {key.removeprefix("worker/") for key in known}
        return {id for id in ids if id.rpartition("-")[0] == f"auto-{self.pool}"}

    async def _forget(self) -> None:
        """Who is removed is forgotten once its lease is over: until then its builds are still to be settled."""
        for worker_id in list(self._gone):
            if self._workers.member(worker_id) is None and not self._workers.is_leased(worker_id):
                await self._workers.forget(worker_id)
                self._gone.discard(worker_id)

    def _seen(self, machines: Sequence[Machine], time: float) -> list[Hand]:
        views = {view.id: view for view in self._workers.views()}
        ids = {machine.id for machine in machines}
        self._since = {id: each for id, each in self._since.items() if id in ids}
        self._details = {machine.id: machine.detail for machine in machines}
        self._useful &= ids
        self._ours &= ids
        return [self._hand(machine, views.get(machine.id), time) for machine in machines]

    def _hand(self, machine: Machine, view: WorkerView | None, time: float) -> Hand:
        alive = view if view is not None and view.state != "dead" else None
        if alive is not None and not alive.refusal and machine.id not in self._useful:
            self._useful.add(machine.id)
            self._starts.over()
        state = self._state(machine, view)
        # What a deployment runs there is not to be ended for want of builds.
        busy = max(alive.busy, int(machine.id in self._occupied())) if alive is not None else 0
        slots = self.rules.slots
        if alive is not None:
            # One that takes nothing now is no help to whoever waits; one that comes up just now will be.
            slots = busy if alive.refusal and state != "starting" else alive.slots
            self._details[machine.id] = alive.refusal
        before = self._since.get(machine.id)
        # A working one counts from when it was last busy.
        if before is None or before[0] != state or busy:
            self._since[machine.id] = before = (state, time)
        return Hand(id=machine.id, state=state, busy=busy, slots=slots, since=before[1], ours=machine.id in self._ours)

    def _state(self, machine: Machine, view: WorkerView | None) -> HandState:
        if not machine.running:
            return "ended"
        if view is None or view.state == "dead":
            return "lost" if view is not None or machine.id in self._useful else "starting"
        if view.state == "draining":
            return "draining"
        return "working" if machine.id in self._useful else "starting"

    async def _situation(self, time: float) -> Situation:
        queued = (await self._store.queued_by_pool()).get(self.pool, 0)
        views = [view for view in self._workers.views() if view.pool == self.pool]
        aside = {job for view in views for job in view.jobs}.union(self._hopeless(self.pool))
        later, oldest = self._waits.look(self.pool, now(), aside)
        if queued > self._waits.known(self.pool):
            # A long queue is not known to its end, and once the known ones are through there are only others.
            since = (await self._store.oldest_queued()).get(self.pool)
            oldest = max(oldest, (now() - since).total_seconds() if since is not None else 0.0)
        mine = {hand.id for hand in self.hands}
        others = [view for view in views if view.id not in mine and view.state in ("free", "busy") and not view.refusal]
        return Situation(
            time=time,
            queued=max(0, queued - later),
            oldest_seconds=oldest,
            others_free=sum(max(0, view.slots - view.busy) for view in others),
            has_others=bool(others),
            hands=self.hands,
            last_change=self._last_change,
        )

    # Doing

    async def _do(self, plan: Plan) -> None:
        if plan.keep or plan.drain or plan.start:
            self._last_change = trio.current_time()
        if plan.keep or plan.drain or plan.start or plan.remove:
            self._machines = None
        for worker_id in plan.keep:
            await self._mark(worker_id, drain=False)
        for worker_id in plan.drain:
            await self._mark(worker_id, drain=True)
        async with trio.open_nursery() as nursery:
            for worker_id, why in plan.remove.items():
                nursery.start_soon(self._remove, worker_id, why)
            for _ in range(plan.start):
                nursery.start_soon(self._start, f"auto-{self.pool}-{secrets.token_hex(4)}")

    async def _mark(self, worker_id: str, *, drain: bool) -> None:
        if drain:
            self._note("scaling_down", f"{worker_id} is not needed: it is drained, then ended", subject=worker_id)
        else:
            self._note("scaling_kept", f"{worker_id} is needed after all", subject=worker_id)
        try:
            await self._workers.drain(worker_id, drain)
        except NotFound:
            return  # it has left by itself
        (self._ours.add if drain else self._ours.discard)(worker_id)

    async def _start(self, worker_id: str) -> None:
        self._note("scaling_up", f"starting {worker_id}", subject=worker_id)
        self._starting.add(worker_id)
        try:
            assert self._provider is not None
            if await self._try(self._starts, CALL_SECONDS, partial(self._provider.start, worker_id)):
                self.started += 1
        finally:
            self._starting.discard(worker_id)

    async def _remove(self, worker_id: str, why: str) -> None:
        if worker_id not in self._useful and not self.retiring:
            # It never came to anything: the next one would hardly do better at once.
            detail = self._details.get(worker_id, "")
            self._troubled(self._starts, f"{worker_id} was of no use: {why}" + (f" ({detail})" if detail else ""))
        assert self._provider is not None
        if await self._try(self._calls, END_SECONDS, partial(self._provider.stop, worker_id)):
            self._gone.add(worker_id)
            self.removed += 1
            self._note("scaling_removed", f"{worker_id} is removed: {why}", subject=worker_id)

    async def _try(self, setback: Setback, seconds: float, call: Callable[[], Awaitable[None]]) -> bool:
        try:
            with trio.fail_after(seconds):
                await call()
        except trio.TooSlowError:
            self._troubled(setback, f"its provider did not answer within {seconds:g} s")
        except BlacktreeError as error:
            self._troubled(setback, str(error))
        except Exception as error:
            self._broken(setback, error)
        else:
            return True
        return False

    def _troubled(self, setback: Setback, reason: str) -> None:
        if setback.failed(reason):
            self._note("scaling_failed", reason)
            log.warning("scaling failed", pool=self.pool, reason=reason)

    def _broken(self, setback: Setback, error: Exception) -> None:
        """The edge of one pool: whatever its provider does (others may have written it), the farm goes on."""
        log.exception("scaling_broken", pool=self.pool, provider=self.rules.provider)
        self._troubled(setback, f"its provider `{self.rules.provider}` broke: {type(error).__name__}: {error}")

    def _note(self, type: str, text: str, *, subject: str = "") -> None:
        self._chronicle.note(type, f"pool {self.pool}: {text}", subject=subject or self.pool)

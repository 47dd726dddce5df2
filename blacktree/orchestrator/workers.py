"""`Workers`: who is in the farm, whose lease holds, and `async with lease(…)` on a free slot."""

import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.errors import BadRequest, NotAllowed, NotFound
from blacktree.orchestrator.census import Census
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.control import WorkerView
from blacktree.orchestrator.held import Book
from blacktree.orchestrator.member import REFUSAL_SECONDS, Connect, Member
from blacktree.orchestrator.ways import Wanted, Way, find_way
from blacktree.rpc import address as addresses
from blacktree.rpc.peer import PROTOCOL_VERSION, Registration, WorkerStatus
from blacktree.spec import PoolName
from blacktree.storage.base import Store

log = structlog.get_logger()

MAX_MEMBERS = 10_000
MAX_SLOTS = 1024


class Workers:
    """The pool. Registration, leases on slots, and the state that `worker.list` shows."""

    def __init__(
        self,
        store: Store,
        book: Book,
        chronicle: Chronicle,
        connect: Connect,
        *,
        lease_seconds: float,
        ping_seconds: float,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._told = changed
        self._book = book
        self._chronicle = chronicle
        self._connect = connect
        self.lease_seconds = lease_seconds
        self._ping_seconds = ping_seconds
        self.census = Census()
        self._members: dict[str, Member] = {}
        self._lease_until: dict[str, float] = {}
        self.leases_lost = 0
        self._draining: set[str] = set()
        self._changed = trio.Event()
        self._waiting = 0
        self._calm_at: dict[str, float] = {}
        self._calm_from = math.inf
        self._joined, self._arrivals = trio.open_memory_channel[tuple[Member, Callable[[Member], Awaitable[None]]]](
            MAX_MEMBERS
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """One task per connected worker."""
        self._draining = {key.removeprefix("drain/") for key in await self._store.settings("drain/")}
        async with trio.open_nursery() as nursery:
            # Workers that were here before this process began have one lease to come back.
            self._calm_from = trio.current_time() + self.lease_seconds
            nursery.start_soon(self._calm)
            task_status.started()
            async for member, task in self._arrivals:
                nursery.start_soon(task, member, name=f"worker {member.id}")

    async def _serve(self, member: Member) -> None:
        await member.run(self._connect, partial(self.touch, member), ping_seconds=self._ping_seconds)

    async def _calm(self, member: Member | None = None) -> None:
        """Where one worker has come others may follow: for one lease nobody is held to be missing for good."""
        await trio.sleep(self.lease_seconds)
        self.stir()

    async def _lapse(self, member: Member) -> None:
        await trio.sleep(REFUSAL_SECONDS)
        member.forget_refusal()
        self.touch(member)

    def touch(self, member: Member) -> None:
        """Something about this worker changed: the census knows, and whoever waits for a slot looks again."""
        if self._members.get(member.id) is member and not member.gone.is_set():
            self.census.put(member.candidate())
        elif self.member(member.id) is None:
            self.census.remove(member.id)
        self._told()
        self.stir()

    def stir(self) -> None:
        """Let whoever waits for a slot look again."""
        if self._waiting:
            self._changed.set()
            self._changed = trio.Event()

    def refused(self, member: Member, reason: str) -> None:
        """It did not take a job: leave it alone for a moment, or until its next report says more."""
        member.refused(reason)
        self.touch(member)
        with suppress(trio.WouldBlock):
            self._joined.send_nowait((member, self._lapse))

    def unreachable(self, member: Member, reason: str) -> None:
        """It takes nothing until it has answered a ping again."""
        member.unreachable = reason
        self.touch(member)

    # Slots

    async def wait_free(self, pool: str) -> None:
        """Until some worker of this pool has a free slot."""
        while not self.has_free(pool):
            await self.wait_changed()

    def has_free(self, pool: str) -> bool:
        """Whether some worker of this pool has a free slot now."""
        return self.census.choose(pool, "") is not None

    def way(self, pool: str, want: Wanted) -> Way:
        """How a job of this pool that asks for this can be built now."""
        builders = self.census.builders
        calm = trio.current_time() >= self._calm_at.get(pool, self._calm_from)
        return find_way(want, builders.profiles(pool), known=builders.known(pool), settled=calm)

    def can_go(self, pool: str, want: Wanted) -> bool:
        """Whether a job that asks for this need not wait."""
        way = self.way(pool, want)
        return not way.missing and (way.split or self.census.choose(pool, "", way.needs) is not None)

    async def wait_changed(self) -> None:
        """Until something about any worker has changed."""
        self._waiting += 1
        try:
            await self._changed.wait()
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def lease(
        self, pool: str, repository: str, job_id: str, needs: Collection[str] = ()
    ) -> AsyncIterator[Member]:
        """A slot for this job, held until the context is left. Waits, parked, until one is free."""
        while (best := self.census.choose(pool, repository, needs)) is None:
            await self.wait_changed()
        async with self.hold(best.id, job_id):
            yield self._members[best.id]

    @asynccontextmanager
    async def hold(self, worker_id: str, job_id: str) -> AsyncIterator[None]:
        """Count this job against its worker's slots; an adopted one also before its worker has come back."""
        if member := self._members.get(worker_id):
            member.jobs.add(job_id)
            self.touch(member)
        try:
            yield
        finally:
            # Whoever bears the id now: the worker may have registered anew meanwhile.
            if member := self._members.get(worker_id):
                member.jobs.discard(job_id)
                self.touch(member)

    def member(self, worker_id: str, incarnation: str = "") -> Member | None:
        """The living worker of this id (and incarnation, if given)."""
        member = self._members.get(worker_id)
        if member is None or member.gone.is_set():
            return None
        return member if not incarnation or member.registration.incarnation == incarnation else None

    def ids(self) -> list[str]:
        """Every living worker."""
        return [worker_id for worker_id, member in self._members.items() if not member.gone.is_set()]

    # Joining and leaving

    async def join(self, registration: Registration) -> Member:
        """Take a worker in. Raises `NotAllowed` with advice; a known incarnation is refreshed."""
        _believable(registration)
        await self._same_secret(registration)
        old = self._members.get(registration.worker_id)
        if old is None and len(self._members) >= MAX_MEMBERS and not self._forget_one():
            raise NotAllowed(f"this farm has {MAX_MEMBERS} workers already", code="too_many_workers")
        member = Member(registration, draining=registration.worker_id in self._draining)
        member.jobs = {held.name.job_id for held in self._book.of_worker(member.id)}
        if old is not None:
            member.jobs |= old.jobs if old.registration.incarnation == registration.incarnation else set()
            old.gone.set()
        self._members[member.id] = member
        self.renew(member.id)
        await self._joined.send((member, self._serve))
        rejoined = old is not None and old.registration.incarnation == registration.incarnation
        if not rejoined:
            slots = f"{member.slots} slot{'' if member.slots == 1 else 's'}"
            text = f"worker {member.id} joined pool {registration.pool} with {slots}"
            self._chronicle.note("worker_joined", text, subject=member.id)
            self._calm_at[registration.pool] = trio.current_time() + self.lease_seconds
            await self._joined.send((member, self._calm))
            log.info("worker joined", worker=member.id, pool=registration.pool, slots=member.slots)
        self.touch(member)
        return member

    def _forget_one(self) -> bool:
        """Make room by no longer showing the worker that is dead for longest; False if all are alive."""
        dead = [member for member in self._members.values() if member.gone.is_set()]
        if not dead:
            return False
        del self._members[min(dead, key=lambda member: member.last_seen_at).id]
        return True

    async def _same_secret(self, registration: Registration) -> None:
        """The same secret is a restart; another one is refused while the lease of the first holds."""
        worker_id = registration.worker_id
        key = f"worker/{worker_id}"
        known = (await self._store.settings(key)).get(key)
        told = hashlib.sha256(registration.secret.encode()).hexdigest()
        if known is not None and hmac.compare_digest(known, told):
            return
        if known is not None and self._lease_until.get(worker_id, 0) > trio.current_time():
            raise NotAllowed(
                f"worker id `{worker_id}` is in use by another worker",
                code="duplicate_worker",
                advice="give this worker an id of its own (`worker.id`), or wait until the other's lease has run out",
            )
        await self._store.setting(key, told)

    def seen(self, member: Member, status: WorkerStatus) -> None:
        """It reported: its lease is renewed and its state is as it says."""
        before = member.status
        member.status = status
        member.last_seen_at = now()
        self.renew(member.id)
        if _told_by(before) != _told_by(status):
            self._noted(member, before.refusal, status.refusal)
            self.touch(member)

    def _noted(self, member: Member, before: str, after: str) -> None:
        if bool(before) == bool(after):
            return
        if after:
            self._chronicle.note("worker_refusing", f"worker {member.id} takes no builds: {after}", subject=member.id)
        else:
            self._chronicle.note("worker_willing", f"worker {member.id} takes builds again", subject=member.id)

    def leave(self, worker_id: str, incarnation: str) -> None:
        """It has left on its own accord."""
        member = self.member(worker_id, incarnation)
        if member is None:
            return
        member.gone.set()
        del self._members[worker_id]
        self._lease_until.pop(worker_id, None)
        self._chronicle.note("worker_left", f"worker {worker_id} left", subject=worker_id)
        log.info("worker left", worker=worker_id)
        self.touch(member)

    # Leases

    def renew(self, worker_id: str) -> None:
        """Count a full lease from now."""
        self._lease_until[worker_id] = trio.current_time() + self.lease_seconds

    def is_leased(self, worker_id: str) -> bool:
        """Whether a lease of it is not over yet, also of one that has not come back since the start."""
        return worker_id in self._lease_until

    def expired(self) -> list[str]:
        """Workers whose lease has run out, each told once; a living one is dead from here on."""
        time = trio.current_time()
        over = [worker_id for worker_id, until in self._lease_until.items() if until <= time]
        self.leases_lost += len(over)
        for worker_id in over:
            del self._lease_until[worker_id]
            member = self._members.get(worker_id)
            if member is not None and not member.gone.is_set():
                member.gone.set()
                text = f"worker {worker_id} lost: silent for {self.lease_seconds:g} s"
                self._chronicle.note("worker_lost", text, subject=worker_id)
                log.warning("worker lost", worker=worker_id)
                self.touch(member)
        return over

    def next_expiry(self) -> float:
        """When the next lease may run out, on Trio's clock."""
        return min(self._lease_until.values(), default=trio.current_time() + self.lease_seconds)

    # Draining and showing

    async def drain(self, worker_id: str, drain: bool) -> Member:
        """Drain, or undo; remembered until undone. Raises `NotFound`."""
        member = self._members.get(worker_id)
        if member is None:
            raise NotFound(f"no worker `{worker_id}`", advice="`blacktree workers` lists them")
        await self._store.setting(f"drain/{worker_id}", "1" if drain else None)
        (self._draining.add if drain else self._draining.discard)(worker_id)
        if member.draining != drain:
            member.draining = drain
            word = "is drained" if drain else "is no longer drained"
            self._chronicle.note(
                "worker_drained" if drain else "worker_undrained", f"worker {worker_id} {word}", subject=worker_id
            )
        self.touch(member)
        return member

    async def forget(self, worker_id: str) -> None:
        """It is gone for good, and its id with it: no secret, no drain and no dead entry of it is kept.

        Only once its lease is over: that ends what it held.
        """
        for key in (f"drain/{worker_id}", f"worker/{worker_id}"):
            await self._store.setting(key, None)
        self._draining.discard(worker_id)
        self._lease_until.pop(worker_id, None)
        member = self._members.pop(worker_id, None)
        if member is not None:
            member.gone.set()
            self.touch(member)

    def views(self) -> list[WorkerView]:
        """Every worker, the lost ones too, by id."""
        return [view(member) for _, member in sorted(self._members.items())]


def _told_by(status: WorkerStatus) -> tuple[object, ...]:
    """What of it is of interest to whoever chooses a worker."""
    return status.refusal, status.draining, status.warm, status.platforms, status.emulated


def view(member: Member) -> WorkerView:
    """A worker as the outside sees it."""
    candidate = member.candidate()
    registration = member.registration
    if member.gone.is_set():
        state = "dead"
    elif candidate.draining:
        state = "draining"
    else:
        state = "busy" if candidate.busy >= candidate.slots else "free"
    return WorkerView(
        id=member.id,
        state=state,
        pool=registration.pool,
        labels=registration.labels,
        platform=registration.platform,
        platforms=sorted(candidate.profile.native),
        emulated=sorted(candidate.profile.emulated),
        version=registration.version,
        address=registration.address,
        slots=member.slots,
        busy=candidate.busy,
        jobs=sorted(member.jobs),
        refusal=candidate.refusal,
        free_disk_bytes=member.status.free_disk_bytes,
        engine=member.status.engine,
        warm=list(member.status.warm),
        registered_at=member.registered_at,
        last_seen_at=member.last_seen_at,
    )


def _believable(registration: Registration) -> None:
    if registration.protocol != PROTOCOL_VERSION:
        older = "older" if registration.protocol < PROTOCOL_VERSION else "newer"
        raise NotAllowed(
            f"worker {registration.worker_id} speaks protocol {registration.protocol}, this is {PROTOCOL_VERSION}",
            code="protocol_version",
            advice=f"the worker is {older}: install the same release of blacktree on both",
        )
    try:
        addresses.parse(registration.address)
    except BadRequest as error:
        raise NotAllowed(
            f"worker {registration.worker_id} cannot be reached: {error.message}",
            code="bad_address",
            advice="set `worker.advertise` to host:port or unix:/path",
        ) from None
    try:
        msgspec.convert(registration.pool, PoolName)
    except msgspec.ValidationError:
        raise NotAllowed(
            f"worker {registration.worker_id} wants to join a pool whose name is none",
            code="bad_pool",
            advice="a pool's name has 1 to 32 lower-case letters, digits or `-`",
        ) from None
    status = registration.status
    if not 1 <= status.slots <= MAX_SLOTS or not 0 <= status.busy <= status.slots:
        raise NotAllowed(
            f"worker {registration.worker_id} claims {status.busy} of {status.slots} slots busy",
            code="bad_slots",
            advice=f"`worker.slots` must be between 1 and {MAX_SLOTS}",
        )

"""`Scaler`: every pool that grows and shrinks by itself, each with a keeper of its own."""

from collections.abc import Callable, Collection
from functools import partial

import msgspec
import structlog
import trio

from blacktree.config import Config, ScaledPool
from blacktree.errors import StorageFailed
from blacktree.job import JobState
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.keeper import Keeper
from blacktree.orchestrator.waits import Waits
from blacktree.orchestrator.workers import Workers
from blacktree.scaling import OpenWorkerProvider, WorkerProviderSettings
from blacktree.storage.base import Commit, Store
from blacktree.strict import UNREADABLE

log = structlog.get_logger()

KIND = "scaled-pool"


class Scaler:
    """Runs the keepers. A pool that is no longer configured is emptied first, then forgotten.

    `occupied`: the workers that something other than a build runs on. `hopeless`: the jobs of a pool that no worker of
    its kind can build.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        workers: Workers,
        chronicle: Chronicle,
        open_provider: OpenWorkerProvider | None,
        *,
        farm_id: str,
        occupied: Callable[[], Collection[str]] = tuple,
        hopeless: Callable[[str], Collection[str]] = lambda pool: (),
    ) -> None:
        self._config = config
        self._store = store
        self._workers = workers
        self._chronicle = chronicle
        self._open_provider = open_provider
        self._farm_id = farm_id
        self._occupied = occupied
        self._hopeless = hopeless
        self._waits = Waits(config.scaling.pools)
        self._keepers: dict[str, Keeper] = {}
        for pool, rules in config.scaling.pools.items() if open_provider is not None else ():
            self._keepers[_name(pool, rules)] = self._keeper(pool, rules)
        self._by_pool = {keeper.pool: keeper for keeper in self._keepers.values()}

    def _keeper(self, pool: str, rules: ScaledPool, *, retiring: bool = False) -> Keeper:
        return Keeper(
            pool,
            rules,
            self._config.scaling,
            self._store,
            self._workers,
            self._waits,
            self._chronicle,
            retiring=retiring,
            occupied=self._occupied,
            hopeless=self._hopeless,
        )

    def on_commit(self, commit: Commit) -> None:
        """A job changed: how long it waits is remembered, and an empty pool looks at once."""
        keeper = self._by_pool.get(commit.job.spec.pool)
        if keeper is not None:
            self._waits.on_commit(commit)
            if commit.job.state is JobState.QUEUED:
                keeper.nudge()

    async def run(self, address: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep every pool, until cancelled. `address`: where workers register, as bound."""
        if self._open_provider is None:
            task_status.started()
            return
        await self._recall()
        async with trio.open_nursery() as nursery:
            task_status.started()
            for name, keeper in self._keepers.items():
                nursery.start_soon(self._keep, self._open_provider, name, keeper, address, name=f"scaler {keeper.pool}")

    async def _recall(self) -> None:
        """What waits already, and the pools that an earlier configuration has filled."""
        after = ""
        while self._by_pool and (page := await self._store.queued(after=after)):
            for job in page:
                self._waits.put(job)
            after = page[-1].id
        for name, keeper in self._keepers.items():
            body = msgspec.json.encode({"pool": keeper.pool, "rules": keeper.rules})
            await self._store.revise(KIND, name, partial(_put, body))
        for name, stored in await self._store.documents(KIND):
            if name not in self._keepers:
                try:
                    left = msgspec.json.decode(stored, type=_Left)
                except UNREADABLE as error:
                    log.error("a pool's record cannot be read", name=name, reason=str(error))
                    continue
                rules = msgspec.structs.replace(left.rules, minimum=0, maximum=0)
                self._keepers[name] = self._keeper(left.pool, rules, retiring=True)

    async def _keep(self, open_provider: OpenWorkerProvider, name: str, keeper: Keeper, address: str) -> None:
        settings = self._config.orchestrator
        await keeper.run(
            open_provider,
            WorkerProviderSettings(
                farm_id=self._farm_id,
                pool=keeper.pool,
                slots=keeper.rules.slots,
                orchestrator=address,
                join_token_file=settings.join_token_file,
                state_directory=settings.state_directory,
                lease_seconds=settings.lease_seconds,
                options=keeper.rules.options,
            ),
        )
        if keeper.retiring and not keeper.closing:
            try:
                await self._store.revise(KIND, name, lambda before: None)
            except StorageFailed as error:
                # The next start finds it once more, and as empty.
                log.error("a pool's record cannot be removed", name=name, reason=str(error))
            del self._keepers[name]

    def close(self) -> None:
        """The farm is shutting down: nothing is started or ended any more."""
        for keeper in self._keepers.values():
            keeper.closing = True

    async def leave(self) -> None:
        """Let the providers end what must not outlive the farm."""
        async with trio.open_nursery() as nursery:
            for keeper in self._keepers.values():
                nursery.start_soon(keeper.leave)

    # What others may know

    def waiting(self, pool: str) -> str:
        """What a job that waits in this pool may hope for; empty if the scaler has no say there."""
        keeper = self._by_pool.get(pool)
        return keeper.waiting() if keeper is not None else ""

    def troubles(self) -> list[str]:
        """Reasons for being degraded."""
        return [reason for keeper in self._keepers.values() for reason in keeper.troubles]

    def figures(self) -> dict[str, dict[str, int]]:
        """See `Control.figures`."""
        if not self._keepers:
            return {}
        keepers = self._by_pool
        return {
            "scaling_workers{pool}": {pool: len(keeper.hands) for pool, keeper in keepers.items()},
            "scaling_wanted{pool}": {pool: keeper.wanted for pool, keeper in keepers.items()},
            "scaling_started_total{pool}": {pool: keeper.started for pool, keeper in keepers.items()},
            "scaling_removed_total{pool}": {pool: keeper.removed for pool, keeper in keepers.items()},
            "scaling_failures_total{pool}": {pool: keeper.failures for pool, keeper in keepers.items()},
        }


class _Left(msgspec.Struct):
    pool: str
    rules: ScaledPool


def _put(body: bytes, before: bytes | None) -> bytes:
    return before if before == body else body


def _name(pool: str, rules: ScaledPool) -> str:
    return f"{pool}/{rules.provider}"

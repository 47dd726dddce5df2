"""What a worker does beside building: asks its engine how it is, sweeps what was left, keeps to its disk budgets."""

from collections.abc import Callable

import msgspec
import structlog
import trio

from blacktree.concurrency.every import every
from blacktree.concurrency.threads import in_thread
from blacktree.config import WorkerConfig
from blacktree.errors import BlacktreeError, StepFailed, Unavailable
from blacktree.providers.base import Budget, Health, Provider, Unproven
from blacktree.services.core import workspace
from blacktree.services.sync.mirrors import trim, warm
from blacktree.worker.identity import Identity
from blacktree.worker.roster import Roster
from blacktree.worker.standing import Standing

log = structlog.get_logger()

TICK_SECONDS = 2.0
CHECK_SECONDS = 15.0
CHECK_LIMIT_SECONDS = 10.0
RELIEF_SECONDS = 300.0
WARM_REPOSITORIES = 200


class Housekeeping:
    """`sweep` before the worker presents itself, then `run` for ever."""

    def __init__(
        self,
        config: WorkerConfig,
        provider: Provider,
        identity: Identity,
        roster: Roster,
        standing: Standing,
        changed: Callable[[], None],
    ) -> None:
        self._config = config
        self._provider = provider
        self._identity = identity
        self._roster = roster
        self._standing = standing
        self._changed = changed
        self._checked_at = -CHECK_SECONDS
        self._relieved_at = -RELIEF_SECONDS

    async def run(self) -> None:
        """Every tick a look at what is due. Ends when cancelled."""
        chores_at = trio.current_time() + self._config.sweep_interval_seconds
        async for _ in every(TICK_SECONDS):
            if self._standing.suspect or trio.current_time() >= self._checked_at + CHECK_SECONDS:
                await self.check()
            if self._standing.suspect and not self._standing.health.refusal:
                await self.sweep()
            if self._standing.built:
                self._standing.built = False
                found = (await in_thread(lambda: warm(self._identity.state)))[:WARM_REPOSITORIES]
                if found != self._standing.warm:
                    self._standing.warm = found
                    self._changed()
            if self._standing.short and trio.current_time() >= self._relieved_at + RELIEF_SECONDS:
                self._relieved_at = trio.current_time()
                log.warning("short of disk: caches go, whatever their budgets", reason=self._standing.refusal()[1])
                await self._prune(cache_bytes=0, mirror_bytes=0)
            if trio.current_time() >= chores_at:
                await self._chores()
                chores_at = trio.current_time() + self._config.sweep_interval_seconds

    async def check(self) -> None:
        """Ask the engine. An answer that takes too long is a refusal."""
        self._checked_at = trio.current_time()
        before = self._standing.health
        health = Health(
            name=before.name, version=before.version, refusal="the engine did not answer when asked how it is"
        )
        with trio.move_on_after(CHECK_LIMIT_SECONDS):
            health = await self._provider.check()
        if health.refusal:
            # What it builds is not forgotten because it does not say so now.
            health = msgspec.structs.replace(health, platforms=before.platforms, emulated=before.emulated)
        self._standing.health = health
        if (health.platforms, health.emulated) != (before.platforms, before.emulated):
            self._changed()
        if health.refusal != before.refusal:
            if health.refusal:
                log.error("the engine takes no builds", reason=health.refusal)
            else:
                log.info("the engine takes builds", engine=health.name, version=health.version)
            self._changed()

    async def sweep(self) -> bool:
        """Remove what belongs to no build that runs. False, and the worker stays suspect, if it could not be done."""
        self._standing.close_gate()
        try:
            alive = self._roster.alive_jobs
            removed = await self._provider.sweep(alive)
            removed += await workspace.sweep(self._identity.state, alive)
            # A build whose end could not be shown is gone only if the engine says so.
            for job_id in {each for each in self._standing.left_open if each not in alive}:
                if left := await self._provider.remaining(job_id):
                    raise Unproven(", ".join(left))
            self._standing.left_open.clear()
        except (BlacktreeError, Unproven, OSError) as error:
            log.warning("sweep failed", reason=str(error))
            self._standing.suspect = self._standing.suspect or f"the last sweep failed: {error}"
            return False
        finally:
            self._standing.open_gate()
        if removed:
            log.info("swept", removed=removed)
        if self._standing.suspect:
            self._standing.suspect = ""
            self._changed()
        return True

    async def _chores(self) -> None:
        await self.sweep()
        await self._prune(self._config.cache_budget_bytes, self._config.mirror_budget_bytes)

    async def _prune(self, cache_bytes: int, mirror_bytes: int) -> None:
        """What is built is kept to its own budget in any case: it is somebody's result."""
        try:
            freed = await self._provider.prune(
                Budget(image_bytes=self._config.image_budget_bytes, cache_bytes=cache_bytes)
            )
            if freed:
                log.info("pruned", bytes=freed)
            state = self._identity.state
            if gone := await in_thread(lambda: trim(state, mirror_bytes)):
                log.info("mirrors removed", repositories=len(gone))
        except (Unavailable, StepFailed, OSError) as error:
            log.warning("housekeeping failed", reason=str(error))

"""What a worker does of its own accord when it is short of disk."""

from pathlib import Path

import trio

from blacktree.config import WorkerConfig
from blacktree.providers.base import Budget, Health, ProviderSettings
from blacktree.providers.scripted import ScriptedProvider
from blacktree.worker.housekeeping import Housekeeping
from blacktree.worker.identity import Identity
from blacktree.worker.lease import Lease, boottime
from blacktree.worker.roster import Roster
from blacktree.worker.standing import Standing


class Pruned(ScriptedProvider):
    """Keeps the budgets that it is told."""

    def __init__(self) -> None:
        super().__init__(ProviderSettings(owner="test"))
        self.budgets: list[Budget] = []
        self.told = trio.Event()

    async def prune(self, budget: Budget) -> int:
        self.budgets.append(budget)
        self.told.set()
        return await super().prune(budget)


async def test_short_of_disk_it_gives_up_its_caches_and_keeps_what_was_built(tmp_path: Path) -> None:
    config = WorkerConfig(minimum_free_disk_bytes=1 << 60, state_directory=str(tmp_path))
    lease, provider = Lease(), Pruned()
    lease.renew(boottime(), 30.0)
    standing = Standing(config, tmp_path, Roster(), lease)
    standing.suspect, standing.health = "", Health(name="scripted")
    house = Housekeeping(config, provider, Identity("w", tmp_path, "secret"), Roster(), standing, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.run)
        with trio.fail_after(40):
            await provider.told.wait()
        nursery.cancel_scope.cancel()
    assert provider.budgets == [Budget(image_bytes=config.image_budget_bytes, cache_bytes=0)]

"""What every worker provider keeps, whoever wrote it. Fixtures: `settings`, `other_farm` and `open_provider`."""

import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import msgspec
import pytest
import trio

from blacktree.scaling import WorkerProvider, WorkerProviderSettings

# The engine is everybody's on this machine: another run of these tests must not meet ours.
_RUN = secrets.token_hex(3)
ONE, TWO, NOBODY = (f"auto-default-{_RUN}{number}" for number in ("01", "02", "ff"))

Opener = Callable[[WorkerProviderSettings], AbstractAsyncContextManager[WorkerProvider]]


class WorkerProviderContract:
    """`settings`: of a farm of the test's own, with a pool called `default`; `other_farm`: of another one."""

    @pytest.fixture
    def open_provider(self) -> Opener:
        raise NotImplementedError

    async def kill(self, worker_id: str) -> None:
        """End this worker as a crash would, without the provider."""
        raise NotImplementedError

    async def test_a_life(self, settings: WorkerProviderSettings, open_provider: Opener) -> None:
        async with open_provider(settings) as provider:
            assert await provider.machines() == []
            await provider.start(ONE)
            await provider.start(TWO)
            found = {each.id: each.running for each in await provider.machines()}
            assert found == {ONE: True, TWO: True}
            await provider.stop(ONE)
            assert [each.id for each in await provider.machines()] == [TWO]
            await provider.stop(TWO)
            assert await provider.machines() == []

    async def test_the_same_id_is_one_worker(self, settings: WorkerProviderSettings, open_provider: Opener) -> None:
        async with open_provider(settings) as provider:
            await provider.start(ONE)
            await provider.start(ONE)
            assert len(await provider.machines()) == 1
            await provider.stop(ONE)
            assert await provider.machines() == []

    async def test_stopping_what_is_not_there(self, settings: WorkerProviderSettings, open_provider: Opener) -> None:
        async with open_provider(settings) as provider:
            await provider.stop(NOBODY)

    async def test_other_farms_and_pools_are_not_seen(
        self, settings: WorkerProviderSettings, open_provider: Opener, other_farm: WorkerProviderSettings
    ) -> None:
        async with open_provider(settings) as provider:
            await provider.start(ONE)
            async with open_provider(other_farm) as stranger:
                assert await stranger.machines() == []
                await stranger.stop(ONE)
            async with open_provider(msgspec.structs.replace(settings, pool="other")) as neighbour:
                assert await neighbour.machines() == []
            assert [each.id for each in await provider.machines()] == [ONE]
            await provider.stop(ONE)

    async def test_what_died_is_told_and_removed(self, settings: WorkerProviderSettings, open_provider: Opener) -> None:
        async with open_provider(settings) as provider:
            await provider.start(ONE)
            await self.kill(ONE)
            with trio.fail_after(40):
                while (found := await provider.machines())[0].running:
                    await trio.sleep(0.02)
            assert [each.id for each in found] == [ONE]
            await provider.stop(ONE)
            assert await provider.machines() == []

    async def test_cancelled_at_any_moment_nothing_is_lost(
        self, settings: WorkerProviderSettings, open_provider: Opener
    ) -> None:
        """A start cut short leaves nothing that `machines` does not name, and `stop` removes it."""
        async with open_provider(settings) as provider:
            for number in range(6):
                with trio.move_on_after(0.01 * number):
                    await provider.start(f"{ONE[:-1]}{number}")
            for each in await provider.machines():
                with trio.move_on_after(0.01):
                    await provider.stop(each.id)
            async with trio.open_nursery() as nursery:
                for each in await provider.machines():
                    nursery.start_soon(partial(provider.stop, each.id))
            assert await provider.machines() == []

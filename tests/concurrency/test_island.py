"""The island's turns: what is ready runs together, in order, and leaves Trio its share."""

import asyncio
from typing import Any

import pytest
import structlog
import trio

from blacktree.concurrency import island
from blacktree.concurrency.island import back_to_trio, on_island, open_island


async def test_what_is_ready_runs_in_one_turn() -> None:
    seen: list[str] = []

    async def queue() -> None:
        loop = asyncio.get_running_loop()
        for number in range(100):
            loop.call_soon(seen.append, str(number))
        loop.call_soon(running.cancel)

    async def count_turns() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            seen.append("trio")

    async with open_island(), trio.open_nursery() as nursery:
        running = nursery.cancel_scope
        nursery.start_soon(count_turns)
        await on_island(queue)
        await trio.sleep_forever()
    callbacks = [each for each in seen if each != "trio"]
    assert callbacks == [str(number) for number in range(100)]
    assert seen[seen.index("0") : seen.index("99")].count("trio") <= 1


async def test_callbacks_without_end_do_not_keep_trio_from_running() -> None:
    async def for_ever() -> None:
        while True:
            await asyncio.sleep(0)

    with trio.fail_after(40):
        async with open_island(), trio.open_nursery() as nursery:
            nursery.start_soon(on_island, for_ever)
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_timers_and_trio_functions_take_their_place_among_callbacks() -> None:
    seen: list[str] = []

    async def trio_function() -> None:
        await trio.lowlevel.checkpoint()
        seen.append("trio")

    async def many() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, seen.append, "late")
        loop.call_later(0, seen.append, "soon")
        await asyncio.gather(*(back_to_trio(trio_function) for _ in range(3)), asyncio.sleep(0.02))

    with trio.fail_after(40):
        async with open_island():
            await on_island(many)
    assert sorted(seen) == ["late", "soon", "trio", "trio", "trio"]
    assert seen.index("soon") < seen.index("late")


async def test_a_failing_callback_harms_no_other() -> None:
    seen: list[int] = []

    def fail() -> None:
        raise ValueError("on purpose")

    async def queue() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(seen.append, 1)
        loop.call_soon(fail)
        loop.call_soon(seen.append, 2)
        await asyncio.sleep(0.001)

    async with open_island():
        await on_island(queue)
        await on_island(queue)
    assert seen == [1, 2, 1, 2]


@pytest.mark.parametrize("missing", ["_main_loop_one", "_q_recv"])
async def test_without_the_library_s_private_parts_it_runs_as_it_is(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        """A loop of another make: all of it but one part."""

        def __init__(self, loop: Any) -> None:
            object.__setattr__(self, "loop", loop)

        def __getattr__(self, name: str) -> Any:
            if name == missing:
                raise AttributeError(name)
            return getattr(self.loop, name)

        def __setattr__(self, name: str, value: Any) -> None:
            raise AssertionError("it was not to be changed")

    hurry = island._hurry
    monkeypatch.setattr(island, "_hurry", lambda loop: hurry(Other(loop)))
    island._say_slow.cache_clear()
    seen: list[int] = []

    async def queue() -> None:
        asyncio.get_running_loop().call_soon(seen.append, 1)
        await asyncio.sleep(0.001)

    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            async with open_island():
                await on_island(queue)
    assert seen == [1, 1]
    assert [each["log_level"] for each in logs] == ["warning"]
    island._say_slow.cache_clear()

"""The farm's own events: each is written once, also when the tree ends while one is on its way."""

from typing import Any

import pytest
import trio

from blacktree.orchestrator.chronicle import Chronicle


class SlowLog:
    """A log whose writes are on their way for a while, and are made whether or not somebody waits for them."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.taken = trio.Event()

    async def note(self, type: str, text: str, **_: Any) -> None:
        self.stored.append(type)
        self.taken.set()
        await trio.sleep(0.1)


@pytest.mark.usefixtures("autojump_clock")
async def test_an_event_that_is_on_its_way_when_the_tree_ends_is_stored_once() -> None:
    farm = SlowLog()
    chronicle = Chronicle(farm)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(chronicle.run)
        chronicle.note("stopped", "the orchestrator stopped")
        await farm.taken.wait()
        nursery.cancel_scope.cancel()
    assert farm.stored == ["stopped"]

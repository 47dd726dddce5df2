"""Many who look through logs at once leave the farm its time."""

from collections.abc import Iterator

import pytest
import trio

from blacktree.api import search
from blacktree.clock import now
from blacktree.event import Notice, Record


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_searches_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch of a log takes up to 50 ms of the loop's time: thousands in one turn would stop everything for as long.

    Measured: 3,600 searches of one reader at once, and nobody was let in at the door for seconds.
    """
    turns, looked = Turns(), list[int]()

    async def read(seq: int, limit: int) -> list[tuple[int, Record]]:
        await trio.lowlevel.checkpoint()
        return [(seq, record)] if seq < 4 else []

    def matches(record: Record, first: int, asked: search.Sought) -> Iterator[int]:
        looked.append(turns.count)
        return iter(())

    record = Notice(time=now(), attempt=1, code="x", text="x")
    monkeypatch.setattr(search, "matches", matches)
    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(search.search, read, search.Sought(errors=True))
    trio.lowlevel.remove_instrument(turns)
    assert len(looked) == len(set(looked)) == 60

"""What readers of one sequence share when they read from the store."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from blacktree.concurrency.fanout import MOST_SHARED, Fanout
from blacktree.orchestrator.control import Slice


class Shelf:
    """Counts the looks; each waits until it is let go."""

    def __init__(self) -> None:
        self.looks: list[int] = []
        self.go = trio.Event()
        self.fails = False
        self.empty = False

    async def look(self, seq: int) -> Slice:
        self.looks.append(seq)
        await self.go.wait()
        if self.fails:
            raise ValueError("on purpose")
        next_seq = seq if self.empty else seq + 10
        return Slice(body=b"%d" % seq, first_seq=seq, next_seq=next_seq, count=next_seq - seq)


def fanout(readers: int) -> Fanout[Slice]:
    made: Fanout[Slice] = Fanout()
    made.readers = readers
    return made


async def test_readers_at_one_place_look_once() -> None:
    shelf, shared = Shelf(), fanout(3)
    found: list[Slice] = []

    async def read() -> None:
        found.append(await shared.share(1, lambda: shelf.look(1)))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        await wait_all_tasks_blocked()
        shelf.go.set()
    await read()
    assert shelf.looks == [1]
    assert len({id(each.body) for each in found}) == 1


async def test_a_reader_alone_keeps_nothing() -> None:
    shelf, shared = Shelf(), fanout(1)
    shelf.go.set()
    for _ in range(2):
        await shared.share(1, lambda: shelf.look(1))
    assert shelf.looks == [1, 1]


async def test_what_is_kept_is_bounded() -> None:
    shelf, shared = Shelf(), fanout(2)
    shelf.go.set()
    for seq in [*range(MOST_SHARED + 1), MOST_SHARED, 0]:
        await shared.share(seq, lambda seq=seq: shelf.look(seq))
    assert shelf.looks == [*range(MOST_SHARED + 1), 0]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_look_that_fails_is_taken_over_by_who_waits(cancelled: bool) -> None:
    shelf, shared = Shelf(), fanout(2)
    scope = trio.CancelScope()
    found: list[Slice] = []

    async def first() -> None:
        with scope:
            try:
                await shared.share(1, lambda: shelf.look(1))
            except ValueError:
                shelf.fails = False

    async def second() -> None:
        found.append(await shared.share(1, lambda: shelf.look(1)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        if cancelled:
            scope.cancel()
        else:
            shelf.fails = True
        await wait_all_tasks_blocked()
        shelf.go.set()
    assert shelf.looks == [1, 1]
    assert found[0].next_seq == 11


async def test_an_old_look_does_not_speak_for_what_came_after() -> None:
    shelf, shared = Shelf(), fanout(2)
    shelf.empty = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shared.share, 1, lambda: shelf.look(1))
        await wait_all_tasks_blocked()
        shared.put(1, 5, b"x")
        nursery.start_soon(shared.share, 1, lambda: shelf.look(1))
        await wait_all_tasks_blocked()
        shelf.go.set()
    assert shelf.looks == [1, 1]

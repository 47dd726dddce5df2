"""Batches: numbered, unchanging, none lost and none doubled, whatever gets lost on the way."""

import errno
import os
import threading
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.clock import now
from blacktree.concurrency.threads import in_thread
from blacktree.event import Lines, Notice
from blacktree.job import Outcome
from blacktree.rpc.peer import Batch
from blacktree.worker.bell import Bell
from blacktree.worker.outbox import BATCH_BYTES, Outbox
from blacktree.worker.spool import Spool, SpoolBudget

DONE = Outcome(state="succeeded")


def an_outbox(directory: Path, *, memory_bytes: int = 1 << 20, spool_bytes: int = 1 << 30) -> Outbox:
    return Outbox(Bell(), Spool(directory, SpoolBudget(spool_bytes)), attempt=1, memory_bytes=memory_bytes)


def text_of(batches: list[Batch]) -> str:
    return "".join(record.text for batch in batches for record in batch.records if isinstance(record, Lines))


class Receiver:
    """An orchestrator that stores in order, and holds every second sending against the first."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.seen: dict[int, bytes] = {}

    def store(self, batches: list[Batch], most: int) -> int:
        for batch in batches[:most]:
            body = msgspec.msgpack.encode(batch)
            assert self.seen.setdefault(batch.number, body) == body
            if batch.number == len(self.batches) + 1:
                self.batches.append(batch)
        return len(self.batches) + 1


Action = st.one_of(
    st.tuples(st.just("lines"), st.sampled_from(["a", "b"]), st.integers(1, 40_000)),
    st.tuples(st.just("notice"), st.just(""), st.just(0)),
    st.tuples(st.just("commit"), st.just(""), st.just(0)),
    # How many of the taken batches arrive, and whether the answer does.
    st.tuples(st.just("report"), st.sampled_from(["answered", "lost"]), st.integers(0, 5)),
)


@given(actions=st.lists(Action, max_size=60), memory=st.sampled_from([1, 50_000, 1 << 20]))
@settings(max_examples=60)
def test_everything_arrives_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str, int]], memory: int
) -> None:
    async def play() -> None:
        outbox = an_outbox(tmp_path_factory.getbasetemp(), memory_bytes=memory)
        receiver = Receiver()
        printed, notices = "", 0
        for kind, what, number in actions:
            if kind == "lines":
                text = f"{what * number}\n"
                printed += text
                outbox.add_lines(now(), what, "stdout", text, len(text))
                await outbox.room()
            elif kind == "notice":
                notices += 1
                outbox.add(Notice(time=now(), attempt=1, code="n", text=str(notices)))
            elif kind == "commit":
                outbox.put_commit("c" * 40)
            else:
                batches, size = await outbox.take(100_000)
                assert size <= 100_000 or len(batches) == 1
                next_batch = receiver.store(batches, number)
                if what == "answered":
                    assert outbox.acknowledge(next_batch)
        outbox.finish(DONE)
        outbox.add(Notice(time=now(), attempt=1, code="late", text="nobody hears this"))
        while not outbox.settled:
            batches, _ = await outbox.take(100_000)
            assert outbox.acknowledge(receiver.store(batches, len(batches)))
        assert text_of(receiver.batches) == printed
        heard = [record.text for batch in receiver.batches for record in batch.records if isinstance(record, Notice)]
        assert heard == [str(number) for number in range(1, notices + 1)]
        assert [batch.outcome for batch in receiver.batches] == [None] * (len(receiver.batches) - 1) + [DONE]
        assert outbox.memory_bytes == 0

    trio.run(play)


async def test_an_attempt_that_starts_and_ends_at_once_is_one_batch(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.begin()
    outbox.add_lines(now(), "s", "stdout", "hello\n", 6)
    outbox.finish(DONE)
    batches, _ = await outbox.take(1 << 20)
    assert [(batch.number, len(batch.records), batch.outcome) for batch in batches] == [(1, 1, DONE)]


async def test_lines_of_one_step_share_a_record(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    for step in ("a", "a", "b", "a"):
        outbox.add_lines(now(), step, "stdout", f"{step}\n", 2)
    [batch], _ = await outbox.take(1 << 20)
    assert [record.text for record in batch.records if isinstance(record, Lines)] == ["a\na\n", "b\n", "a\n"]


async def test_without_room_the_producer_waits_and_nothing_is_dropped(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path, memory_bytes=BATCH_BYTES, spool_bytes=3 * BATCH_BYTES)
    line = "x" * 999 + "\n"
    printed = 0

    async def produce() -> None:
        nonlocal printed
        for _ in range(2000):
            await outbox.room()
            outbox.add_lines(now(), "s", "stdout", line, len(line))
            printed += 1
        outbox.finish(DONE)

    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        with trio.fail_after(40):
            while printed <= 300:
                await trio.sleep(0.01)
        await trio.sleep(0.3)
        assert printed < 700, "it stopped when memory and spool were full"
        stuck = printed
        with trio.fail_after(40):
            while not outbox.settled:
                batches, _ = await outbox.take(100_000)
                outbox.acknowledge(receiver.store(batches, len(batches)))
                await trio.lowlevel.checkpoint()
    assert printed == 2000 > stuck
    assert text_of(receiver.batches) == line * 2000


async def test_a_full_disk_under_the_spool_is_back_pressure(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path / "missing", memory_bytes=10)
    outbox.add_lines(now(), "s", "stdout", "twelve bytes\n", 13)
    with trio.move_on_after(0.1) as scope:
        await outbox.room()
    assert scope.cancelled_caught
    batches, _ = await outbox.take(1 << 20)
    assert text_of(batches) == "twelve bytes\n"


async def test_who_waits_for_the_commit_hears_of_it(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    number = outbox.put_commit("c" * 40)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.stored, number)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        [batch], _ = await outbox.take(1 << 20)
        assert batch.commit == "c" * 40
        outbox.acknowledge(2)
    outbox.put_commit("d" * 40)
    outbox.discard()
    with pytest.raises(trio.ClosedResourceError):
        await outbox.stored(2)


async def test_asking_for_what_was_stored_before_is_told_apart(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.begin()
    await outbox.take(1)
    assert outbox.acknowledge(2)
    assert not outbox.acknowledge(1)
    assert outbox.acknowledge(99), "a number beyond the last is taken as all"
    assert not outbox.pending


def test_the_spool_gives_its_budget_back(tmp_path: Path) -> None:
    async def play() -> None:
        budget = SpoolBudget(100)
        one, two = Spool(tmp_path, budget), Spool(tmp_path, budget)
        assert await one.append([b"a" * 30, b"b" * 30]) == [0, 30]
        assert await two.append([b"c" * 50]) is None
        assert await one.read(30, 30) == b"b" * 30
        one.clear()
        assert budget.used == 0
        assert await two.append([b"c" * 50]) == [0]
        two.clear()
        assert list(tmp_path.iterdir()) == []

    trio.run(play)


class SlowDisk:
    """Writing ends when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writing, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.full = False
        write = os.pwrite

        def pwrite(number: int, data: memoryview, offset: int) -> int:
            written = write(number, data, offset)
            self.writing.set()
            assert self.go_on.wait(40)
            if self.full:
                raise OSError(errno.ENOSPC, "no space left on device")
            return written

        monkeypatch.setattr("blacktree.worker.spool.os.pwrite", pwrite)

    def stall(self) -> None:
        self.go_on.clear()
        self.writing.clear()

    async def until_writing(self) -> None:
        await in_thread(lambda: self.writing.wait(40))


def fill(outbox: Outbox, word: str) -> str:
    lines = [f"{word} {number} {'x' * 1000}\n" for number in range(600)]
    for line in lines:
        outbox.add_lines(now(), "s", "stdout", line, len(line))
    return "".join(lines)


async def test_what_was_spilled_before_is_stored_while_more_is_spilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    budget = SpoolBudget(1 << 30)
    outbox = Outbox(Bell(), Spool(tmp_path, budget), attempt=1, memory_bytes=BATCH_BYTES)
    receiver = Receiver()
    expected = fill(outbox, "first")
    await outbox.room()
    first, _ = await outbox.take(1 << 30)
    expected += fill(outbox, "second")
    disk.stall()
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.room)
            await disk.until_writing()
            # Nothing of the file as it was is needed any more: but it is being written, behind what was there.
            outbox.acknowledge(receiver.store(first, len(first)))
            disk.go_on.set()
        while outbox.pending:
            outbox.acknowledge(receiver.store((await outbox.take(1 << 20))[0], 100))
    assert text_of(receiver.batches) == expected
    assert budget.used == 0


async def test_what_is_thrown_away_while_it_is_spilled_gives_its_budget_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    budget = SpoolBudget(1 << 30)
    outbox = Outbox(Bell(), Spool(tmp_path, budget), attempt=1, memory_bytes=BATCH_BYTES)
    fill(outbox, "first")
    disk.stall()
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.room)
            await disk.until_writing()
            outbox.discard()
            disk.go_on.set()
    assert outbox.settled
    assert budget.used == 0


async def test_a_disk_that_says_no_late_does_not_hold_a_build_whose_lines_were_all_stored_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    outbox = Outbox(Bell(), Spool(tmp_path, SpoolBudget(1 << 30)), attempt=1, memory_bytes=BATCH_BYTES)
    receiver = Receiver()
    expected = fill(outbox, "first")
    disk.stall()
    disk.full = True
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.room)
            await disk.until_writing()
            while outbox.pending:
                outbox.acknowledge(receiver.store((await outbox.take(1 << 20))[0], 100))
            disk.go_on.set()
    assert text_of(receiver.batches) == expected
    outbox.discard()

"""The sink: bytes in any split become the same masked lines; cheap for many."""

from pathlib import Path

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.event import Lines, Notice, Progress, StepFinished
from blacktree.rpc.peer import Batch
from blacktree.services.core.masking import Masker
from blacktree.worker.report import PROGRESS_SECONDS, AttemptSink
from tests.parts.calls import counted_calls
from tests.worker.test_outbox import an_outbox, text_of

SECRET = b"correct horse battery"


async def _all(sink_outbox: object) -> list[Batch]:
    batches, _ = await sink_outbox.take(1 << 30)
    return batches


@given(
    pieces=st.lists(st.sampled_from([b"line\n", b"part", b"\n", SECRET, SECRET[:7], SECRET[7:], b"\xff"]), max_size=30),
    cut=st.integers(1, 9),
)
@settings(max_examples=80)
def test_the_split_does_not_matter_and_no_secret_passes(pieces: list[bytes], cut: int) -> None:
    whole = b"".join(pieces)

    async def printed(size: int) -> str:
        outbox = an_outbox(Path("/tmp"))
        sink = AttemptSink(outbox, 1)
        sink.hide(Masker([SECRET]))
        for start in range(0, len(whole), size):
            await sink.output("s", "stdout", whole[start : start + size])
        sink.flush()
        return text_of(await _all(outbox))

    once = trio.run(printed, len(whole) or 1)
    assert trio.run(printed, cut) == once
    assert SECRET.decode() not in once


async def test_a_finished_step_flushes_its_unfinished_line_and_no_other(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    sink = AttemptSink(outbox, 1)
    await sink.output("a", "stdout", b"from a")
    await sink.output("b", "stdout", b"from b")
    await sink.step_finished("a", "step a", cached=False, seconds=1.0, ok=True)
    [batch] = await _all(outbox)
    assert [type(record) for record in batch.records] == [Lines, StepFinished]
    assert text_of([batch]) == "from a\n"


async def test_a_long_line_is_split_and_marked(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path, memory_bytes=1 << 30)
    sink = AttemptSink(outbox, 1)
    await sink.output("s", "stdout", b"x" * 200_000 + b"\n")
    lines = [record for batch in await _all(outbox) for record in batch.records if isinstance(record, Lines)]
    assert "".join(record.text.rstrip("\n") for record in lines) == "x" * 200_000
    assert [record.partial for record in lines] == [True, True, True, False]


async def test_progress_is_thinned_out(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    outbox = an_outbox(tmp_path)
    sink = AttemptSink(outbox, 1)
    for current in range(100):
        await sink.progress("s", current, 100, "bytes")
        await trio.sleep(PROGRESS_SECONDS / 10)
    [batch] = await _all(outbox)
    assert all(isinstance(record, Progress) for record in batch.records)
    assert 9 <= len(batch.records) <= 11


async def test_names_and_notices_are_masked_and_bounded(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    sink = AttemptSink(outbox, 1)
    sink.hide(Masker([SECRET]))
    await sink.step_started("s" * 100, SECRET.decode())
    await sink.notice("code", f"it is {SECRET.decode()}" + "x" * 100_000)
    [batch] = await _all(outbox)
    assert SECRET.decode() not in repr(batch)
    assert len(repr(batch)) < 20_000


async def test_the_tail_prefers_the_failing_step(tmp_path: Path) -> None:
    sink = AttemptSink(an_outbox(tmp_path), 1)
    await sink.output("a", "stdout", b"".join(b"a %d\n" % number for number in range(100)))
    await sink.output("b", "stderr", b"b says\n")
    assert sink.tail.lines("b") == ["b says"]
    assert sink.tail.lines("a") == [f"a {number}" for number in range(80, 100)]
    assert sink.tail.lines("silent")[-1] == "b says"


async def test_the_tail_knows_a_failing_step_by_its_name(tmp_path: Path) -> None:
    sink = AttemptSink(an_outbox(tmp_path), 1)
    await sink.step_started("0a1b", "[a 2/2] RUN make")
    await sink.step_started("2c3d", "[b 2/2] RUN chatter")
    await sink.step_started("arm64.4e5f", "[linux/arm64] [a 2/2] RUN test")
    await sink.output("0a1b", "stderr", b"no rule\n")
    await sink.output("arm64.4e5f", "stderr", b"1 failed\n")
    await sink.output("2c3d", "stdout", b"tick\n" * 100)
    assert sink.tail.lines("[a 2/2] RUN make") == ["no rule"]
    assert sink.tail.lines("[a 2/2] RUN test") == ["1 failed"]


async def test_two_hundred_thousand_lines_cost_little(tmp_path: Path) -> None:
    """Counted in calls, which are as many on any machine: none for each line."""
    outbox = an_outbox(tmp_path, memory_bytes=1 << 30)
    sink = AttemptSink(outbox, 1)
    sink.hide(Masker([SECRET]))
    chunk = b"".join(b"this is line %d of a long build log\n" % number for number in range(1000))
    with counted_calls() as calls:
        for _ in range(200):
            await sink.output("s", "stdout", chunk)
    batches = await _all(outbox)
    assert sum(record.text.count("\n") for b in batches for record in b.records if isinstance(record, Lines)) == 200_000
    assert not any(isinstance(record, Notice) for b in batches for record in b.records)
    assert 0 < calls.count < 200 * 1000 / 2

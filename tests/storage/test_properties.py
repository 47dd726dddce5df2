"""Random histories against a plain model, with restarts and torn tails in between."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.event import Lines, Notice, Progress, Record, span, total_span
from blacktree.storage.base import Decision
from blacktree.storage.cut import Reading, plain, split
from blacktree.storage.memory import MemoryStore
from blacktree.storage.sqlite import SqliteStore
from tests.contracts.store import T0, a_job, queued

LINE = st.text(st.characters(blacklist_characters="\n", blacklist_categories=("Cs",)), max_size=30)
RECORD: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        lambda texts: Lines(T0, 1, "s", "stdout", "".join(f"{text}\n" for text in texts)),
        st.lists(LINE, min_size=1, max_size=12),
    ),
    st.builds(lambda text: Lines(T0, 1, "s", "stdout", f"{text}\n", True), LINE),
    st.builds(lambda number: Progress(T0, 1, "s", number, 100, "bytes"), st.integers(0, 100)),
    st.builds(lambda text: Notice(T0, 1, "code", text), LINE),
)
BATCH = st.lists(RECORD, max_size=5)
STEP = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 2), BATCH),
    st.tuples(
        st.just("read"), st.integers(0, 2), st.tuples(st.integers(0, 150), st.integers(1, 40), st.integers(1, 600))
    ),
    st.tuples(st.just("text"), st.integers(0, 2), st.tuples(st.integers(0, 2000), st.integers(0, 900))),
    st.tuples(st.just("restart"), st.integers(0, 2), st.binary(max_size=200)),
)


def singles(records: list[Record]) -> list[Record]:
    """Each number's own record."""
    found: list[Record] = []
    for record in records:
        if isinstance(record, Lines):
            found += [
                Lines(record.time, record.attempt, record.step, record.stream, f"{line}\n", record.partial)
                for line in record.text.split("\n")[:-1]
            ]
        else:
            found.append(record)
    return found


async def follow(steps: list[Any], directory: Path | None) -> None:
    """Do the steps with a store and with lists, and compare."""
    model: list[list[Record]] = [[queued()] for _ in range(3)]
    text = [b"" for _ in range(3)]
    made = False
    todo = list(steps)
    while todo or not made:
        store: Any = SqliteStore(directory, segment_bytes=700) if directory else MemoryStore()
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            if not made:
                for number in range(3):
                    await store.create(a_job(f"job-{number}"), [queued()], [])
                made = True
            torn = None
            while todo and torn is None:
                kind, number, what = todo.pop(0)
                job_id = f"job-{number}"
                if kind == "change":
                    commit = await store.change(job_id, lambda job, what=what: Decision(job=job, records=tuple(what)))
                    assert commit.first_seq == len(model[number]) + 1
                    model[number] += singles(what)
                    text[number] += b"".join(map(plain, what))
                    assert commit.job.next_seq == len(model[number]) + 1
                elif kind == "read":
                    start, limit, size = what
                    page = await store.read(job_id, start, limit=limit, max_bytes=size)
                    start = max(1, start)
                    given_back = singles([record for _, record in page])
                    assert given_back == model[number][start - 1 : start - 1 + len(given_back)]
                    assert len(given_back) <= limit
                    assert bool(page) == (start <= len(model[number]))
                    for seq, record in page:
                        assert seq == start
                        start += span(record)
                elif kind == "text":
                    offset, size = what
                    assert await store.read_text(job_id, offset, size) == text[number][offset : offset + size]
                    assert await store.text_size(job_id) == len(text[number])
                elif directory:
                    torn = (number, what)
            nursery.cancel_scope.cancel()
        if torn is not None and directory:
            # What a crash in the middle of a write may leave behind the committed end.
            segments = sorted((directory / "logs" / "jo" / f"job-{torn[0]}").glob("*.seg"))
            if segments:
                with segments[-1].open("ab") as file:
                    file.write(torn[1])


@settings(max_examples=40)
@given(st.lists(STEP, max_size=30))
def test_sqlite_is_a_list_of_records(steps: list[Any]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="blacktree-test-"))
    try:
        trio.run(follow, steps, directory)
    finally:
        shutil.rmtree(directory)


@settings(max_examples=60)
@given(st.lists(STEP, max_size=30))
def test_memory_is_a_list_of_records(steps: list[Any]) -> None:
    trio.run(follow, steps, None)


@settings(max_examples=200)
@given(BATCH, st.integers(-3, 80), st.integers(1, 30), st.integers(1, 300))
def test_a_reading_is_a_slice(records: list[Record], start: int, limit: int, size: int) -> None:
    reading = Reading(start, limit, size)
    seq = 1
    for record in records:
        reading.take(seq, record)
        seq += span(record)
    start = max(1, start)
    found = singles([record for _, record in reading.taken])
    assert found == singles(records)[start - 1 : start - 1 + len(found)]
    assert len(found) <= limit
    assert bool(found) == (start <= total_span(records))
    assert reading.position == start + len(found)


@settings(max_examples=200)
@given(RECORD, st.integers(1, 60))
def test_splitting_loses_nothing(record: Record, most: int) -> None:
    pieces = list(split(record, most))
    assert singles(pieces) == singles([record])
    for piece in pieces:
        assert span(piece) == 1 or len(plain(piece)) <= most

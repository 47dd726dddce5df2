"""Lines out of bytes: independent of the split, bounded, quick."""

import time
import tracemalloc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from blacktree.services.core.lines import LineSplitter
from tests.parts.calls import counted_calls

LIMIT = 16
PIECES = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"a", b"line", "é".encode(), "😀".encode(), b"\xff", b"\xf0\x9f", b"\x80", b"\0", b"x" * 15]
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)


def run(chunks: list[bytes], limit: int = LIMIT) -> list[tuple[str, bool]]:
    splitter = LineSplitter(limit)
    out = [pair for chunk in chunks for pair in splitter.feed(chunk)]
    return out + splitter.finish()


def single(pairs: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """The batches taken apart into lines."""
    return [(line, partial) for text, partial in pairs for line in text.split("\n")[:-1]]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(STREAMS, st.lists(st.integers(0, 300), max_size=20))
def test_the_split_does_not_matter(data: bytes, places: list[int]) -> None:
    assert single(run(cut(data, places))) == single(run([data]))


@given(STREAMS)
def test_it_says_what_was_written(data: bytes) -> None:
    """Against the plain way: decode all, split at newlines, put partial pieces together again."""
    ended = data.replace(b"\r\n", b"\n").decode("utf-8", "replace")
    expected = ended.split("\n")
    if expected[-1] == "":
        expected.pop()
    lines: list[str] = []
    grows = False
    for text, partial in run([data]):
        assert text.endswith("\n")
        assert not partial or text.count("\n") == 1
        for line in text.split("\n")[:-1]:
            assert len(line.encode()) <= LIMIT
            if grows:
                lines[-1] += line
            else:
                lines.append(line)
            grows = partial
    assert lines == expected
    assert not grows


def test_lines_of_a_chunk_come_as_one_text() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntwo\r\nthr") == [("one\ntwo\n", False)]
    assert splitter.pending
    assert splitter.feed(b"ee\n") == [("three\n", False)]
    assert not splitter.pending
    assert splitter.finish() == []


def test_a_line_at_the_limit_is_whole_and_one_over_is_not() -> None:
    assert run([b"x" * 16, b"\r", b"\n"]) == [("x" * 16 + "\n", False)]
    assert run([b"x" * 17 + b"\n"]) == [("x" * 16 + "\n", True), ("x\n", False)]


def test_a_character_is_not_cut_in_two() -> None:
    assert run(["é".encode() * 9 + b"y\n"], 15) == [("é" * 7 + "\n", True), ("ééy\n", False)]


def test_a_hundred_megabytes_without_a_newline_are_held_in_little_memory() -> None:
    splitter = LineSplitter()
    chunk = b"z" * (1 << 20)
    tracemalloc.start()
    try:
        total = 0
        for _ in range(100):
            total += sum(len(text) - 1 for text, _ in splitter.feed(chunk))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    total += sum(len(text) - 1 for text, _ in splitter.finish())
    assert total == 100 << 20
    assert peak < 16 << 20


def test_single_bytes_of_a_long_line_cost_no_more_than_their_number() -> None:
    def cost(number: int) -> float:
        splitter = LineSplitter()
        started = time.process_time()
        for _ in range(number):
            splitter.feed(b"q")
        return time.process_time() - started

    # Ten times as many; were each copied with all before it, it would be a hundred times, however often one looks.
    assert any(cost(200_000) < 40 * cost(20_000) for _ in range(10))


def test_ordinary_text_is_not_taken_line_by_line() -> None:
    """Counted in calls, of Python's own too: a few a chunk, which has a thousand lines. `bin/bench` has the speed."""
    chunk = (b"#12 0.345 copying a file of ordinary length to where it belongs\n" * 1024)[: 64 * 1024]
    splitter = LineSplitter()
    with counted_calls() as calls:
        for _ in range(10):
            splitter.feed(chunk)
    assert 0 < calls.count < 10 * 100

"""The output of a replica: every line once, whatever is lost on the way and whenever the worker dies."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.errors import EngineLost
from blacktree.event import Lines, Notice
from blacktree.providers.containers import LogEntry, LogPosition
from blacktree.providers.docker.frames import FrameReader, Frames, moment
from blacktree.rpc.replica import ReplicaLog, ReplicaName
from blacktree.worker import replica_logs
from blacktree.worker.replica_logs import LogBook

NAME = ReplicaName(deployment="shop", version=1, index=0)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def entry(number: int, data: bytes, stream: str = "stdout") -> LogEntry:
    return LogEntry(stream, NOON, data, LogPosition(f"{number:09}", 1))


def text(pieces: list[ReplicaLog]) -> str:
    return "".join(record.text for piece in pieces for record in piece.records if isinstance(record, Lines))


def codes(pieces: list[ReplicaLog]) -> list[str]:
    return [record.code for piece in pieces for record in piece.records if isinstance(record, Notice)]


async def test_pieces_are_kept_until_they_are_stored(tmp_path: Path) -> None:
    book = LogBook(NAME, 1, tmp_path / "book")
    book.begin("c", 1)
    book.feed([entry(1, b"one\n"), entry(2, b"two\n"), entry(3, b"err\n", "stderr")])
    first = await book.take(1 << 20)
    assert text(first) == "one\ntwo\nerr\n"
    assert [record.stream for record in first[0].records if isinstance(record, Lines)] == ["stdout", "stderr"]
    book.feed([entry(4, b"three\n")])
    assert await book.take(1 << 20) == first
    await book.stored(first[-1].number + 1)
    [second] = await book.take(1 << 20)
    assert (second.number, text([second])) == (2, "three\n")
    assert book.pending
    await book.stored(3)
    assert not book.pending


async def test_a_line_without_an_end_holds_up_the_rest_only_for_a_while(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    book = LogBook(NAME, 1, tmp_path / "book")
    book.begin("c", 1)
    book.feed([entry(1, b"prompt> ")])
    book.feed([entry(2, b"error\n", "stderr")])
    assert await book.take(1 << 20) == []
    await trio.sleep(replica_logs.UNFINISHED_SECONDS)
    assert text(await book.take(1 << 20)) == "error\nprompt> \n"


async def test_the_orchestrator_has_more_than_we_ever_made(tmp_path: Path) -> None:
    book = LogBook(NAME, 1, tmp_path / "book")
    book.begin("c", 1)
    book.feed([entry(1, b"one\n")])
    await book.take(1 << 20)
    await book.stored(8)
    [piece] = await book.take(1 << 20)
    assert (piece.number, text([piece])) == (8, "one\n")


async def test_secrets_are_masked_over_entries(tmp_path: Path) -> None:
    book = LogBook(NAME, 1, tmp_path / "book")
    book.mask([b"hunter2-hunter2"])
    book.begin("c", 1)
    book.feed([entry(1, b"it is hunter2-")])
    book.feed([entry(2, b"hunter2!\n")])
    assert text(await book.take(1 << 20)) == "it is ***!\n"
    assert list(book.last_lines) == ["it is ***!"]


async def test_what_is_dropped_is_told(tmp_path: Path) -> None:
    book = LogBook(NAME, 1, tmp_path / "book")
    book.begin("c", 1)
    book.drop([entry(1, b"a\nb\n")])
    book.missed()
    book.finish()
    pieces = await book.take(1 << 20)
    assert codes(pieces) == ["output_dropped", "output_dropped"]
    assert "2 lines (4 bytes)" in str(pieces)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["feed", "take", "stored", "die"]), st.integers(1, 5)), max_size=40),
    st.lists(st.sampled_from([b"a\n", b"b", b"cc\ndd", b"\n", b"long" * 30 + b"\n"]), min_size=200, max_size=200),
)
def test_dying_at_any_moment_nothing_is_lost_or_doubled(script: list[tuple[str, int]], chunks: list[bytes]) -> None:
    log = [entry(number, data) for number, data in enumerate(chunks)]

    async def main(directory: Path) -> None:
        book = LogBook(NAME, 1, directory)
        book.begin("c", 1)
        read, kept = 0, []
        for what, count in [*script, ("feed", len(log)), ("end", 0)]:
            if what == "feed":
                book.feed(log[read : read + count])
                read = min(len(log), read + count)
            elif what == "die":
                book = LogBook(NAME, 1, directory)
                book.begin("c", 1)
                place = book.place
                read = int(place.position.stamp) + 1 if place is not None and place.position is not None else 0
            elif what == "end":
                book.finish()
            pieces = await book.take(1 << 20) if what in ("take", "stored", "end") else []
            for piece in pieces if what in ("stored", "end") else []:
                # What was stored before is sent again as it was.
                if piece.number == len(kept) + 1:
                    kept.append(piece)
                assert kept[piece.number - 1] == piece
            if what == "stored":
                await book.stored(len(kept) + 1)
        while pieces := await book.take(1 << 20):
            kept += [piece for piece in pieces if piece.number == len(kept) + 1]
            await book.stored(len(kept) + 1)
        assert [piece.number for piece in kept] == list(range(1, len(kept) + 1))
        assert text(kept).replace("\n", "") == b"".join(chunks).replace(b"\n", b"").decode()

    with TemporaryDirectory() as directory:
        trio.run(main, Path(directory) / "book")


def frame(stream: int, content: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(content).to_bytes(4, "big") + content


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=20), st.integers(1, 40))
def test_frames_in_any_split(some: list[tuple[int, bytes]], step: int) -> None:
    whole = b"".join(frame(*each) for each in some)
    frames = Frames()
    found = [each for at in range(0, len(whole), step) for each in frames.feed(whole[at : at + step])]
    assert found == [({1: "stdout", 2: "stderr"}[stream], content) for stream, content in some]


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(EngineLost):
        Frames().feed(b"HTTP/1.1 200 OK")
    with pytest.raises(EngineLost):
        moment("yesterday")


STAMPS = ["2026-01-01T12:00:00.000000001Z", "2026-01-01T12:00:00.000000002Z", "2026-01-01T12:00:00.000000003Z"]


@given(st.lists(st.sampled_from(STAMPS), min_size=1, max_size=20).map(sorted), st.data())
def test_a_log_goes_on_from_any_position_without_doubling(stamps: list[str], data: st.DataObject) -> None:
    frames = [("stdout", f"{stamp} {number}\n".encode()) for number, stamp in enumerate(stamps)]
    whole = FrameReader(None, None).read(frames)
    assert [each.data for each in whole] == [f"{number}\n".encode() for number in range(len(stamps))]
    at = data.draw(st.integers(0, len(stamps) - 1))
    after = whole[at].position
    # The engine gives everything since that stamp, what bears it included.
    again = FrameReader(None, after)
    assert (
        again.read([each for each, stamp in zip(frames, stamps, strict=True) if stamp >= after.stamp])
        == whole[at + 1 :]
    )
    assert not again.missed
    # Its beginning was thrown away meanwhile.
    late = FrameReader(None, LogPosition("2026-01-01T11:00:00.000000000Z", 1))
    assert late.read(frames) == whole
    assert late.missed

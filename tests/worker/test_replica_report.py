"""What a worker reports of its replicas fits in a message, whatever they say."""

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from blacktree.providers.containers import LogEntry, LogPosition
from blacktree.rpc.peer import MAX_MESSAGE_BYTES, MAX_REPORT_BYTES
from blacktree.rpc.replica import MAX_REPLICAS, ReplicaReport, ReplicaState
from blacktree.rpc.replica_codec import report_to_wire
from blacktree.worker.clip import clip, clip_lines
from blacktree.worker.replica import LAST_BYTES, REASON_BYTES
from blacktree.worker.replica_logs import PIECE_BYTES, LogBook, size_of
from blacktree.worker.replica_report import bounded
from tests.parts.replicas import named

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@given(st.lists(st.text(st.characters(exclude_characters="\n"))), st.integers(0, 40))
def test_the_last_words_are_kept(lines: list[str], most: int) -> None:
    kept = clip_lines(lines, most)
    assert sum(len(line.encode("utf-8", "replace")) for line in kept) <= most
    assert kept[1:] == lines[len(lines) - len(kept) + 1 :]
    assert clip_lines(kept, most) == kept


def test_a_character_is_not_cut_in_two() -> None:
    assert [clip("aüb", size) for size in range(5)] == ["", "a", "a", "aü", "aüb"]


def a_failed(index: int, lines: list[str], reason: str = "") -> ReplicaState:
    return ReplicaState(
        name=named(index=index),
        generation=1,
        state="failed",
        since=NOON,
        reason=reason,
        last_lines=lines,
        code="c" * 64,
    )


async def test_the_most_that_can_be_said_fits_in_a_message(tmp_path: Path) -> None:
    book = LogBook(named(), 1, tmp_path / "book")
    book.begin("c", 1)
    for number in range(40):
        book.feed([LogEntry("stdout", NOON, "🌲".encode() * 8000 + b"\n", LogPosition(f"{number:09}", 1))])
    logs = await book.take(MAX_REPORT_BYTES)
    assert sum(size_of(each.records) for each in logs) <= MAX_REPORT_BYTES + 2 * PIECE_BYTES
    lines = ["🌲" * (LAST_BYTES // 4 // 20)] * 20
    states = [a_failed(index, lines, "🌲" * (REASON_BYTES // 4)) for index in range(3 * MAX_REPLICAS)]
    told = bounded(states)
    assert len(told) == 2 * MAX_REPLICAS
    assert all(each.reason and each.last_lines for each in told)
    report = ReplicaReport(worker_id="w", incarnation="i", revision=1, states=told, logs=logs)
    assert len(report_to_wire(report).SerializeToString()) < MAX_MESSAGE_BYTES


def test_words_that_fit_are_left_alone() -> None:
    states = [a_failed(index, ["x" * 300] * 20) for index in range(200)]
    assert bounded(states) == states
    loud = [*states[1:], a_failed(999, ["x" * 4000] * 400)]
    assert bounded(loud)[:-1] == states[1:]

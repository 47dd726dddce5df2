"""Looking for text in a whole log, a job's or a deployment's, a bounded stretch at a time."""

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import trio

from blacktree.api.messages import clamp
from blacktree.errors import BadRequest
from blacktree.event import Lines, Record, StepFinished, StepStarted, events_json, span

MOST_HITS = 1000
MOST_TEXT = 1000
MOST_BYTES = 1 << 20
_STRETCH_EVENTS = 10_000
_STRETCH_SECONDS = 1.0
# Of all searches one at a time looks at what it has read: that takes the loop's time, and others need some in between.
_TURN = trio.Lock()
_ERROR = re.compile(r"\b(?:error|errors|fatal|failed|failure|exception|traceback|panic)\b|no such file", re.IGNORECASE)
# A word may change its colour in the middle: what is looked for is what is seen.
_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


ReadRecords = Callable[[int, int], Awaitable[list[tuple[int, Record]]]]
"""The records of one log from a number on, at most so many events; empty past the end. Raises `NotFound`."""


class Sought(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines that contain `text` (case aside), or, with `errors`, lines that read like an error.

    `attempt`: only this one's lines (0: of all).
    `with_events`: the answer also holds the events of the hits and, that they can be named, each `step_started` passed.
    """

    text: str = ""
    errors: bool = False
    step: str = ""
    attempt: int = 0
    from_seq: int = 1
    limit: int = MOST_HITS
    with_events: bool = False


class Question(Sought, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`job.search`: lines that contain `text` (case aside), or, with `errors`, lines that read like an error.

    `step`: only this step's lines; with neither of the other two, where that step begins. With nothing: every line.
    `attempt`: only this one's lines (0: of all).
    `with_events`: the answer also holds the events of the hits and, that they can be named, each `step_started` passed.
    """

    id: str


async def search(read: ReadRecords, asked: Sought) -> dict[str, Any]:
    """`{"hits": [seq, …], "next_seq": n}`: where to go on, or null when the log's end was reached.

    With events also `"events": [...]`, a mebibyte or a little more, and `"seen_seq": n`: all before was looked at.
    Answers after about a second at the latest, with what was found until then. Raises `NotFound`, `BadRequest`.
    """
    if len(asked.text) > MOST_TEXT:
        raise BadRequest(f"text: at most {MOST_TEXT} characters", path="text")
    limit = max(1, min(asked.limit, MOST_HITS))
    seq = clamp(asked.from_seq, 1)
    found = _Found(asked.with_events)
    end = trio.current_time() + _STRETCH_SECONDS
    while True:
        records = await read(seq, _STRETCH_EVENTS)
        async with _TURN:
            for first, record in records:
                found.passed(record, first)
                for hit in matches(record, first, asked):
                    found.add(record, first, hit)
                    if len(found.hits) == limit or found.size >= MOST_BYTES:
                        return found.answer(hit + 1, seen=hit + 1)
                seq = first + span(record)
        if not records:
            return found.answer(None, seen=seq)
        if trio.current_time() > end:
            return found.answer(seq, seen=seq)


class _Found:
    """The hits so far and, if they are asked for, their events."""

    def __init__(self, with_events: bool) -> None:
        self.hits: list[int] = []
        self.size = 0
        self._events: dict[int, msgspec.Raw] | None = {} if with_events else None
        self._record: Record | None = None
        self._lines: list[str] = []

    def passed(self, record: Record, first: int) -> None:
        if self._events is not None and type(record) is StepStarted:
            self._keep(first, events_json(record, first))

    def add(self, record: Record, first: int, hit: int) -> None:
        self.hits.append(hit)
        if self._events is not None:
            self._keep(hit, events_json(self._one(record, hit - first), hit))

    def _one(self, record: Record, index: int) -> Record:
        if type(record) is not Lines:
            return record
        if self._record is not record:
            self._record, self._lines = record, record.text.split("\n")
        return msgspec.structs.replace(record, text=self._lines[index] + "\n")

    def _keep(self, seq: int, body: bytes) -> None:
        assert self._events is not None
        self._events[seq] = msgspec.Raw(body)
        self.size += len(body)

    def answer(self, next_seq: int | None, *, seen: int) -> dict[str, Any]:
        answer: dict[str, Any] = {"hits": self.hits, "next_seq": next_seq}
        if self._events is not None:
            answer |= {"events": list(self._events.values()), "seen_seq": seen}
        return answer


def matches(record: Record, first: int, asked: Sought) -> Iterator[int]:
    """The numbers of this record's events that fit; its first event has number `first`."""
    if asked.attempt and record.attempt != asked.attempt:
        return
    if asked.step and getattr(record, "step", None) != asked.step:
        return
    if type(record) is not Lines:
        if asked.step and not asked.text and not asked.errors and isinstance(record, StepStarted | StepFinished):
            yield first
        return
    wanted = asked.text.lower()
    text = _COLOURS.sub("", record.text) if "\x1b" in record.text else record.text
    if wanted:
        low = text.lower()
        # Most records hold no hit: one look at the whole text is all they cost.
        if wanted in low:
            yield from (first + index for index, line in enumerate(low.split("\n")) if wanted in line)
    elif not asked.errors and not asked.step:
        yield from range(first, first + span(record))
    elif asked.errors and _ERROR.search(text):
        yield from (first + index for index, line in enumerate(text.split("\n")) if _ERROR.search(line))

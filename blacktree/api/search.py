"""Looking for text in a job's whole log, a bounded stretch at a time."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import trio

from blacktree.errors import BadRequest
from blacktree.event import Lines, Record, StepFinished, StepStarted, span
from blacktree.orchestrator.control import Control

MOST_HITS = 1000
MOST_TEXT = 1000
_STRETCH_EVENTS = 10_000
_STRETCH_SECONDS = 1.0
_ERROR = re.compile(r"\b(?:error|errors|fatal|failed|failure|exception|traceback|panic)\b|no such file", re.IGNORECASE)


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job.search`: lines that contain `text` (case aside), or, with `errors`, lines that read like an error.

    `step`: only this step's lines; with neither of the other two, where that step begins.
    """

    id: str
    text: str = ""
    errors: bool = False
    step: str = ""
    from_seq: int = 1
    limit: int = MOST_HITS


async def search(control: Control, asked: Question) -> dict[str, Any]:
    """`{"hits": [seq, …], "next_seq": n}`: where to go on, or null when the log's end was reached.

    Answers after about a second at the latest, with what was found until then. Raises `NotFound`, `BadRequest`.
    """
    if len(asked.text) > MOST_TEXT:
        raise BadRequest(f"text: at most {MOST_TEXT} characters", path="text")
    if not (asked.text or asked.errors or asked.step):
        raise BadRequest("nothing to look for", path="text", advice="give `text`, `errors` or `step`")
    limit = max(1, min(asked.limit, MOST_HITS))
    seq = max(1, asked.from_seq)
    hits: list[int] = []
    end = trio.current_time() + _STRETCH_SECONDS
    while True:
        records = await control.records(asked.id, seq, _STRETCH_EVENTS)
        for first, record in records:
            for hit in matches(record, first, asked):
                hits.append(hit)
                if len(hits) == limit:
                    return {"hits": hits, "next_seq": hit + 1}
            seq = first + span(record)
        if not records:
            return {"hits": hits, "next_seq": None}
        if trio.current_time() > end:
            return {"hits": hits, "next_seq": seq}


def matches(record: Record, first: int, asked: Question) -> Iterator[int]:
    """The numbers of this record's events that fit; its first event has number `first`."""
    if asked.step and getattr(record, "step", None) != asked.step:
        return
    if type(record) is not Lines:
        if not asked.text and not asked.errors and isinstance(record, StepStarted | StepFinished):
            yield first
        return
    wanted = asked.text.lower()
    if wanted:
        low = record.text.lower()
        # Most records hold no hit: one look at the whole text is all they cost.
        if wanted in low:
            yield from (first + index for index, line in enumerate(low.split("\n")) if wanted in line)
    elif asked.errors and _ERROR.search(record.text):
        yield from (first + index for index, line in enumerate(record.text.split("\n")) if _ERROR.search(line))

"""Where each step's (or replica's) output lies in a log, a bounded stretch of it at a time: what folding needs."""

from typing import Any

import msgspec
import trio

from blacktree.api.search import ReadRecords
from blacktree.event import Lines, Notice, Progress, Record, StepFinished, span

MOST_STRETCHES = 5000
_RECORDS_EVENTS = 10_000
_SECONDS = 1.0


class AskOutline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job.outline`. `step`: only this step's; empty: of all."""

    id: str
    step: str = ""
    from_seq: int = 1


async def outline(read: ReadRecords, step: str, from_seq: int) -> dict[str, Any]:
    """`{"stretches": [[first seq, last seq, step, attempt], …], "next_seq": n, "done": bool}`, in order.

    A step's first event (`step_started`) is not among them: it is what stays when the rest is folded. Steps that ran
    beside each other have many. Answers after about a second at the latest; not `done`: go on at `next_seq`. Raises
    `NotFound`.
    """
    seq = max(1, from_seq)
    found: list[tuple[int, int, str, int]] = []
    end = trio.current_time() + _SECONDS
    while len(found) < MOST_STRETCHES and trio.current_time() < end:
        records = await read(seq, _RECORDS_EVENTS)
        for first, record in records:
            add(found, record, first, step)
            seq = first + span(record)
        if not records:
            return {"stretches": found, "next_seq": seq, "done": True}
    return {"stretches": found, "next_seq": seq, "done": False}


def add(found: list[tuple[int, int, str, int]], record: Record, first: int, step: str = "") -> None:
    """Put a record's events where they belong; its first one has number `first`."""
    if not isinstance(record, Lines | Notice | Progress | StepFinished) or not record.step:
        return
    if step and record.step != step:
        return
    last = first + span(record) - 1
    if found and found[-1][1] == first - 1 and found[-1][2:] == (record.step, record.attempt):
        first = found.pop()[0]
    found.append((first, last, record.step, record.attempt))

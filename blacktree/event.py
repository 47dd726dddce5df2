"""What happens to a job, as small frozen records, and how one becomes the JSON events that readers see.

A `Record` is what travels from worker to orchestrator and what the store keeps. `Lines` holds many log
lines of one step and stream at once and takes as many sequence numbers as it has lines; every other record
takes one. Numbers are given by the store, in order, when it commits.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from blacktree.clock import rfc3339

MAX_LINE_BYTES = 64 * 1024


class StateChanged(msgspec.Struct, frozen=True, tag="state", array_like=True):
    """The job moved. `previous` is empty for the first event."""

    time: datetime
    attempt: int
    previous: str
    to: str
    reason: str = ""


class StepStarted(msgspec.Struct, frozen=True, tag="step_started", array_like=True):
    """A step began. `step` is its id within the attempt, `name` what a person reads."""

    time: datetime
    attempt: int
    step: str
    name: str


class StepFinished(msgspec.Struct, frozen=True, tag="step_finished", array_like=True):
    """A step ended, or came from the cache."""

    time: datetime
    attempt: int
    step: str
    name: str
    cached: bool
    seconds: float
    ok: bool


class Lines(msgspec.Struct, frozen=True, tag="log", array_like=True):
    """Log lines of one step and stream. Every line in `text` ends with a newline; none is over 64 KiB of UTF-8.

    `partial`: the (one) line here is a piece of a longer one that goes on in the next record.
    """

    time: datetime
    attempt: int
    step: str
    stream: str
    text: str
    partial: bool = False


class Progress(msgspec.Struct, frozen=True, tag="progress", array_like=True):
    """How far something is, e.g. bytes of a layer."""

    time: datetime
    attempt: int
    step: str
    current: int
    total: int
    unit: str


class Notice(msgspec.Struct, frozen=True, tag="notice", array_like=True):
    """Something the reader should know: `output_clipped`, `worker_lost`, `tail_lost`, …"""

    time: datetime
    attempt: int
    code: str
    text: str
    step: str = ""


class CommitResolved(msgspec.Struct, frozen=True, tag="commit", array_like=True):
    """The ref was resolved: from here on every attempt builds this commit (shown as notice `commit`)."""

    time: datetime
    attempt: int
    commit: str


Record = StateChanged | StepStarted | StepFinished | Lines | Progress | Notice | CommitResolved


def span(record: Record) -> int:
    """How many sequence numbers a record takes."""
    return record.text.count("\n") if type(record) is Lines else 1


def total_span(records: Iterable[Record]) -> int:
    """How many sequence numbers these records take together."""
    return sum(map(span, records))


_encode = msgspec.json.Encoder().encode


def events_json(record: Record, first_seq: int) -> bytes:
    """The record's events as JSON objects with commas between them, numbered from `first_seq`."""
    head = f',"time":"{rfc3339(record.time)}","attempt":{record.attempt},"type":'.encode()
    if type(record) is Lines:
        tail = head + b'"log","step":' + _encode(record.step) + b',"stream":' + _encode(record.stream)
        return _lines_json(record.text, first_seq, tail + (b',"partial":true' if record.partial else b""))
    start = b'{"seq":%d%b' % (first_seq, head)
    rest: dict[str, str | int | float | bool | None]
    match record:
        case StateChanged():
            rest = {"from": record.previous or None, "to": record.to, "reason": record.reason}
            kind = b'"state",'
        case StepStarted():
            rest = {"step": record.step, "name": record.name}
            kind = b'"step_started",'
        case StepFinished():
            rest = {
                "step": record.step,
                "name": record.name,
                "cached": record.cached,
                "seconds": record.seconds,
                "ok": record.ok,
            }
            kind = b'"step_finished",'
        case Progress():
            rest = {"step": record.step, "current": record.current, "total": record.total, "unit": record.unit}
            kind = b'"progress",'
        case CommitResolved():
            rest = {"code": "commit", "text": f"building commit {record.commit}", "commit": record.commit}
            kind = b'"notice",'
        case Notice():
            rest = {"code": record.code, "text": record.text, "step": record.step or None}
            kind = b'"notice",'
    return start + kind + _encode(rest)[1:]


def _lines_json(text: str, first_seq: int, head: bytes) -> bytes:
    # All lines are encoded by one call and put into place by another: single ones would be hundreds of thousands.
    if "\\" in text:
        lines = [_encode(line)[1:-1] for line in text.split("\n")[:-1]]
    else:
        # No backslash of the text's own: each `\n` is a newline's.
        lines = _encode(text)[1:-1].split(b"\\n")[:-1]
    values: list[int | bytes] = [0] * (2 * len(lines))
    values[0::2] = range(first_seq, first_seq + len(lines))
    values[1::2] = lines
    event = b'{"seq":%d' + head.replace(b"%", b"%%") + b',"line":"%b"},'
    return (event * len(lines))[:-1] % tuple(values)


class FarmEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened to the farm itself: `worker_joined`, `broker_lost`, `started`, …"""

    seq: int
    time: datetime
    type: str
    text: str
    subject: str = ""
    data: dict[str, str | int | float | bool | None] = {}

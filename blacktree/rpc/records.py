"""Records and outcomes: protobuf ⇄ words. The hot path of a report; `Lines` carries thousands of lines at once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from blacktree.errors import Broken, TooLarge
from blacktree.event import (
    MAX_LINE_BYTES,
    CommitResolved,
    Lines,
    Notice,
    Progress,
    Record,
    StateChanged,
    StepFinished,
    StepStarted,
)
from blacktree.job import Failure, Image, JobState, Outcome
from blacktree.rpc.checks import MAX_TEXT, commit, count, few, given, refused, seconds, text, word
from blacktree.rpc.generated.v1 import job_pb2

STATES = frozenset(JobState)
ENDS = frozenset({"succeeded", "failed", "timed_out", "canceled", "returned"})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_us(value: int) -> datetime:
    if not 0 <= value <= _LAST:
        raise refused("time_us", f"{value} is not a time")
    return _EPOCH + timedelta(microseconds=value)


def _check_lines(lines: str, partial: bool) -> None:
    """Every line ends with a newline and has at most `MAX_LINE_BYTES` bytes."""
    if not lines.endswith("\n"):
        raise refused("lines.text", "the last line has no newline")
    if partial and lines.count("\n") != 1:
        raise refused("lines.partial", "goes with one line only")
    body: Any = lines
    newline: Any = "\n"
    if not lines.isascii():
        body, newline = lines.encode(), b"\n"
    # From newline to newline in the largest steps allowed: a few searches for a megabyte.
    at, end = 0, len(body)
    while end - at > MAX_LINE_BYTES:
        found = body.rfind(newline, at, at + MAX_LINE_BYTES + 1)
        if found < 0:
            raise TooLarge(f"lines.text: a line has more than {MAX_LINE_BYTES} bytes", path="lines.text")
        at = found + 1


def record_to_wire(record: Record) -> job_pb2.Record:
    wire = job_pb2.Record(time_us=to_us(record.time), attempt=record.attempt)
    match record:
        case Lines(step=step, stream=stream, text=lines, partial=partial):
            wire.lines.step = step
            wire.lines.stream = stream
            wire.lines.text = lines
            wire.lines.partial = partial
        case Progress():
            wire.progress.step = record.step
            wire.progress.current = record.current
            wire.progress.total = record.total
            wire.progress.unit = record.unit
        case StepStarted():
            wire.step_started.step = record.step
            wire.step_started.name = record.name
        case StepFinished():
            finished = wire.step_finished
            finished.step = record.step
            finished.name = record.name
            finished.cached = record.cached
            finished.seconds = record.seconds
            finished.ok = record.ok
        case Notice():
            wire.notice.code = record.code
            wire.notice.text = record.text
            wire.notice.step = record.step
        case StateChanged():
            wire.state.previous = record.previous
            wire.state.to = record.to
            wire.state.reason = record.reason
        case CommitResolved():
            wire.commit.commit = record.commit
        case _:
            raise Broken(f"no wire form for {type(record).__name__}")
    return wire


def _lines(time: datetime, attempt: int, wire: job_pb2.Record) -> Record:
    body = wire.lines
    lines, partial = body.text, body.partial
    _check_lines(lines, partial)
    return Lines(time, attempt, text(body.step, "lines.step"), given(body.stream, "lines.stream"), lines, partial)


def _progress(time: datetime, attempt: int, wire: job_pb2.Record) -> Record:
    body = wire.progress
    current, total = count(body.current, "progress.current"), count(body.total, "progress.total")
    return Progress(time, attempt, text(body.step, "progress.step"), current, total, text(body.unit, "progress.unit"))


def _step_started(time: datetime, attempt: int, wire: job_pb2.Record) -> Record:
    body = wire.step_started
    return StepStarted(time, attempt, given(body.step, "step", MAX_TEXT), text(body.name, "step.name"))


def _step_finished(time: datetime, attempt: int, wire: job_pb2.Record) -> Record:
    body = wire.step_finished
    step, name = given(body.step, "step", MAX_TEXT), text(body.name, "step.name")
    return StepFinished(time, attempt, step, name, body.cached, seconds(body.seconds, "step.seconds"), body.ok)


def _notice(time: datetime, attempt: int, wire: job_pb2.Record) -> Record:
    body = wire.notice
    code, said = given(body.code, "notice.code"), text(body.text, "notice.text")
    return Notice(time, attempt, code, said, text(body.step, "notice.step"))


def _state(time: datetime, attempt: int, wire: job_pb2.Record) -> Record:
    body = wire.state
    previous = word(body.previous, "state.previous", STATES) if body.previous else ""
    to = word(body.to, "state.to", STATES)
    return StateChanged(time, attempt, previous, to, text(body.reason, "state.reason"))


def _commit(time: datetime, attempt: int, wire: job_pb2.Record) -> Record:
    return CommitResolved(time, attempt, commit(wire.commit.commit))


_READERS: dict[str, Callable[[datetime, int, job_pb2.Record], Record]] = {
    "lines": _lines,
    "progress": _progress,
    "step_started": _step_started,
    "step_finished": _step_finished,
    "notice": _notice,
    "state": _state,
    "commit": _commit,
}


def record_from_wire(wire: job_pb2.Record) -> Record:
    """A record. Raises `BadRequest`, also for a kind that a later version has and this one does not know."""
    kind = wire.WhichOneof("kind")
    if kind is None:
        raise refused("record", "has no kind that is known here")
    return _READERS[kind](from_us(wire.time_us), count(wire.attempt, "record.attempt"), wire)


def outcome_to_wire(outcome: Outcome) -> job_pb2.Outcome:
    image, error = outcome.image, outcome.error
    return job_pb2.Outcome(
        state=outcome.state,
        proven=outcome.proven,
        image=None
        if image is None
        else job_pb2.Image(
            reference=image.reference,
            id=image.id,
            digest=image.digest,
            references=image.references,
            withheld=image.withheld,
        ),
        error=None
        if error is None
        else job_pb2.Failure(
            code=error.code,
            message=error.message,
            advice=error.advice,
            step=error.step,
            retryable=error.retryable,
            exit_code=error.exit_code,
            last_lines=error.last_lines,
        ),
    )


def outcome_from_wire(wire: job_pb2.Outcome) -> Outcome:
    return Outcome(
        state=word(wire.state, "outcome.state", ENDS),
        proven=wire.proven,
        image=_image(wire.image) if wire.HasField("image") else None,
        error=_failure(wire.error) if wire.HasField("error") else None,
    )


def _image(wire: job_pb2.Image) -> Image:
    return Image(
        reference=text(wire.reference, "image.reference"),
        id=text(wire.id, "image.id"),
        digest=text(wire.digest, "image.digest") if wire.HasField("digest") else None,
        references=[text(each, "image.references") for each in few(wire.references, "image.references")],
        withheld=[text(each, "image.withheld") for each in few(wire.withheld, "image.withheld")],
    )


def _failure(wire: job_pb2.Failure) -> Failure:
    return Failure(
        code=given(wire.code, "error.code"),
        message=text(wire.message, "error.message"),
        advice=text(wire.advice, "error.advice"),
        step=text(wire.step, "error.step") if wire.HasField("step") else None,
        retryable=wire.retryable,
        exit_code=wire.exit_code if wire.HasField("exit_code") else None,
        last_lines=[text(each, "error.last_lines") for each in few(wire.last_lines, "error.last_lines")],
    )

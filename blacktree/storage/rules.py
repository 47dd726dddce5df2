"""What every store refuses, whatever it is made of."""

import re
from collections.abc import Sequence

import msgspec

from blacktree.errors import BadRequest, Broken, Conflict
from blacktree.event import Lines, Record
from blacktree.job import Job, Stream
from blacktree.storage.base import Commit

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
# The dot keeps streams apart from every job that anybody may name.
_STREAM_ID = re.compile(r"[a-z]{2,16}\.[A-Za-z0-9_-]{1,64}\Z")


def checked(records: Sequence[Record]) -> tuple[Record, ...]:
    """The records without empty `Lines`. Raises `BadRequest` for `Lines` that break their promise."""
    kept = []
    for record in records:
        if type(record) is Lines:
            if not record.text:
                continue
            if not record.text.endswith("\n"):
                raise BadRequest("log lines must end with a newline", path="records.text", code="invalid_record")
            if record.partial and record.text.count("\n") != 1:
                raise BadRequest("a partial record holds one line", path="records.text", code="invalid_record")
        kept.append(record)
    return tuple(kept)


def check_new(job: Job) -> None:
    """Raises `BadRequest` for an id that no job may have (it names a directory)."""
    if not (_ID if job.stream is None else _STREAM_ID).match(job.id):
        raise BadRequest(f"{job.id[:80]!r} cannot be a job's id", path="id", code="invalid")
    if job.next_seq != 1:
        raise Broken(f"job {job.id} is new and starts at number {job.next_seq}")


def answer_earlier(earlier: Job, job: Job) -> Commit:
    """What `create` answers when the id or the key is on record already. Raises `Conflict` for another spec."""
    if not earlier.spec.same_as(job.spec):
        by_id = earlier.id == job.id
        what = f"id {job.id}" if by_id else f"idempotency key {job.spec.idempotency_key!r}"
        raise Conflict(
            f"the {what} is taken by a job with another spec ({earlier.id})",
            advice="submit the same spec again, or use another " + ("id" if by_id else "key"),
        )
    return Commit(job=earlier, previous=earlier.state, first_seq=earlier.next_seq, changed=False)


def begun(job: Job, first_seq: int, text_first: int) -> Job:
    """The stream, beginning here."""
    stream = msgspec.structs.replace(job.stream or Stream(), first_seq=first_seq, text_first=text_first)
    return msgspec.structs.replace(job, stream=stream)

"""A job at hand in the writer, and what a decision about it means in rows and blocks."""

import msgspec

from blacktree.errors import BadRequest
from blacktree.event import Lines, Progress, total_span
from blacktree.job import ENDED, Job
from blacktree.storage.base import Decision, Outgoing
from blacktree.storage.cursor import micros
from blacktree.storage.database import encode_job
from blacktree.storage.segment import encode_records, frame, in_blocks


class Tail:
    """Where a job's next block goes: the committed end of its newest segment (0: there is none yet)."""

    __slots__ = ("indexed", "length", "number")

    def __init__(self, number: int, length: int, indexed: int) -> None:
        self.number = number
        self.length = length
        self.indexed = indexed


class Entry:
    """A job at hand. `job` may be staged; `committed` is what readers may see."""

    __slots__ = ("body", "committed", "job", "moved", "number", "tail", "text_size")

    def __init__(self, number: int, job: Job, text_size: int) -> None:
        self.number = number
        self.job = job
        self.text_size = text_size
        self.committed: Job | None = None
        self.tail: Tail | None = None
        self.body = b""
        self.moved = False


class Frame(msgspec.Struct, frozen=True):
    """A block, encoded, with its first number, its first byte of text and how much text it holds."""

    seq: int
    text: int
    data: bytes
    length: int


class Ready(msgspec.Struct, frozen=True):
    """A decision with everything encoded: from here on only the disk can say no."""

    job: Job
    body: bytes
    outgoing: list[Outgoing]
    outbox: list[tuple[int, str, bytes]]
    frames: list[Frame]
    marks: list[tuple[int, int, bytes]]


def ready(entry: Entry, decision: Decision, next_outgoing: int) -> Ready:
    """Encode a decision about this job. Raises `BadRequest` for what cannot be stored."""
    first_seq = entry.job.next_seq
    job = decision.job
    next_seq = first_seq + total_span(decision.records)
    if job.next_seq != next_seq:
        job = msgspec.structs.replace(job, next_seq=next_seq)
    outgoing = [msgspec.structs.replace(row, id=id) for id, row in enumerate(decision.outgoing, next_outgoing)]
    try:
        body = encode_job(job)
        outbox = [(row.id, row.job_id, encode_records(row)) for row in outgoing]
        frames: list[Frame] = []
        marks: list[tuple[int, int, bytes]] = []
        if any(type(record) is Lines or type(record) is Progress for record in decision.records):
            seq, text = first_seq, entry.text_size
            for records in in_blocks(decision.records):
                data, length = frame(seq, text, records)
                frames.append(Frame(seq, text, data, length))
                seq += total_span(records)
                text += length
        else:
            marks = [
                (entry.number, seq, encode_records(record)) for seq, record in enumerate(decision.records, first_seq)
            ]
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        raise BadRequest(f"this cannot be stored: {error}", code="invalid_record") from error
    return Ready(job, body, outgoing, outbox, frames, marks)


def finished(job: Job) -> int | None:
    """The column by which retention finds ended jobs: when it ended, in microseconds."""
    return micros(job.finished_at or job.created_at) if job.state in ENDED else None

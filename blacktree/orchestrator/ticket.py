"""What may lie on an execute queue: a ticket of ours, or a job submitted straight to the queue."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from blacktree.errors import BadRequest
from blacktree.spec import MAX_SPEC_BYTES, JobSpec, spec_from
from blacktree.strict import convert

JobId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{"id", "generation"}`: counts only while the job is queued at this generation."""

    id: JobId
    generation: Annotated[int, Meta(ge=1)]


class Submission(msgspec.Struct, frozen=True):
    """`{"id", "spec"}`: the sender's id makes a redelivery harmless."""

    id: str
    spec: JobSpec


class _Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: JobId
    spec: dict[str, Any]


_tickets = msgspec.json.Decoder(Ticket)


def read_body(body: bytes) -> Ticket | Submission:
    """What a delivery says. Raises `BadRequest` for anything else, with the reason for `execute.dead`."""
    try:
        return _tickets.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    if len(body) > MAX_SPEC_BYTES:
        raise BadRequest(f"the message has {len(body)} bytes, the limit is {MAX_SPEC_BYTES}", code="too_large")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not valid JSON: {error}", code="malformed") from None
    if not isinstance(value, dict) or "spec" not in value:
        raise BadRequest("neither a ticket nor a job: expected an object with `id` and `spec`", code="invalid")
    submission = convert(value, _Submission, where="message")
    return Submission(submission.id, spec_from(submission.spec))

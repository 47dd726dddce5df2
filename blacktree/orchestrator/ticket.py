"""What may lie on an execute queue: a ticket of ours, or a job submitted straight to the queue, in either form."""

import re
from collections.abc import Callable
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
    """`{"id", "spec"}`: the sender's id makes a redelivery harmless. `token`: for the clone, never printed."""

    id: str
    spec: JobSpec
    token: str = ""

    def __repr__(self) -> str:
        return f"Submission({self.id!r})"


Translate = Callable[[dict[str, Any]], Submission]
"""From the original system's message, decoded, to a submission. Raises `BadRequest`."""


class _Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: JobId
    spec: dict[str, Any]


_tickets = msgspec.json.Decoder(Ticket)


def read_body(body: bytes, translate: Translate) -> Ticket | Submission:
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
    match value:
        case {"spec": _}:
            submission = convert(value, _Submission, where="message")
            return Submission(submission.id, spec_from(submission.spec))
        case {"deploymentId": _}:
            return translate(value)
    raise BadRequest(
        "neither a ticket nor a job: expected an object with `id` and `spec`, or one with `deploymentId`",
        code="invalid",
    )


def without_token(body: bytes) -> bytes:
    """The body to be put aside: a token in it becomes `***`, whether the rest can be read or not.

    Answers the very object it was given if there is none.
    """
    lowered = body.lower()
    at, kept, start = lowered.find(_TOKEN_KEY), [], 0
    while at >= 0:
        if value := _TOKEN_VALUE.match(body, at + len(_TOKEN_KEY)):
            kept += [body[start : value.start(2)], b"***"]
            start = value.end(2)
        at = lowered.find(_TOKEN_KEY, at + 1)
    return b"".join([*kept, body[start:]]) if kept else body


_TOKEN_KEY = b'"token"'
_TOKEN_VALUE = re.compile(rb'(\s*:\s*")((?:[^"\\]|\\.)*)', re.DOTALL)

"""A page's cursor: the place after the last job of a page, opaque to whoever carries it."""

import base64
import binascii
from datetime import UTC, datetime, timedelta

from blacktree.errors import BadRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def make(created: int, job_id: str) -> str:
    """The cursor after this job. `created` in microseconds."""
    return base64.urlsafe_b64encode(f"{created}.{job_id}".encode()).decode().rstrip("=")


def parse(cursor: str) -> tuple[int, str]:
    """`created` and id of the last job seen. Raises `BadRequest` for a cursor that is not ours."""
    try:
        text = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        created, job_id = text.split(".", 1)
        number = int(created)
    except (binascii.Error, ValueError):
        raise _foreign() from None
    if not job_id or abs(number) >= 1 << 62 or make(number, job_id) != cursor:
        raise _foreign()
    return number, job_id


def _foreign() -> BadRequest:
    advice = "give the `cursor` of the page before, whole; without one the list begins at its newest"
    return BadRequest("the cursor is not one of ours", path="cursor", code="invalid", advice=advice)

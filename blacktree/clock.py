"""Times and ids as the outside sees them."""

import secrets
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def now() -> datetime:
    """The wall clock, in UTC. For records only: leases and timeouts use the monotonic clock."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, e.g. `2026-01-31T23:59:59.123456Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_last = 0


def new_id() -> str:
    """A job id: 16 characters, from milliseconds and 35 random bits; those of one process sort by creation."""
    global _last
    _last = value = max((int(now().timestamp() * 1000) << 35) | secrets.randbits(35), _last + 1)
    text = ""
    for _ in range(16):
        text = _ALPHABET[value & 31] + text
        value >>= 5
    return text

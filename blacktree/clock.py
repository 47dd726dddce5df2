"""Times and ids as the outside sees them."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def now() -> datetime:
    """The wall clock, in UTC. For records only: leases and timeouts use the monotonic clock."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, e.g. `2026-01-31T23:59:59.123456Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Steady:
    """Moments that measure spans and can be put on record: the wall clock as it stood when this was made, and evenly on
    from there, whoever sets it. So only a restart carries a jump of the wall clock into a span."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began = now() - timedelta(seconds=monotonic())

    def now(self) -> datetime:
        """The present moment on this clock."""
        return self._began + timedelta(seconds=self._monotonic())


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

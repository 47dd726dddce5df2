"""Checks on what arrived: each gives the value back or raises `BadRequest` with the place."""

import re
from collections.abc import Sequence
from math import isfinite
from typing import TypeVar

from blacktree.errors import BadRequest, TooLarge

MAX_ITEMS = 4096
MAX_TEXT = 1 << 20  # prose; what bounds memory is the size of the message
MAX_COUNT = 1 << 62  # room to count on from it in a 64-bit field

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WORKER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
T = TypeVar("T")


def refused(where: str, why: str) -> BadRequest:
    """The error that every check raises."""
    return BadRequest(f"{where}: {why}", path=where, code="malformed")


def few(items: Sequence[T], where: str, limit: int = MAX_ITEMS) -> Sequence[T]:
    """At most `limit` entries; to be asked before anything is built from them."""
    if len(items) > limit:
        raise TooLarge(f"{where}: {len(items)} entries, the limit is {limit}", path=where)
    return items


def text(value: str, where: str, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters."""
    if len(value) > limit:
        raise TooLarge(f"{where}: {len(value)} characters, the limit is {limit}", path=where)
    return value


def given(value: str, where: str, limit: int = 256) -> str:
    """As `text`, and not empty."""
    if not value:
        raise refused(where, "is missing")
    return text(value, where, limit)


def count(value: int, where: str, least: int = 0) -> int:
    """A whole number from `least` on, and one that can be counted on from."""
    if value < least:
        raise refused(where, f"{value} is below {least}")
    if value > MAX_COUNT:
        raise refused(where, f"{value} is above {MAX_COUNT}")
    return value


def seconds(value: float, where: str) -> float:
    """A finite number of seconds, not negative."""
    if not (isfinite(value) and value >= 0):
        raise refused(where, f"{value} is not a duration")
    return value


def word(value: str, where: str, known: frozenset[str]) -> str:
    """One of the known words."""
    if value not in known:
        raise refused(where, f"`{value[:64]}` is not one of {', '.join(sorted(known))}")
    return value


def job_id(value: str) -> str:
    """A job's id, in the form of contract.md, section 2."""
    if not _JOB_ID.fullmatch(value):
        raise refused("name.job_id", "must be 1 to 64 letters, digits, `_` or `-`")
    return value


def worker_id(value: str) -> str:
    """A worker's id, in the form that the configuration takes."""
    if not _WORKER_ID.fullmatch(value):
        raise refused("worker_id", "must be 1 to 64 letters, digits, `.`, `_` or `-`")
    return value


def commit(value: str) -> str:
    """A full commit id: 40 hex digits, or 64 in a SHA-256 repository (gitformat hash function transition)."""
    if not _COMMIT.fullmatch(value):
        raise refused("commit", "must be 40 or 64 hex digits")
    return value

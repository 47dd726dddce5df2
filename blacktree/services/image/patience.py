"""Trying again within an attempt, where a registry may think better of it."""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from blacktree.errors import StepFailed
from blacktree.providers.base import Sink
from blacktree.services.reliability.retry import backoff_seconds

T = TypeVar("T")

TRIES = 4
FIRST_SECONDS = 0.5
LIMIT_SECONDS = 15.0
# The engine has a patience of its own for layers (five tries in a minute): no further try after so long.
ENOUGH_SECONDS = 90.0
# What a registry asks for beyond this is left to the job's own back-off: a slot is not for waiting.
LONGEST_WAIT_SECONDS = 30.0

# A login may have expired on the way, and each try asks for it anew: once more, no more.
_ONCE_MORE = frozenset({"registry_unauthorized"})
_AGAIN = frozenset({"manifest_missing", "publish_expired"})


def worth_another(error: StepFailed, tries: int, seconds: float = 0.0) -> bool:
    """Whether to try again after so many tries and so much time. Pure."""
    if error.code in _ONCE_MORE:
        return tries < 2
    fits = error.code.startswith("registry_") or error.code in _AGAIN
    enough = tries >= TRIES or seconds > ENOUGH_SECONDS
    return fits and error.again and not enough and error.retry_after_seconds <= LONGEST_WAIT_SECONDS


async def persist(sink: Sink, step: str, call: Callable[[int], Awaitable[T]]) -> T:
    """Call (with the number of the try, from 1) until it succeeds or another try is of no use; then its last error.

    Each wait is told to the reader. Cancelled at any checkpoint.
    """
    tries, began = 0, trio.current_time()
    while True:
        tries += 1
        try:
            return await call(tries)
        except StepFailed as error:
            if not worth_another(error, tries, trio.current_time() - began):
                raise
            wait = max(error.retry_after_seconds, backoff_seconds(tries, FIRST_SECONDS, LIMIT_SECONDS, random.random))
            text = f"{error.message}; again in {wait:.1f} s"
        await sink.notice("push_again", text, step=step)
        await trio.sleep(wait)

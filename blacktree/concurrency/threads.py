"""The one door to worker threads: `in_thread`, with one limiter per dependency."""

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_thread(function: Callable[[], T], *, limiter: trio.CapacityLimiter | None = None) -> T:
    """Run a blocking function in a thread and wait for it, cancelled or not: what it did is known when this returns."""
    return await trio.to_thread.run_sync(function, limiter=limiter)


async def in_loose_thread(function: Callable[[], T], *, limiter: trio.CapacityLimiter | None = None) -> T:
    """As `in_thread`, but a cancelled caller leaves at once; for functions that only read."""
    return await trio.to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=True)

"""`open_tasks`: a nursery for one conversation, out of which exceptions come as they were raised."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """A nursery whose failure is one exception: the first that is not a cancellation, else the cancellation.

    The callers here have one thing to say to theirs ("the engine is gone", "the step failed"); what the neighbours
    of the failing task raised while they were taken down is noise.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        real = [leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)]
        chosen = (real or leaves)[0]
    else:
        return
    raise chosen


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found

"""A step's start and end, told to the sink whatever becomes of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from blacktree.providers.base import Sink

END_SECONDS = 2.0


@asynccontextmanager
async def telling(sink: Sink, step: str, name: str) -> AsyncIterator[None]:
    """The step begins here and ends with this context: ok unless an exception (or a cancellation) leaves it."""
    await sink.step_started(step, name)
    began = trio.current_time()
    ok = False
    try:
        yield
        ok = True
    finally:
        # Also told when the step fails or is cancelled; the sink is quick or gone.
        with trio.move_on_after(END_SECONDS, shield=True):
            await sink.step_finished(step, name, cached=False, seconds=trio.current_time() - began, ok=ok)

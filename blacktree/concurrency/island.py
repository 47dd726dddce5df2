"""The asyncio island: the one import of trio_asyncio. `rpc` and `broker.rabbit` land here, nobody else.

A crossing costs 140-210 microseconds, so what crosses is a batch, never a line.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple

import structlog
import trio_asyncio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = structlog.get_logger()


@asynccontextmanager
async def open_island() -> AsyncIterator[None]:
    """Everything inside may use `on_island` and `back_to_trio`. Outermost in a daemon: its users end first."""
    async with trio_asyncio.open_loop() as loop:
        # Without a handler one bad HTTP/2 frame, or a failed task nobody awaited, ends the whole daemon.
        loop.set_exception_handler(_report)
        _hurry(loop)
        yield


def _hurry(loop: Any) -> None:
    """Run all callbacks that are ready in one turn, as asyncio itself does.

    trio-asyncio gives each a turn of Trio's loop, system calls and all, which costs more than most callbacks do.
    """
    one, queue = getattr(loop, "_main_loop_one", None), getattr(loop, "_q_recv", None)
    if one is None or queue is None or not hasattr(queue, "statistics"):
        # These are the library's own affairs: without them it goes on as it is, only slower.
        _say_slow()
        return

    async def turn(no_wait: bool = False) -> None:
        await one(no_wait)
        # What these add waits for the next turn: Trio's tasks come in between.
        for _ in range(queue.statistics().current_buffer_used):
            await one(True)

    loop._main_loop_one = turn


@functools.cache
def _say_slow() -> None:
    log.warning("asyncio callbacks take a turn each", reason="this trio-asyncio is not built as expected")


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.warning("asyncio", message=context.get("message", ""), error=repr(error) if error else None)


async def on_island(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await an asyncio function from Trio. A cancelled scope cancels its asyncio task and waits for it."""
    result: T = await trio_asyncio.aio_as_trio(function)(*args)
    return result


async def back_to_trio(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await a Trio function from asyncio. An asyncio cancellation cancels its scope."""
    result: T = await trio_asyncio.trio_as_aio(function)(*args)
    return result

"""How a build is ended: asked to stop, waited for, then cut off."""

import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from blacktree.errors import BlacktreeError
from blacktree.providers.base import Sink
from blacktree.providers.docker.scope import open_tasks

T = TypeVar("T")

ASK_SECONDS = 2.0
END_SECONDS = 2.0
LAST_WORDS_SECONDS = 1.0


class Exchange(Generic[T]):
    """One conversation with the engine that outlives its caller's cancellation just long enough to end well.

    `ended` tells afterwards whether it came to its own end (the engine's last word was heard).
    """

    def __init__(self, talk: Callable[[], Awaitable[T]], stop: Callable[[], Awaitable[None]]) -> None:
        self._talk = talk
        self._stop = stop
        self._asked = False
        self.ended = False

    async def run(self) -> T:
        """The result of `talk`. Cancelled: `stop` is called, `talk` gets `END_SECONDS` to end, then it is cut off.

        Raises what `talk` raises; once cancelled, only the cancellation.
        """
        results: list[T] = []
        talking = trio.CancelScope(shield=True)

        async def watch() -> None:
            try:
                await trio.sleep_forever()
            finally:
                if not self.ended:
                    self._asked = True
                    # Set first: if asking hangs, the end still comes.
                    talking.deadline = trio.current_time() + ASK_SECONDS + END_SECONDS
                    with trio.move_on_after(ASK_SECONDS, shield=True):
                        await self._stop()
                    talking.deadline = trio.current_time() + END_SECONDS

        async with open_tasks() as tasks:
            tasks.start_soon(watch)
            try:
                with talking:
                    results.append(await self._talk())
                    self.ended = True
            except Exception as error:
                self.ended = True
                # What ends a build that was asked to stop is that stop; only a mistake of ours is worth more.
                if not self._asked or not isinstance(error, BlacktreeError):
                    raise
            if not self._asked:
                tasks.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()
        return results[0]


class Outlet:
    """The sink as a conversation with the engine sees it: it never fails, and never holds up an end.

    What the sink raises is kept in `error` and told by `broken`, so that the engine is still heard out: a connection
    that is merely dropped proves nothing. After `close_soon` a sink that blocks is left behind.
    """

    def __init__(self, sink: Sink, broken: Callable[[], Awaitable[None]]) -> None:
        self.error: Exception | None = None
        self._sink = sink
        self._broken = broken
        self._deadline = math.inf
        self._calling: trio.CancelScope | None = None
        self._left = False

    def close_soon(self) -> None:
        """The build is ending: what is told from now on has `LAST_WORDS_SECONDS`."""
        self._deadline = min(self._deadline, trio.current_time() + LAST_WORDS_SECONDS)
        if self._calling is not None:
            self._calling.deadline = self._deadline

    async def _pass(self, call: Callable[[], Awaitable[None]]) -> None:
        if self.error is not None or self._left:
            return
        scope = self._calling = trio.CancelScope(deadline=self._deadline)
        with scope:
            try:
                await call()
            except Exception as error:
                self.error = error
                self._left = True
        self._calling = None
        self._left = self._left or scope.cancelled_caught
        if self.error is not None:
            await self._broken()

    async def step_started(self, step: str, name: str) -> None:
        """See `Sink`; so are the others."""
        await self._pass(lambda: self._sink.step_started(step, name))

    async def step_finished(self, step: str, name: str, *, cached: bool, seconds: float, ok: bool) -> None:
        await self._pass(lambda: self._sink.step_finished(step, name, cached=cached, seconds=seconds, ok=ok))

    async def output(self, step: str, stream: str, data: bytes) -> None:
        await self._pass(lambda: self._sink.output(step, stream, data))

    async def progress(self, step: str, current: int, total: int, unit: str) -> None:
        await self._pass(lambda: self._sink.progress(step, current, total, unit))

    async def notice(self, code: str, text: str, *, step: str = "") -> None:
        await self._pass(lambda: self._sink.notice(code, text, step=step))

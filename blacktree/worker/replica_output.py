"""Reads what the containers of one replica print into its book, as fast as that is taken."""

from collections.abc import Awaitable, Callable

import structlog
import trio

from blacktree.errors import EngineLost, NotFound
from blacktree.providers.containers import Containers
from blacktree.rpc.replica import ReplicaName
from blacktree.worker.replica_logs import LogBook

log = structlog.get_logger()

READ_AGAIN_SECONDS = 0.5
# For the last lines of a container that has ended, when nobody takes what came before them.
LAST_WORDS_SECONDS = 3.0


class _Following:
    """A task that reads a container's output."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.scope = trio.CancelScope()


class Output:
    """`ready` returns once it is known what must not show; `over` says whether a container is, or soon will be, at its
    end; `changed` is called when there is more to be sent."""

    def __init__(
        self,
        name: ReplicaName,
        containers: Containers,
        book: LogBook,
        ready: Callable[[], Awaitable[None]],
        over: Callable[[str], bool],
        changed: Callable[[], None],
    ) -> None:
        self._name = name
        self._containers = containers
        self._book = book
        self._ready = ready
        self._over = over
        self._changed = changed
        self._followed: dict[str, _Following] = {}

    def follow(self, followers: trio.Nursery, container: str, number: int) -> None:
        """Begin to read this container, the `number`-th of its generation."""
        followed = self._followed[container] = _Following()
        followers.start_soon(self._follow, container, number, followed)

    async def heard_out(self, container: str) -> None:
        """It has ended: wait for its last lines, but not for ever. Nothing of it is read afterwards."""
        following = self._followed.pop(container, None)
        if following is None:
            return
        with trio.move_on_after(LAST_WORDS_SECONDS + 1):
            await following.done.wait()
        if not following.done.is_set():
            following.scope.cancel()
            self._book.finish()
            self._book.notice("output_dropped", "the end of the output could not be read in time")
            await following.done.wait()

    async def _follow(self, container: str, number: int, following: _Following) -> None:
        """Its output into the book, as fast as that is taken."""
        try:
            with following.scope:
                await self._follow_on(container, number)
        finally:
            following.done.set()
            self._changed()

    async def _follow_on(self, container: str, number: int) -> None:
        await self._ready()
        self._book.begin(container, number)
        try:
            while True:
                if self._book.full:
                    with trio.move_on_after(LAST_WORDS_SECONDS if self._over(container) else float("inf")):
                        await self._book.room()
                try:
                    if await self._read(container):
                        break
                except EngineLost:
                    await trio.sleep(READ_AGAIN_SECONDS)
        except NotFound:
            pass
        except Exception as error:
            log.warning("a replica's output is not read any more", name=repr(self._name), reason=str(error))
            self._book.notice("output_dropped", f"the output cannot be read any more: {error}")
        self._book.finish()

    async def _read(self, container: str) -> bool:
        """Read until there is no more (True) or no more room."""
        place = self._book.place
        async with self._containers.logs(container, place.position if place else None) as reader:
            first = True
            while entries := await reader.next():
                if first and reader.missed:
                    self._book.missed()
                first = False
                if not self._book.full:
                    self._book.feed(entries)
                elif self._over(container):
                    self._book.drop(entries)
                else:
                    return False
                self._changed()
        return True

"""What a websocket may watch: a job's events from any number on, and the farm as it changes.

Slices arrive encoded from `Control.follow` and go out spliced, never decoded. A send waits for its reader alone.
"""

from collections.abc import Awaitable, Callable

import msgspec
import trio

from blacktree.api.farmfeed import FarmFeed
from blacktree.api.frame import Frames, text_frame
from blacktree.api.messages import clamp, job_json
from blacktree.errors import Unavailable
from blacktree.orchestrator.control import Control
from blacktree.told import told

_encode = msgspec.json.Encoder().encode

SendFrame = Callable[[bytes], Awaitable[None]]
"""Sends one whole frame; raises when the connection is over."""
Reply = Callable[[bytes], Awaitable[None]]
"""Answers the request that began the watch, with an encoded result."""


def notification(method: str, params: bytes) -> bytes:
    """The frame of a JSON-RPC notification."""
    return text_frame(b'{"jsonrpc":"2.0","method":"%b","params":' % method.encode(), params, b"}")


class Watches:
    """The watches of one connection, by number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._issued = 0
        self._scopes: dict[int, trio.CancelScope] = {}

    def __len__(self) -> int:
        return len(self._scopes)

    def open(self) -> tuple[int, trio.CancelScope]:
        """A new number and the scope to run the watch in. Raises `Unavailable` (code `too_many_watches`)."""
        if len(self._scopes) >= self._most:
            raise Unavailable(
                f"this connection watches {self._most} things already",
                code="too_many_watches",
                advice="end one with job.unwatch, or open another connection",
            )
        self._issued += 1
        scope = self._scopes[self._issued] = trio.CancelScope()
        return self._issued, scope

    def close(self, watch: int) -> None:
        """The watch has ended by itself."""
        self._scopes.pop(watch, None)

    def cancel(self, watch: int) -> bool:
        """End a watch; False if this number was never given out. One that has ended already is fine."""
        scope = self._scopes.pop(watch, None)
        if scope is not None:
            scope.cancel()
        return 0 < watch <= self._issued


async def watch_job(
    control: Control, frames: Frames, job_id: str, from_seq: int, watch: int, reply: Reply, send: SendFrame
) -> None:
    """Answer with the job, then its events from `from_seq` on, then its end. Raises `NotFound` before any answer."""
    view = await control.job(job_id)
    async with control.follow(job_id, clamp(from_seq, 1)) as follow:
        await reply(b'{"watch":%d,"job":%b}' % (watch, _encode(job_json(view))))
        async for piece in follow:
            await send(frames.of(piece, watch))
        await send(notification("job.end", b'{"watch":%d,"job":%b}' % (watch, _encode(told(follow.job)))))


async def watch_farm(feed: FarmFeed, watch: int, reply: Reply, send: SendFrame) -> None:
    """Answer with the farm as it is, then what changes, at most five times a second; until cancelled."""
    seen = await feed.view()
    await reply(seen.whole(watch))
    version = 0
    while True:
        version = await feed.newer(version)
        now = await feed.view(version)
        changes = now.since(seen, watch)
        seen = now
        if changes is not None:
            await send(notification("farm.changed", changes))

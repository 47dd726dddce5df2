"""Seeing the farm as it changes, across lost connections and restarts of the server."""

from typing import Any

import msgspec
import trio

from blacktree.client.link import Endpoint, Incoming, Link, Lost, told
from blacktree.client.outage import Outage
from blacktree.errors import Unavailable


class FarmWatch:
    """`async for change in watch`: without end, each a dict with `jobs`, `workers`, `queue` or some of them.

    The first change, and the first after each lost connection, has `"whole": True`: the newest jobs, all workers, the
    queue. Those between hold what is new or different. Raises `NotAllowed`, and `Unavailable` (code
    `server_unreachable`) when the server stays away longer than the outage's patience.
    """

    def __init__(self, endpoint: Endpoint, nursery: trio.Nursery, outage: Outage) -> None:
        self._endpoint = endpoint
        self._nursery = nursery
        self._outage = outage
        self._link: Link | None = None

    def close(self) -> None:
        """Stop watching."""
        if self._link is not None:
            self._link.drop()

    def __aiter__(self) -> "FarmWatch":
        return self

    async def __anext__(self) -> dict[str, Any]:
        while True:
            try:
                if self._link is None or not self._link.usable:
                    return await self._begin()
                change = _understood(await self._link.receive())
            except Lost as lost:
                await self._lose(str(lost))
            except Unavailable as error:
                if not error.again:
                    raise
                await self._lose(error.message)
            else:
                if change is not None:
                    return change

    async def _begin(self) -> dict[str, Any]:
        self._link = await self._endpoint.open(self._nursery)
        whole: dict[str, Any] = msgspec.json.decode(await self._link.ask("farm.watch", {}))
        self._outage.over()
        return {**whole, "whole": True}

    async def _lose(self, reason: str) -> None:
        self.close()
        self._link = None
        await self._outage.pause(reason)


def _understood(message: Incoming) -> dict[str, Any] | None:
    """A change, or None for what is none. Raises the error that ended the watch."""
    if message.method == "farm.changed":
        changed: dict[str, Any] = msgspec.json.decode(message.params)
        return {**changed, "whole": False}
    if message.method == "watch.failed":
        raise told(msgspec.json.decode(message.params)["error"])
    return None

"""A delivery in someone's hands, whichever broker it came from."""

from enum import Enum
from typing import Protocol

import trio


class Settlement(Enum):
    ACK = "ack"
    REQUEUE = "requeue"
    REJECT = "reject"


class Source(Protocol):
    """Where a delivery came from. `key` is the source's own name of it."""

    async def settle(self, key: int, how: Settlement, reason: str, body: bytes | None) -> None:
        """Raises `BrokerLost`. Called at most once for a key. `reason` and `body` as for `Delivery.reject`."""
        ...

    def forgotten(self, key: int) -> None:
        """Nobody holds it any more and it was not settled: give it back. Called on the Trio thread."""
        ...


class Handed:
    """`Delivery` over a source. Settling counts from the call on: a cancelled call is not repeated.

    A delivery that is dropped without being settled is given back when Python collects it, so a task that ends
    badly keeps no message out of the queue.
    """

    __slots__ = ("_key", "_settled", "_source", "_token", "body", "message_id", "redelivered")

    def __init__(
        self,
        source: Source,
        key: int,
        *,
        body: bytes,
        message_id: str,
        redelivered: bool,
        token: trio.lowlevel.TrioToken,
    ) -> None:
        self.body = body
        self.message_id = message_id
        self.redelivered = redelivered
        self._source = source
        self._key = key
        self._token = token
        self._settled = False

    async def ack(self) -> None:
        await self._settle(Settlement.ACK)

    async def requeue(self) -> None:
        await self._settle(Settlement.REQUEUE)

    async def reject(self, reason: str, *, body: bytes | None = None) -> None:
        await self._settle(Settlement.REJECT, reason, body)

    async def _settle(self, how: Settlement, reason: str = "", body: bytes | None = None) -> None:
        if self._settled:
            await trio.lowlevel.checkpoint()
            return
        self._settled = True
        await self._source.settle(self._key, how, reason, body)

    def __del__(self) -> None:
        if self._settled:
            return
        try:
            # The collector may run in any thread.
            self._token.run_sync_soon(self._source.forgotten, self._key)
        except trio.RunFinishedError:
            pass

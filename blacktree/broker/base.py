"""Deliveries: the promises that every broker keeps.

A message that was confirmed is delivered at least once, and again after a crash, until it is acknowledged or
rejected. Nothing in memory counts. Queue names, bindings and arguments are those of contract.md, section 6.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

import msgspec
import trio


def execute_queue(pool: str) -> str:
    """The queue of a pool: `execute.queue` for the default one, else `execute.queue.<pool>`."""
    return "execute.queue" if pool == "default" else f"execute.queue.{pool}"


DEAD_QUEUE = "execute.dead"
STATUS_QUEUE = "status.queue"
EVENT_QUEUE = "event.queue"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Something to publish. `queue` is a name from above; the broker knows exchange, key and arguments."""

    queue: str
    body: bytes
    message_id: str = ""
    priority: int = 0
    headers: dict[str, str] = {}


class Delivery(Protocol):
    """One message in our hands. Settle it once; a second time is a no-op.

    Settling raises `BrokerLost` if the session it came from is gone: the broker will deliver it again.
    """

    @property
    def body(self) -> bytes: ...

    @property
    def message_id(self) -> str: ...

    @property
    def redelivered(self) -> bool: ...

    async def ack(self) -> None:
        """It is in other hands now; never deliver it again. May be grouped with other acknowledgements."""
        ...

    async def requeue(self) -> None:
        """Give it back; it is delivered again, to whoever asks."""
        ...

    async def reject(self, reason: str, *, body: bytes | None = None) -> None:
        """It can never be used: to `execute.dead` with header `x-blacktree-reason` (at most 1,000 characters).

        `body` lies there instead of its own, where that bears a secret.
        """
        ...


class Consumer(Protocol):
    """The deliveries of one queue, as they are asked for; a few are fetched ahead to save round trips."""

    def __aiter__(self) -> "Consumer": ...

    async def __anext__(self) -> Delivery:
        """The next one, highest priority first. Raises `BrokerLost`. Cancelling it loses nothing."""
        ...

    async def park(self) -> None:
        """Give back what was fetched ahead and fetch nothing until the next one is asked for.

        A broker that cannot do without may keep one (a RabbitMQ that does not limit channels: what was fetched), for
        minutes; the next `__anext__` then gives that back first, so that what arrived meanwhile with a higher
        priority comes before it. Stays the exclusive consumer.
        """
        ...


class BrokerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` says in a sentence why it is away and what to do. `sessions`: how often it was reached so far."""

    connected: bool
    kind: str
    reason: str = ""
    since: datetime | None = None
    sessions: int = 0


class Broker(Protocol):
    """A broker. `run` must be running for anything else to work."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the session: connect, declare, and enter it again with back-off when it is lost.

        Calls `started()` at once, connected or not: a broker that is down at start is ridden out. Never ends by
        itself and never raises for a lost broker; raises `NotAllowed` only for what waiting cannot mend.
        """
        ...

    def status(self) -> BrokerStatus:
        """How it stands now."""
        ...

    async def wait_changed(self) -> None:
        """Returns at the next change of `status()`."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish persistent, mandatory, confirmed; returns when all are confirmed.

        Raises `BrokerLost`: any of them may or may not have been published (publishing again is harmless). A queue
        that does not exist (unroutable) is declared and tried once more.
        """
        ...

    def deliveries(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Consume exclusively, highest priority first. Waits for the connection if there is none.

        The iterator ends by raising `BrokerLost` when the session is gone (enter again). Another consumer on the
        same queue: raises `Conflict` (code `queue_taken`) with advice. Leaving the context gives every unsettled
        delivery that is not marked taken back; deliveries still held by others may be settled after leaving
        as long as the broker runs. Cancellation between two deliveries loses nothing.
        """
        ...

    async def depth(self, queue: str) -> int | None:
        """Messages that wait in this queue, or None when that cannot be known now."""
        ...

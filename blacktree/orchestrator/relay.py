"""The outbox on its way: what was committed to be said is published, confirmed, and then forgotten."""

from collections import deque
from collections.abc import Sequence

import msgspec
import structlog
import trio

from blacktree.broker.base import EVENT_QUEUE, STATUS_QUEUE, Broker, Message, execute_queue
from blacktree.errors import BrokerLost, NotFound, StorageFailed
from blacktree.event import Lines
from blacktree.job import Job
from blacktree.storage.base import Commit, Outgoing, Store
from blacktree.told import told

log = structlog.get_logger()

MAX_IN_MEMORY = 10_000
MAX_GROUP = 256
TAIL_BYTES = 64 * 1024
NOT_OURS = "notify"
"""Rows of the notifier, which clears them itself: targets on the web do not wait for the broker."""


class Relay:
    """Publishes in groups, in the order of commits; waits out a broker that is away.

    Rows beyond `MAX_IN_MEMORY` stay in the store and are read from there when their turn comes. `events`: whether there
    is an `event.queue`; what an earlier life meant for it is dropped where there is none any more.
    """

    def __init__(self, store: Store, broker: Broker, *, events: bool = True) -> None:
        self._store = store
        self._broker = broker
        self._events = events
        self._pending: deque[Outgoing] = deque()
        self._arrived = trio.Event()
        self._overflow = True
        self._missed = False
        self._last_id = 0
        self._silent: set[str] = set()
        self.published = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be published."""
        return not self._pending and not self._overflow

    def on_commit(self, commit: Commit) -> None:
        """Take the rows of this commit; note which jobs have printed anything."""
        job = commit.job
        if commit.previous is None and job.stream is None:
            self._silent.add(job.id)
        elif job.id in self._silent and any(type(record) is Lines for record in commit.records):
            self._silent.discard(job.id)
        outgoing = [row for row in commit.outgoing if row.kind != NOT_OURS]
        if not outgoing:
            if job.ended:
                self._silent.discard(job.id)
            return
        if self._overflow or len(self._pending) + len(outgoing) > MAX_IN_MEMORY:
            self._overflow = self._missed = True
        else:
            self._pending.extend(outgoing)
        self._arrived.set()

    def send(self, row: Outgoing) -> None:
        """Publish something that needs no row of its own, because it is made again from the record after a crash."""
        self._pending.append(row)
        self._arrived.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish until cancelled, beginning with what an earlier life left."""
        self._arrived.set()
        task_status.started()
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while not self.idle:
                if group := await self._next_group():
                    await self._publish(group)

    async def _next_group(self) -> list[Outgoing]:
        if self._pending:
            return [self._pending.popleft() for _ in range(min(MAX_GROUP, len(self._pending)))]
        if self._overflow:
            # A commit that comes while the page is read may be neither on it nor in memory: then read once more.
            self._missed = False
            try:
                rows = await self._store.outgoing(after=self._last_id, limit=MAX_GROUP)
            except StorageFailed as error:
                log.error("outbox cannot be read", reason=str(error))
                await trio.sleep(1)
                return []
            if not rows and not self._missed:
                self._overflow = False
            return rows
        return []

    async def _publish(self, group: Sequence[Outgoing]) -> None:
        self._last_id = max([self._last_id, *(row.id for row in group)])
        group = [row for row in group if row.kind != NOT_OURS]
        if not group:
            return
        messages = [message for row in group if (message := await self._message(row)) is not None]
        delay = 0.05
        while messages:
            try:
                await self._broker.publish(messages)
                break
            except BrokerLost as error:
                log.info("publishing waits for the broker", waiting=len(self._pending) + len(group), reason=str(error))
                with trio.move_on_after(delay):
                    await self._broker.wait_changed()
                delay = min(delay * 2, 5.0)
        self.published += len(messages)
        ids = [row.id for row in group if row.id]
        while ids:
            try:
                await self._store.published(ids)
                break
            except StorageFailed as error:
                # Said twice does no harm; forgetting it can wait until the store takes writes again.
                log.error("outbox rows not cleared", reason=str(error))
                await trio.sleep(1)

    async def _message(self, row: Outgoing) -> Message | None:
        match row.kind:
            case "ticket":
                return Message(
                    queue=execute_queue(row.pool), body=row.body, message_id=row.job_id, priority=row.priority
                )
            case "deployment":
                return Message(queue=STATUS_QUEUE, body=row.body, message_id=f"{row.job_id}/{row.generation}")
            case "event":
                return Message(queue=EVENT_QUEUE, body=row.body, message_id=row.job_id) if self._events else None
        while True:
            try:
                job = await self._store.get(row.job_id)
                return Message(queue=STATUS_QUEUE, body=await self._result(job), message_id=job.id)
            except NotFound:
                return None
            except StorageFailed as error:
                log.error("result cannot be read", job=row.job_id, reason=str(error))
                if not error.again:
                    # Waiting mends no damage, and tickets of other jobs stand behind it.
                    return None
                await trio.sleep(1)

    async def _result(self, job: Job) -> bytes:
        tail = b""
        if job.id in self._silent:
            self._silent.discard(job.id)
        else:
            size = await self._store.text_size(job.id)
            tail = await self._store.read_text(job.id, max(0, size - TAIL_BYTES), TAIL_BYTES)
        return result_body(job, tail_text(tail))


def tail_text(tail: bytes) -> str:
    """The end of a log that was cut anywhere: from its first whole character on."""
    start = 0
    while start < min(3, len(tail)) and tail[start] & 0xC0 == 0x80:
        start += 1
    return tail[start:].decode("utf-8", "replace")


def result_body(job: Job, tail: str) -> bytes:
    """What `status.queue` gets for an ended job (contract.md, section 6)."""
    image = job.image
    return msgspec.json.encode(
        {
            "deploymentId": job.id,
            "success": job.state == "succeeded",
            "imageUrl": image.reference if image else None,
            "logs": tail,
            "error": job.error.message if job.error else (job.cancel_reason or None),
            "job": told(job),
        }
    )

"""What is remembered: the promises that every store keeps.

A store is the system of record. It has one writer: every change is *decided* by a plain function that sees the
current job inside the writer's transaction, so the first one committed wins and nobody needs a lock. Changes that
arrive while a transaction is under way share the next one (group commit). A change is durable (fsync) when its
awaiting call returns, and its listeners have been called, in commit order, before that.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

import msgspec
import trio

from blacktree.event import FarmEvent, Record
from blacktree.histogram import Histogram
from blacktree.job import Job, JobState


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be published after the commit it belongs to. `kind`: `ticket`, `status`, `event`,
    `deployment` or `notify`.

    A ticket's body is `{"id", "generation"}`. A status row's body is empty: it is made from the stored job when
    it is sent.
    """

    kind: str
    job_id: str
    generation: int = 0
    pool: str = "default"
    priority: int = 5
    body: bytes = b""
    id: int = 0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a change does: the job's next version, its new records in order, and what must be published."""

    job: Job
    records: tuple[Record, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()


Decide = Callable[[Job], Decision | None]
"""Pure, quick, without side effects: called in the writer's thread, maybe more than once. `None` changes nothing.
A `BlacktreeError` that it raises goes to the caller and changes nothing."""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """What was committed. `records` start at sequence number `first_seq`; `outgoing` bear their row ids.

    `changed` is false when the decision was `None`: `job` is then the job as it stands.
    """

    job: Job
    previous: JobState | None
    first_seq: int
    records: tuple[Record, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()
    changed: bool = True


Listener = Callable[[Commit], None]
"""Called on the Trio thread for every commit that changed something, in order; must not block or raise."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first. `cursor` is opaque and None on the last page."""

    jobs: list[Job]
    cursor: str | None = None


class JobTable(Protocol):
    """Jobs and their events."""

    async def create(
        self, job: Job, records: Sequence[Record], outgoing: Sequence[Outgoing], *, then: Decide | None = None
    ) -> Commit:
        """Put a new job on record (`job.next_seq` is 1). Durable on return.

        The same id, or the same `spec.idempotency_key`, with an equal spec (`JobSpec.same_as`): answers with the
        earlier job and `changed=False`. With another spec: raises `Conflict` (code `conflict`). Of two at once one
        wins and the other sees it. Raises `StorageFailed`; then nothing was recorded.
        `then` decides a change of the job (the earlier one too) in the same transaction: two commits, of which the
        second is the answer. What it raises goes to the caller; the job is on record all the same.
        """
        ...

    async def change(self, job_id: str, decide: Decide) -> Commit:
        """Decide and commit one change of one job. Durable on return, or raises and changed nothing.

        `next_seq` of the decided job is the store's business (it adds the span of the records). Raises `NotFound`,
        whatever `decide` raises, or `StorageFailed`. Cancelling the caller does not cut a change in two: it is
        committed whole or not at all.
        """
        ...

    async def get(self, job_id: str) -> Job:
        """The job as committed. Raises `NotFound` for any id that is not known, of whatever form."""
        ...

    async def find(self, states: Collection[JobState], *, limit: int, cursor: str | None = None) -> Page:
        """Newest first, only these states (empty: all). Raises `BadRequest` for a cursor that is not ours."""
        ...

    async def unfinished(self) -> list[Job]:
        """Every assigned, running or canceling job, oldest first. For the start."""
        ...

    async def queued(self, *, after: str = "", limit: int = 1000, pool: str | None = None) -> list[Job]:
        """Queued jobs (of this pool alone, if given) by id, after this id; page by page, so that a long queue is never
        in memory at once."""
        ...

    async def counts(self) -> dict[JobState, int]:
        """How many jobs stand in each state; states without a job may be missing."""
        ...

    async def queued_by_pool(self) -> dict[str, int]:
        """How many queued jobs each pool has; pools without one may be missing."""
        ...

    async def oldest_queued(self) -> dict[str, datetime]:
        """Since when the queued job with the lowest id waits, by pool; pools without one are missing."""
        ...

    async def ahead(self, job: Job) -> int:
        """How many queued jobs of the same pool come before this one: higher priority, or equal and an earlier id."""
        ...

    async def pools(self) -> list[str]:
        """The pools of all jobs that have not ended."""
        ...

    def listen(self, listener: Listener, *, streams: bool = False) -> None:
        """Call this for every commit from now on; with `streams`, also for commits of streams."""
        ...

    async def forget(self, before: datetime, *, limit: int = 100) -> int:
        """Remove up to `limit` jobs that ended before this moment, oldest first, with their logs; answers how many.

        A job that still has a message in the outbox stays. Its id and idempotency key are free again afterwards.
        """
        ...


class LogTable(Protocol):
    """Reading what jobs printed. Memory use does not grow with the log."""

    async def read(
        self, job_id: str, from_seq: int, *, limit: int = 1000, max_bytes: int = 256 * 1024
    ) -> list[tuple[int, Record]]:
        """Records with their first numbers, from exactly `from_seq` on (a `Lines` record is cut to fit), without a gap.

        At most `limit` events and about `max_bytes`, but at least one event if there is one. Empty past the end.
        Raises `NotFound`. A number below 1 counts as 1.
        """
        ...

    async def text_size(self, job_id: str) -> int:
        """Bytes of the plain log: the UTF-8 of every `Lines` record in order (a partial one without its newline)."""
        ...

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes:
        """A piece of the plain log, for `Range`; empty at or past the end."""
        ...


class StreamTable(Protocol):
    """Logs that are no build's. A stream is a job on record that has `stream` set: `create` opens it (again), `change`
    appends, `get` and `LogTable` read it. No list, count or retention of jobs knows of it."""

    async def trim(self, stream_id: str, keep_bytes: int) -> bool:
        """Drop the oldest of what is stored beyond this size, in large pieces; True if anything went.

        `stream.first_seq` says where it begins now: reading from an earlier number begins there. Raises `NotFound`.
        """
        ...

    async def discard(self, stream_id: str) -> None:
        """Remove a stream and all that it holds. Unknown is fine, a job is not touched. Its messages are still sent."""
        ...


class Outbox(Protocol):
    """Messages that were committed with a change and wait to be published."""

    async def outgoing(self, *, after: int = 0, limit: int = 1000) -> list[Outgoing]:
        """Rows not yet published, by row id."""
        ...

    async def published(self, ids: Sequence[int]) -> None:
        """Forget these rows: the broker has confirmed them."""
        ...


class QueueItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the embedded broker's queue."""

    body: bytes
    priority: int = 0
    message_id: str = ""
    headers: dict[str, str] = {}
    id: int = 0
    deliveries: int = 0


class QueueTable(Protocol):
    """Durable queues for the embedded broker, by name. Rows leave only by `queue_delete` or `queue_move`."""

    async def queue_put(self, queue: str, items: Sequence[QueueItem], *, maximum: int | None = None) -> list[int]:
        """Append; with `maximum`, drop the oldest beyond it in the same transaction. Durable on return."""
        ...

    async def queue_take(self, queue: str, limit: int, held: Collection[int]) -> list[QueueItem]:
        """The next rows, highest priority first, then oldest, without those in `held`. Changes nothing."""
        ...

    async def queue_delete(self, ids: Sequence[int]) -> None:
        """Remove; unknown ids are ignored."""
        ...

    async def queue_return(self, ids: Sequence[int]) -> None:
        """Count one more delivery of these rows (they were taken and given back)."""
        ...

    async def queue_move(self, id: int, to: str, headers: dict[str, str], *, body: bytes | None = None) -> None:
        """Move a row to another queue, adding headers; with `body`, that takes the place of its own."""
        ...

    async def queue_depth(self, queue: str) -> int:
        """How many rows there are."""
        ...

    async def queue_purge(self, queue: str) -> int:
        """Remove every row; answers how many."""
        ...


class FarmLog(Protocol):
    """The farm's own events, one durable sequence from 1 without a gap."""

    async def note(
        self,
        type: str,
        text: str,
        *,
        subject: str = "",
        time: datetime | None = None,
        data: dict[str, str | int | float | bool | None] | None = None,
    ) -> FarmEvent:
        """Append one. Durable on return."""
        ...

    async def noted(self, from_seq: int, *, limit: int = 1000) -> list[FarmEvent]:
        """Events from this number on; empty past the end."""
        ...


Revise = Callable[[bytes | None], bytes | None]
"""Pure, quick, called in the writer's thread: the body as it stands (None: there is none) → the next one (None: none).

Answering the very object it was given writes nothing. A `BlacktreeError` that it raises goes to the caller."""


class DocumentTable(Protocol):
    """Small things of one kind, by name: secrets, sources, deployments, … A body is opaque, at most 1 MiB."""

    async def document(self, kind: str, name: str) -> bytes | None:
        """The body as committed, or None."""
        ...

    async def documents(self, kind: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Names and bodies in the order of the names (by their UTF-8), those beyond `after`."""
        ...

    async def revise(self, kind: str, name: str, decide: Revise) -> bytes | None:
        """Decide and commit one document; answers what stands now. Durable on return.

        Raises whatever `decide` raises, `TooLarge`, or `StorageFailed`; then nothing was changed. Cancelling the
        caller does not cut it in two.
        """
        ...


class Store(JobTable, LogTable, StreamTable, Outbox, QueueTable, FarmLog, DocumentTable, Protocol):
    """All of it, and its life."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """The writer; calls `started()` when the store can be used (migrated, recovered). Ends when cancelled, after
        what was handed to it is committed."""
        ...

    @property
    def commit_seconds(self) -> Histogram:
        """How long transactions took, waiting for the disk included; empty where there are none."""
        ...

    async def meta(self, key: str, value: str | None = None) -> str | None:
        """A small durable setting such as the farm's id. With `value`: set it if it was not set; answers the winner."""
        ...

    async def setting(self, key: str, value: str | None) -> None:
        """Put a small durable setting, or remove it (None). Durable on return."""
        ...

    async def settings(self, prefix: str) -> dict[str, str]:
        """All settings whose key starts with this."""
        ...

    async def health(self) -> str:
        """Empty when a write would succeed; else why not (disk nearly full, read-only, …)."""
        ...

"""`Outbox`: what an attempt has to report, cut into numbered batches that are kept until the orchestrator has them.

A batch never changes once it was cut: the orchestrator stores batches by number, and the second sending of one must
be the first one over again. What is not yet cut is *open*: it grows until somebody takes it.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime

import msgspec
import trio

from blacktree.event import Lines, Record
from blacktree.job import Failure, Outcome
from blacktree.rpc.peer import Batch
from blacktree.worker.bell import Bell
from blacktree.worker.spool import Spool

BATCH_BYTES = 128 * 1024
MEMORY_BYTES = 8 << 20
RECORD_BYTES = 64  # what a record costs beside its text, roughly

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode


@dataclass(slots=True)
class _Entry:
    """A cut batch: in memory, or at `offset` of the spool with `stored` bytes."""

    number: int
    size: int
    batch: Batch | None
    offset: int = 0
    stored: int = 0


class Outbox:
    """One attempt's report. Adding never loses and never waits; who produces much awaits `room` first."""

    def __init__(self, bell: Bell, spool: Spool, *, attempt: int, memory_bytes: int = MEMORY_BYTES) -> None:
        self._bell = bell
        self._spool = spool
        self._attempt = attempt
        self._memory_limit = memory_bytes
        self._entries: deque[_Entry] = deque()
        self._records: list[Record] = []
        self._lines: list[str] = []
        self._lines_head: tuple[datetime, str, str] | None = None
        self._open_bytes = 0
        self._commit: str | None = None
        self._outcome: Outcome | None = None
        self._refusal: Failure | None = None
        self._begun = False
        self._next_number = 1
        self._memory = 0
        self._stored_below = 1
        self._moved = trio.Event()
        self._spilling = trio.Lock()
        self._discarded = False

    @property
    def pending(self) -> bool:
        """Whether anything waits to be stored."""
        return bool(self._entries) or self._is_open

    @property
    def settled(self) -> bool:
        """Whether the outcome is stored (or everything was thrown away): the attempt can be forgotten."""
        return self._discarded or (self._outcome is not None and not self.pending)

    @property
    def refused(self) -> bool:
        """Whether what the build wrote was refused: only its end is left to tell."""
        return self._refusal is not None

    @property
    def memory_bytes(self) -> int:
        return self._memory + self._open_bytes

    @property
    def _closed(self) -> bool:
        return self._outcome is not None or self._discarded or self._refusal is not None

    @property
    def _is_open(self) -> bool:
        return bool(self._records or self._lines or self._commit or self._begun)

    def begin(self) -> None:
        """The build began: that alone is worth a batch, if nothing else comes to fill it."""
        self._begun = self._refusal is None
        self._bell.ring()

    def add(self, record: Record, size: int = 0) -> None:
        """Any record; `size` is its text's, bytes."""
        if not self._closed:
            self._close_lines()
            self._records.append(record)
            self._grow(size + RECORD_BYTES)

    def add_lines(self, time: datetime, step: str, stream: str, text: str, size: int) -> None:
        """Whole lines; they share a record with the ones before if step and stream are the same."""
        if self._closed:
            return
        head = self._lines_head
        if head is None or head[1] != step or head[2] != stream:
            self._close_lines()
            self._lines_head = (time, step, stream)
            size += RECORD_BYTES
        self._lines.append(text)
        self._grow(size)

    def put_commit(self, commit: str) -> int:
        """The commit goes with the next batch; answers that batch's number."""
        if self._refusal is not None:
            return self._next_number
        self._commit = commit
        number = self._next_number
        self._cut()
        self._bell.ring_urgently()
        return number

    def finish(self, outcome: Outcome) -> None:
        """The end: the last batch bears it. What is added later is ignored, so that nothing follows an outcome."""
        if self._outcome is None and not self._discarded:
            if self._refusal is not None:
                outcome = Outcome(state="failed", error=self._refusal, proven=outcome.proven)
            self._outcome = outcome
            self._cut()
        self._bell.ring_urgently()

    def refuse(self, why: Failure) -> None:
        """The first batch cannot be taken, ever: nothing goes but an outcome in its place, which fails with this."""
        outcome, self._outcome, self._refusal = self._outcome, None, why
        self._clear()
        self._next_number = self._stored_below
        if outcome is not None:
            self.finish(outcome)
        self._wake()

    def discard(self) -> None:
        """Throw everything away: nobody will accept it any more."""
        self._discarded = True
        self._clear()
        self._wake()

    def _clear(self) -> None:
        self._entries.clear()
        self._records, self._lines, self._lines_head, self._commit, self._begun = [], [], None, None, False
        self._open_bytes = self._memory = 0
        self._spool.clear()

    async def room(self) -> None:
        """Wait until more may be produced: memory is under its bound, or the spool took what is over it."""
        while self.memory_bytes > self._memory_limit and not self._discarded:
            # A disk may take long to say no: what was stored meanwhile is not waited for again.
            moved = self._moved
            if not await self._spill():
                await moved.wait()

    async def stored(self, number: int) -> None:
        """Wait until the orchestrator has this batch. Raises `trio.ClosedResourceError` if it never will."""
        while self._stored_below <= number:
            if self._discarded or self._refusal is not None:
                raise trio.ClosedResourceError("the attempt was thrown away")
            await self._moved.wait()

    async def take(self, most_bytes: int) -> tuple[list[Batch], int]:
        """The first batches that are not stored yet, up to `most_bytes` together, but at least one; and their size.

        Taking changes nothing: the same batches are taken again until `acknowledge` has heard of them.
        """
        if self._is_open:
            self._cut()
        taken: list[Batch] = []
        size = 0
        for entry in list(self._entries):
            if taken and size + entry.size > most_bytes:
                break
            taken.append(entry.batch or await self._fetch(entry))
            size += entry.size
        return taken, size

    def acknowledge(self, next_batch: int) -> bool:
        """Batches below `next_batch` are stored. False if it asks for one that was stored before and is gone."""
        if self._discarded:
            return True
        if next_batch < self._stored_below:
            return False
        next_batch = min(next_batch, self._next_number)
        while self._entries and self._entries[0].number < next_batch:
            entry = self._entries.popleft()
            if entry.batch is not None:
                self._memory -= entry.size
        self._clear_spool()
        if next_batch > self._stored_below:
            self._stored_below = next_batch
            self._wake()
        return True

    def _clear_spool(self) -> None:
        # What is being spilled will be needed: it still counts as in memory.
        if not self._spilling.locked() and not any(entry.batch is None for entry in self._entries):
            self._spool.clear()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    def _grow(self, size: int) -> None:
        self._open_bytes += size
        if self._open_bytes >= BATCH_BYTES:
            self._cut()
        self._bell.ring(size)

    def _close_lines(self) -> None:
        if self._lines_head is not None:
            time, step, stream = self._lines_head
            self._records.append(
                Lines(time=time, attempt=self._attempt, step=step, stream=stream, text="".join(self._lines))
            )
            self._lines, self._lines_head = [], None

    def _cut(self) -> None:
        self._close_lines()
        batch = Batch(number=self._next_number, records=self._records, commit=self._commit, outcome=self._outcome)
        self._entries.append(_Entry(self._next_number, self._open_bytes + RECORD_BYTES, batch))
        self._memory += self._open_bytes + RECORD_BYTES
        self._next_number += 1
        self._records, self._commit, self._open_bytes, self._begun = [], None, 0, False

    async def _fetch(self, entry: _Entry) -> Batch:
        return _decode(await self._spool.read(entry.offset, entry.stored))

    async def _spill(self) -> bool:
        """Move the newest half of what is in memory to the spool; False if it has no room."""
        async with self._spilling:
            if self.memory_bytes <= self._memory_limit:
                return True
            if self._is_open:
                self._cut()
            moved: list[_Entry] = []
            size = 0
            for entry in reversed(self._entries):
                if moved and size >= self._memory_limit // 2:
                    break
                if entry.batch is not None:
                    moved.append(entry)
                    size += entry.size
            moved.reverse()
            pieces = [_encode(entry.batch) for entry in moved]
            offsets = await self._spool.append(pieces)
            if offsets is None:
                return False
            if self._discarded:
                self._spool.clear()
                return True
            # An entry that was stored meanwhile has left the queue and taken its memory with it.
            waiting = {entry.number for entry in self._entries}
            for entry, offset, piece in zip(moved, offsets, pieces, strict=True):
                if entry.number in waiting:
                    entry.batch, entry.offset, entry.stored = None, offset, len(piece)
                    self._memory -= entry.size
            return True

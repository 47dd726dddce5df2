"""What happened, to whoever reads along: each commit is already stored when it comes here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from blacktree.concurrency.fanout import Fanout
from blacktree.concurrency.threads import in_loose_thread
from blacktree.event import Record, events_json, span, total_span
from blacktree.job import ENDED, Job, JobState
from blacktree.orchestrator.control import Slice
from blacktree.storage.base import Commit, Store

SLICE_BYTES = 256 * 1024
SLICE_EVENTS = 4000


class Journal:
    """Readers per job, and a version that rises with every change a viewer could show."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fanouts: dict[str, Fanout[Slice]] = {}
        self._ends: dict[str, trio.Event] = {}
        self._changed = trio.Event()
        self.version = 1
        self.commits = 0
        self.ended: dict[str, int] = dict.fromkeys(sorted(ENDED), 0)
        self.counts: dict[JobState, int] = {}
        self._readers: set[Reader] = set()

    async def count(self) -> None:
        """Count what is on record; from then on the counts follow the commits, until jobs are forgotten."""
        self.counts = await self._store.counts()
        self.touch()

    def on_commit(self, commit: Commit) -> None:
        """Hand the records to the readers of this job, if it has any; wake who waits for its end."""
        job = commit.job
        self.commits += 1
        if (fanout := self._fanouts.get(job.id)) is not None and commit.records:
            fanout.put(commit.first_seq, commit.first_seq + total_span(commit.records), encode(commit))
        if job.stream is not None:
            return
        if commit.previous is not job.state:
            self.touch()
            if commit.previous is not None:
                self.counts[commit.previous] = self.counts.get(commit.previous, 1) - 1
            self.counts[job.state] = self.counts.get(job.state, 0) + 1
            if job.ended:
                self.ended[job.state] += 1
                if (ended := self._ends.pop(job.id, None)) is not None:
                    ended.set()
                if fanout is not None:
                    fanout.end()

    def touch(self) -> None:
        """Something that a viewer shows has changed."""
        self.version += 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_changed(self, since: int) -> int:
        """Until the version is above `since`; answers it."""
        while self.version <= since:
            await self._changed.wait()
        return self.version

    async def wait_ended(self, job_id: str) -> Job:
        """Until the job has ended; answers it. Raises `NotFound`."""
        # The event first, then the look: an end between the two would be missed the other way round.
        ended = self._ends.setdefault(job_id, trio.Event())
        job = await self._store.get(job_id)
        if job.ended:
            if self._ends.get(job_id) is ended:
                del self._ends[job_id]
            ended.set()
            return job
        await ended.wait()
        return await self._store.get(job_id)

    @asynccontextmanager
    async def follow(self, job_id: str, from_seq: int) -> AsyncIterator["Reader"]:
        """Read along from this number. Raises `NotFound`."""
        fanout = self._fanouts.get(job_id)
        if fanout is None:
            fanout = self._fanouts[job_id] = Fanout()
        fanout.readers += 1
        try:
            job = await self._store.get(job_id)
            if job.ended:
                fanout.ended = True
            reader = Reader(self._store, fanout, job, max(1, from_seq))
            self._readers.add(reader)
            try:
                yield reader
            finally:
                self._readers.discard(reader)
        finally:
            fanout.readers -= 1
            if fanout.readers == 0 and self._fanouts.get(job_id) is fanout:
                del self._fanouts[job_id]

    @property
    def readers(self) -> int:
        """How many are reading along now."""
        return sum(fanout.readers for fanout in self._fanouts.values())

    @property
    def lags(self) -> list[int]:
        """How many events each reader is behind what came while it read along."""
        return [reader.lag for reader in self._readers]


class Reader:
    """One reader's place in one job's events."""

    def __init__(self, store: Store, fanout: Fanout[Slice], job: Job, seq: int) -> None:
        self._store = store
        self._fanout = fanout
        self._seq = seq
        self._count = 0
        self.job = job

    @property
    def lag(self) -> int:
        """How many events it is behind the newest."""
        return max(0, self._fanout.next_seq - self._seq)

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> Slice:
        waited = False
        while True:
            changed_before = self._fanout.next_seq
            taken = self._fanout.take(self._seq, max_bytes=SLICE_BYTES)
            if taken is not None:
                first, (self._seq, body) = self._seq, taken
                if not waited:
                    await trio.lowlevel.checkpoint()
                return Slice(body=body, first_seq=first, next_seq=self._seq, count=self._seq - first)
            found = None
            # At the very end there is nothing to look up; in the beginning the window does not know where that is.
            if self._seq != changed_before or changed_before == 0:
                found = await self._fanout.share(self._seq, self._stored)
            if found is not None and found.count:
                self._seq = found.next_seq
                return found
            if self._fanout.ended:
                self.job = await self._store.get(self.job.id)
                if self._seq >= self.job.next_seq:
                    raise StopAsyncIteration
                continue
            if self._fanout.next_seq == changed_before:
                await self._fanout.wait()
                waited = True

    async def _stored(self) -> Slice:
        return await stored(self._store, self.job.id, self._seq, SLICE_EVENTS)


async def stored(store: Store, job_id: str, from_seq: int, limit: int) -> Slice:
    """Events of a job from the store, encoded; count 0 past the end. Raises `NotFound`."""
    from_seq = max(1, from_seq)
    records = await store.read(job_id, from_seq, limit=limit, max_bytes=SLICE_BYTES)
    if not records:
        return Slice(body=b"", first_seq=from_seq, next_seq=from_seq, count=0)
    # Up to thousands of lines: not on the loop's time.
    body = await in_loose_thread(lambda: _join(records)) if len(records) > 50 else _join(records)
    # The beginning of a stream may have been dropped.
    first_seq, next_seq = records[0][0], records[-1][0] + total_span([records[-1][1]])
    return Slice(body=body, first_seq=first_seq, next_seq=next_seq, count=next_seq - first_seq)


def encode(commit: Commit) -> bytes:
    """The commit's events, encoded once for every reader."""
    seq = commit.first_seq
    parts: list[bytes] = []
    for record in commit.records:
        parts.append(events_json(record, seq))
        seq += span(record)
    return b",".join(parts)


def _join(records: list[tuple[int, Record]]) -> bytes:
    return b",".join(events_json(record, seq) for seq, record in records)

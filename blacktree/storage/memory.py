"""The store's promises kept in dicts: for tests and for a farm that may forget everything when it ends."""

import bisect
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from blacktree.errors import Broken, NotFound
from blacktree.event import Record, span
from blacktree.histogram import Histogram
from blacktree.job import ACTIVE, Job, JobState
from blacktree.storage import cursor as cursors
from blacktree.storage.base import Commit, Decide, Decision, Listener, Outgoing, Page
from blacktree.storage.cut import Reading, plain
from blacktree.storage.memory_queues import MemoryQueues
from blacktree.storage.rules import answer_earlier, begun, check_new, checked


class _Log:
    """One job's records with the first number and the first byte of each."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.seqs: list[int] = []
        self.offsets: list[int] = []
        self.size = 0

    def append(self, first_seq: int, records: Sequence[Record]) -> int:
        for record in records:
            self.records.append(record)
            self.seqs.append(first_seq)
            self.offsets.append(self.size)
            self.size += len(plain(record))
            first_seq += span(record)
        return first_seq

    def trim(self, keep_bytes: int) -> tuple[int, int] | None:
        """Drop records until so much text is left; answers the first number and byte, or None if nothing went."""
        count = max(0, min(bisect.bisect_right(self.offsets, self.size - keep_bytes), len(self.records)) - 1)
        if not count:
            return None
        del self.records[:count], self.seqs[:count], self.offsets[:count]
        return self.seqs[0], self.offsets[0]


class MemoryStore(MemoryQueues):
    """`Store` in memory. Durable is whatever this process is."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, Job] = {}
        self._keys: dict[str, str] = {}
        self._logs: dict[str, _Log] = {}
        self._outbox: dict[int, Outgoing] = {}
        self._next_outgoing = 1
        self._listeners: list[tuple[Listener, bool]] = []
        self.commit_seconds = Histogram()

    # Jobs

    async def create(
        self, job: Job, records: Sequence[Record], outgoing: Sequence[Outgoing], *, then: Decide | None = None
    ) -> Commit:
        """As `JobTable.create`."""
        await self._turn()
        commit = self._create(job, records, outgoing)
        return commit if then is None else self._change(commit.job.id, then)

    def _create(self, job: Job, records: Sequence[Record], outgoing: Sequence[Outgoing]) -> Commit:
        key = job.spec.idempotency_key
        earlier = self._jobs.get(job.id)
        if earlier is None and key is not None and key in self._keys:
            earlier = self._jobs[self._keys[key]]
        if earlier is not None:
            return answer_earlier(earlier, job)
        check_new(job)
        decision = Decision(job=job, records=checked(records), outgoing=tuple(outgoing))
        if key is not None:
            self._keys[key] = job.id
        self._logs[job.id] = _Log()
        return self._commit(None, decision)

    async def change(self, job_id: str, decide: Decide) -> Commit:
        """As `JobTable.change`."""
        await self._turn()
        return self._change(job_id, decide)

    def _change(self, job_id: str, decide: Decide) -> Commit:
        job = self._job(job_id)
        decision = decide(job)
        if decision is None:
            return Commit(job=job, previous=job.state, first_seq=job.next_seq, changed=False)
        if decision.job.id != job_id:
            raise Broken(f"a change of job {job_id} decided job {decision.job.id}")
        return self._commit(job, msgspec.structs.replace(decision, records=checked(decision.records)))

    def _commit(self, before: Job | None, decision: Decision) -> Commit:
        first_seq = before.next_seq if before is not None else 1
        next_seq = self._logs[decision.job.id].append(first_seq, decision.records)
        job = msgspec.structs.replace(decision.job, next_seq=next_seq)
        self._jobs[job.id] = job
        rows = []
        for row in decision.outgoing:
            rows.append(msgspec.structs.replace(row, id=self._next_outgoing))
            self._outbox[self._next_outgoing] = rows[-1]
            self._next_outgoing += 1
        commit = Commit(
            job=job,
            previous=before.state if before is not None else None,
            first_seq=first_seq,
            records=decision.records,
            outgoing=tuple(rows),
        )
        for listener, also_streams in self._listeners:
            if also_streams or job.stream is None:
                listener(commit)
        return commit

    def _real(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.stream is None]

    def _job(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job {job_id!r}")
        return job

    async def get(self, job_id: str) -> Job:
        """As `JobTable.get`."""
        await self._turn()
        return self._job(job_id)

    async def find(self, states: Collection[JobState], *, limit: int, cursor: str | None = None) -> Page:
        """As `JobTable.find`."""
        await self._turn()
        last = cursors.parse(cursor) if cursor is not None else None
        places = {job.id: (cursors.micros(job.created_at), job.id) for job in self._real()}
        found = [
            job
            for job in self._real()
            if (not states or job.state in states) and (last is None or places[job.id] < last)
        ]
        found.sort(key=lambda job: places[job.id], reverse=True)
        jobs = found[: max(1, limit)]
        return Page(jobs=jobs, cursor=cursors.make(*places[jobs[-1].id]) if len(found) > len(jobs) else None)

    async def unfinished(self) -> list[Job]:
        """As `JobTable.unfinished`."""
        await self._turn()
        return sorted((job for job in self._real() if job.state in ACTIVE), key=lambda job: (job.created_at, job.id))

    async def queued(self, *, after: str = "", limit: int = 1000, pool: str | None = None) -> list[Job]:
        """As `JobTable.queued`."""
        await self._turn()
        waiting = sorted(
            id
            for id, job in self._jobs.items()
            if job.state == JobState.QUEUED and id > after and pool in (None, job.spec.pool)
        )
        return [self._jobs[id] for id in waiting[: max(1, limit)]]

    async def queued_by_pool(self) -> dict[str, int]:
        """As `JobTable.queued_by_pool`."""
        await self._turn()
        return dict(Counter(job.spec.pool for job in self._jobs.values() if job.state == JobState.QUEUED))

    async def oldest_queued(self) -> dict[str, datetime]:
        """As `JobTable.oldest_queued`."""
        await self._turn()
        waiting = sorted((job for job in self._jobs.values() if job.state == JobState.QUEUED), key=lambda job: job.id)
        return {job.spec.pool: job.queued_at for job in reversed(waiting)}

    async def ahead(self, job: Job) -> int:
        """As `JobTable.ahead`."""
        await self._turn()
        place = (-job.spec.priority, job.id)
        return sum(
            1
            for other in self._jobs.values()
            if other.state == JobState.QUEUED
            and other.spec.pool == job.spec.pool
            and (-other.spec.priority, other.id) < place
        )

    async def counts(self) -> dict[JobState, int]:
        """As `JobTable.counts`."""
        await self._turn()
        return dict(Counter(job.state for job in self._real()))

    async def pools(self) -> list[str]:
        """As `JobTable.pools`."""
        await self._turn()
        return sorted({job.spec.pool for job in self._real() if not job.ended})

    def listen(self, listener: Listener, *, streams: bool = False) -> None:
        """As `JobTable.listen`."""
        self._listeners.append((listener, streams))

    async def trim(self, stream_id: str, keep_bytes: int) -> bool:
        """As `StreamTable.trim`."""
        await self._turn()
        job = self._job(stream_id)
        if job.stream is None:
            raise NotFound(f"no stream {stream_id!r}")
        begins = self._logs[stream_id].trim(keep_bytes)
        if begins is None:
            return False
        self._jobs[stream_id] = begun(job, *begins)
        return True

    async def discard(self, stream_id: str) -> None:
        """As `StreamTable.discard`."""
        await self._turn()
        job = self._jobs.get(stream_id)
        if job is not None and job.stream is not None:
            del self._jobs[stream_id], self._logs[stream_id]

    async def forget(self, before: datetime, *, limit: int = 100) -> int:
        """As `JobTable.forget`."""
        await self._turn()
        old = [job for job in self._jobs.values() if job.ended and (job.finished_at or job.created_at) < before]
        waiting = {row.job_id for row in self._outbox.values()}
        old = [job for job in old if job.id not in waiting]
        old.sort(key=lambda job: (job.finished_at or job.created_at, job.id))
        for job in old[:limit]:
            del self._jobs[job.id], self._logs[job.id]
            if job.spec.idempotency_key is not None:
                self._keys.pop(job.spec.idempotency_key, None)
        return len(old[:limit])

    # Logs

    async def read(
        self, job_id: str, from_seq: int, *, limit: int = 1000, max_bytes: int = 256 * 1024
    ) -> list[tuple[int, Record]]:
        """As `LogTable.read`."""
        await self._turn()
        self._job(job_id)
        kept = self._logs[job_id]
        reading = Reading(from_seq, limit, max_bytes)
        reading.position = max(reading.position, *kept.seqs[:1], 1)
        index = max(0, bisect.bisect_right(kept.seqs, reading.position) - 1)
        while index < len(kept.seqs) and not reading.full:
            reading.take(kept.seqs[index], kept.records[index])
            index += 1
        return reading.taken

    async def text_size(self, job_id: str) -> int:
        """As `LogTable.text_size`."""
        await self._turn()
        self._job(job_id)
        return self._logs[job_id].size

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes:
        """As `LogTable.read_text`."""
        await self._turn()
        self._job(job_id)
        kept = self._logs[job_id]
        offset = max(0, offset, *kept.offsets[:1])
        index = max(0, bisect.bisect_right(kept.offsets, offset) - 1)
        if index >= len(kept.offsets):
            return b""
        skip = offset - kept.offsets[index]
        pieces: list[bytes] = []
        size = 0
        while index < len(kept.offsets) and size < skip + max_bytes:
            pieces.append(plain(kept.records[index]))
            size += len(pieces[-1])
            index += 1
        return b"".join(pieces)[skip : skip + max(0, max_bytes)]

    # Outbox

    async def outgoing(self, *, after: int = 0, limit: int = 1000) -> list[Outgoing]:
        """As `Outbox.outgoing`."""
        await self._turn()
        return [row for id, row in self._outbox.items() if id > after][: max(1, limit)]

    async def published(self, ids: Sequence[int]) -> None:
        """As `Outbox.published`."""
        await self._turn()
        for id in ids:
            self._outbox.pop(id, None)

"""The one writer: a group of changes becomes one transaction, segments first.

Order of a group: every item is decided in turn and staged; what went to segments is written and synced; the rows
follow; COMMIT. A crash before COMMIT leaves bytes beyond the committed length of a segment, which the next writer cuts
off. A group that fails on the disk's account is tried again item by item, so that one bad file harms one job.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from blacktree.errors import Broken, NotFound
from blacktree.event import Record
from blacktree.job import ENDED, Job
from blacktree.storage.base import Commit, Decide, Decision, Outgoing
from blacktree.storage.cursor import micros
from blacktree.storage.database import connect, decode_job
from blacktree.storage.directory import Directory
from blacktree.storage.logs import Logs
from blacktree.storage.queues import Queues
from blacktree.storage.rules import answer_earlier, check_new, checked
from blacktree.storage.staging import Entry, Frame, Ready, Tail, finished, ready
from blacktree.storage.trouble import Space, storage_failed

INDEX_BYTES = 64 * 1024
STREAM_SEGMENT_BYTES = 1024 * 1024
_MOST_CACHED = 1024


class Create(msgspec.Struct, frozen=True):
    """An item of a group: `JobTable.create`."""

    job: Job
    records: Sequence[Record]
    outgoing: Sequence[Outgoing]
    then: Decide | None = None


class Change(msgspec.Struct, frozen=True):
    """An item of a group: `JobTable.change`."""

    job_id: str
    decide: Decide


class Call(msgspec.Struct, frozen=True):
    """An item of a group: anything else that is written."""

    do: Callable[["Writer"], Any]


Item = Create | Change | Call


class Pair(msgspec.Struct, frozen=True):
    """The result of a creation with a change in the same transaction."""

    first: Commit
    second: Commit | Exception


def unfolded(results: Iterable[Any]) -> Iterator[Any]:
    """The results of a group with those of each pair by themselves."""
    for result in results:
        if type(result) is Pair:
            yield result.first
            yield result.second
        else:
            yield result


class Writer:
    """Belongs to one thread at a time; `job` alone may be called from another."""

    def __init__(self, directory: Directory, space: Space, *, segment_bytes: int) -> None:
        self.directory = directory
        self.logs = Logs(directory)
        self.connection = connect(directory)
        self.damaged: list[tuple[str, str]] = []
        self._space = space
        self._segment_bytes = segment_bytes
        self._cache: dict[str, Entry] = {}
        self._next_outgoing = 1
        self._load()

    def _load(self) -> None:
        one = self.connection.execute
        self.queues = Queues(self.connection)
        self._next_job = one("SELECT coalesce(max(number), 0) + 1 FROM job").fetchone()[0]
        # Also after trouble with the disk: who reads the outbox from where it was must not be overtaken from behind.
        newest = one("SELECT coalesce(max(id), 0) FROM outbox").fetchone()[0]
        self._next_outgoing = max(self._next_outgoing, newest + 1)
        self._clear()

    def _clear(self) -> None:
        self._touched: dict[str, Entry] = {}
        self._marks: list[tuple[int, int, bytes]] = []
        self._blocks: list[tuple[int, int, int, int, int]] = []
        self._outbox: list[tuple[int, str, bytes]] = []
        self._segments: dict[tuple[int, int], int] = {}
        self._appends: dict[tuple[str, int], tuple[int, list[bytes]]] = {}

    def close(self) -> None:
        """The end; nothing is under way."""
        self.logs.close()
        self.connection.close()

    def job(self, job_id: str) -> Job | None:
        """The committed job if it is at hand. For any thread."""
        entry = self._cache.get(job_id)
        return entry.committed if entry is not None else None

    def drop(self, job_id: str) -> None:
        """Forget what is at hand of a job: its rows are being changed by other means."""
        self._cache.pop(job_id, None)

    def commit(self, items: Sequence[Item]) -> list[Any]:
        """One result an item: a value, or the exception for its caller. Never raises for the disk's sake."""
        try:
            return self._commit(items)
        except (OSError, sqlite3.Error) as error:
            self._undo()
            if len(items) == 1:
                return [storage_failed(error, self.directory.path)]
        return [result for item in items for result in self.commit([item])]

    def _undo(self) -> None:
        self._cache.clear()
        self.logs.failed()
        self._clear()
        try:
            if self.connection.in_transaction:
                self.connection.rollback()
            self._load()
        except (OSError, sqlite3.Error):
            # The connection may be past saving; the next group tries again on a new one.
            self._renew()

    def _renew(self) -> None:
        try:
            fresh = connect(self.directory)
        except (OSError, sqlite3.Error):
            return
        self.connection.close()
        self.connection = fresh
        try:
            self._load()
        except sqlite3.Error:
            return

    def _commit(self, items: Sequence[Item]) -> list[Any]:
        if self.connection.in_transaction:
            self.connection.rollback()
        self.connection.execute("BEGIN IMMEDIATE")
        results: list[Any] = []
        for item in items:
            try:
                if isinstance(item, Change):
                    results.append(self.change(item))
                elif isinstance(item, Create):
                    results.append(self._create(item) if item.then is None else self._pair(item, item.then))
                else:
                    results.append(item.do(self))
            except (OSError, sqlite3.Error):
                raise
            except Exception as error:
                # The edge of one caller: whatever its decision raises is its own, the others go on.
                results.append(error)
        self._write()
        self.connection.execute("COMMIT")
        self.logs.committed()
        for entry in self._touched.values():
            entry.committed = entry.job
            entry.moved = False
            entry.body = b""
            if entry.tail is not None and entry.job.state in ENDED:
                self.logs.forget(entry.job.id, [entry.tail.number])
        while len(self._cache) > _MOST_CACHED:
            del self._cache[next(iter(self._cache))]
        self._clear()
        return results

    def _write(self) -> None:
        for (job_id, number), (offset, data) in self._appends.items():
            self.logs.append(job_id, number, offset, b"".join(data))
        if self._appends:
            self.logs.sync()
        many = self.connection.executemany
        moved, stayed = [], []
        for entry in self._touched.values():
            job = entry.job
            if not entry.body:
                continue
            if entry.moved:
                moved.append((job.state, finished(job), job.next_seq, entry.text_size, entry.body, entry.number))
            else:
                stayed.append((job.next_seq, entry.text_size, entry.body, entry.number))
        if moved:
            many("UPDATE job SET state=?, finished=?, next_seq=?, text_size=?, body=? WHERE number=?", moved)
        if stayed:
            many("UPDATE job SET next_seq=?, text_size=?, body=? WHERE number=?", stayed)
        if self._marks:
            many("INSERT INTO mark VALUES (?, ?, ?)", self._marks)
        if self._blocks:
            many("INSERT INTO block VALUES (?, ?, ?, ?, ?)", self._blocks)
        if self._segments:
            many(
                "INSERT INTO segment (job, number, length) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET length = excluded.length",
                [(*key, length) for key, length in self._segments.items()],
            )
        if self._outbox:
            many("INSERT INTO outbox VALUES (?, ?, ?)", self._outbox)

    # Deciding and staging. Nothing of an item is staged before everything of it is known to be storable.

    def _pair(self, item: Create, then: Decide) -> Pair:
        first = self._create(item)
        try:
            return Pair(first, self.change(Change(first.job.id, then)))
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # the edge of one caller, as in `_commit`
            return Pair(first, error)

    def _create(self, item: Create) -> Commit:
        job = item.job
        earlier = self._find(job.id)
        if earlier is None and job.spec.idempotency_key is not None:
            row = self.connection.execute("SELECT id FROM job WHERE key = ?", (job.spec.idempotency_key,)).fetchone()
            earlier = self._find(row[0]) if row is not None else None
        if earlier is not None:
            return answer_earlier(earlier.job, job)
        check_new(job)
        self._space.check()
        decision = Decision(job=job, records=checked(item.records), outgoing=tuple(item.outgoing))
        entry = Entry(self._next_job, job, 0)
        entry.tail = Tail(0, 0, 0)
        prepared = ready(entry, decision, self._next_outgoing)
        spec = job.spec
        self.connection.execute(
            "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.number,
                job.id,
                spec.idempotency_key,
                job.state if job.stream is None else "stream",
                spec.pool,
                spec.priority,
                micros(job.created_at),
                finished(job),
                prepared.job.next_seq,
                sum(each.length for each in prepared.frames),
                prepared.body,
            ),
        )
        self._next_job += 1
        self._cache[job.id] = entry
        commit = self._stage(entry, None, decision, prepared)
        entry.body = b""
        return commit

    def change(self, item: Change) -> Commit:
        """Decide and stage. For an item of the group that is under way."""
        entry = self._find(item.job_id)
        if entry is None:
            raise NotFound(f"no job {item.job_id!r}")
        before = entry.job
        decision = item.decide(before)
        if decision is None:
            return Commit(job=before, previous=before.state, first_seq=before.next_seq, changed=False)
        if decision.job.id != item.job_id:
            raise Broken(f"a change of job {item.job_id} decided job {decision.job.id}")
        if decision.records:
            decision = msgspec.structs.replace(decision, records=checked(decision.records))
        return self._stage(entry, before, decision, ready(entry, decision, self._next_outgoing))

    def _find(self, job_id: str) -> Entry | None:
        entry = self._cache.pop(job_id, None)
        if entry is None:
            row = self.connection.execute("SELECT number, text_size, body FROM job WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                return None
            entry = Entry(row[0], decode_job(row[2]), row[1])
            entry.committed = entry.job
        # The newest stand at the end, so that the first is the one to let go.
        self._cache[job_id] = entry
        return entry

    def _stage(self, entry: Entry, before: Job | None, decision: Decision, prepared: Ready) -> Commit:
        job = prepared.job
        first_seq = entry.job.next_seq
        if prepared.frames:
            self._stage_frames(entry, job.id, prepared.frames)
        self._marks += prepared.marks
        self._outbox += prepared.outbox
        self._next_outgoing += len(prepared.outbox)
        entry.moved = entry.moved or (before is not None and before.state != job.state)
        entry.job = job
        entry.body = prepared.body
        self._touched[job.id] = entry
        return Commit(
            job=job,
            previous=before.state if before is not None else None,
            first_seq=first_seq,
            records=decision.records,
            outgoing=tuple(prepared.outgoing),
        )

    def _stage_frames(self, entry: Entry, job_id: str, frames: list[Frame]) -> None:
        tail = entry.tail
        if tail is None:
            tail = entry.tail = self._tail(entry, job_id)
        # A stream is dropped segment by segment.
        most = self._segment_bytes if entry.job.stream is None else min(STREAM_SEGMENT_BYTES, self._segment_bytes)
        for each in frames:
            if tail.number == 0 or tail.length >= most:
                tail.number, tail.length, tail.indexed = tail.number + 1, 0, 0
            if tail.length == 0 or tail.length - tail.indexed >= INDEX_BYTES:
                self._blocks.append((entry.number, each.seq, each.text, tail.number, tail.length))
                tail.indexed = tail.length
            self._appends.setdefault((job_id, tail.number), (tail.length, []))[1].append(each.data)
            tail.length += len(each.data)
            entry.text_size += each.length
            self._segments[entry.number, tail.number] = tail.length

    def _tail(self, entry: Entry, job_id: str) -> Tail:
        row = self.connection.execute(
            "SELECT number, length, packed FROM segment WHERE job = ? ORDER BY number DESC LIMIT 1", (entry.number,)
        ).fetchone()
        if row is None:
            return Tail(0, 0, 0)
        number, length, packed = row
        if not packed and self.logs.prepare(job_id, number, length):
            indexed = self.connection.execute(
                "SELECT max(offset) FROM block WHERE job = ? AND segment = ?", (entry.number, number)
            ).fetchone()[0]
            return Tail(number, length, indexed or 0)
        if not packed:
            self.damaged.append((job_id, f"segment {number} is shorter than its {length} committed bytes"))
        # A full tail makes the next block open a new segment.
        return Tail(number, self._segment_bytes, 0)

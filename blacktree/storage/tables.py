"""Looking things up: plain functions from a read connection to values.

Where an index is named, SQLite would take another: it knows nothing of how many jobs stand where, and holds `state = …`
to be rarer than any range. Then it reads, and sorts, every queued job at each look.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import msgspec

from blacktree.errors import NotFound, StorageFailed
from blacktree.event import FarmEvent
from blacktree.job import ACTIVE, ENDED, Job, JobState
from blacktree.storage import cursor as cursors
from blacktree.storage.base import Outgoing, Page
from blacktree.storage.database import decode_job
from blacktree.strict import UNREADABLE

_UNKNOWN = datetime.fromtimestamp(0, UTC)
decode_outgoing = msgspec.msgpack.Decoder(Outgoing).decode
encode_event = msgspec.msgpack.Encoder().encode
decode_event = msgspec.msgpack.Decoder(FarmEvent).decode


def job(connection: sqlite3.Connection, job_id: str) -> Job:
    """As `JobTable.get`."""
    row = connection.execute("SELECT body FROM job WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFound(f"no job {job_id!r}")
    return decode_job(row[0])


Damaged = list[tuple[str, str]]
"""Ids of jobs whose row cannot be read, and why: what is looked for beside them is found all the same."""


def _readable(rows: Iterable[tuple[str, bytes]], damaged: Damaged) -> list[Job]:
    jobs = []
    for id, body in rows:
        try:
            jobs.append(decode_job(body))
        except StorageFailed as error:
            damaged.append((id, error.message))
    return jobs


def find(
    connection: sqlite3.Connection, states: Collection[JobState], limit: int, cursor: str | None, damaged: Damaged
) -> Page:
    """As `JobTable.find`."""
    limit = max(1, limit)
    last = cursors.parse(cursor) if cursor is not None else (1 << 62, "")
    # One ordered look for each state, merged: so every one of them walks its index.
    found: list[tuple[int, str, bytes]] = []
    for state in set(states) or [None]:
        where = "state = ? AND " if state is not None else "state <> 'stream' AND "
        found += connection.execute(
            f"SELECT created, id, body FROM job WHERE {where}(created, id) < (?, ?) "
            "ORDER BY created DESC, id DESC LIMIT ?",
            (*([state] if state is not None else []), *last, limit + 1),
        )
    found.sort(key=lambda row: (row[0], row[1]), reverse=True)
    page = found[:limit]
    more = len(found) > limit
    return Page(
        jobs=_readable(((id, body) for _, id, body in page), damaged),
        cursor=cursors.make(page[-1][0], page[-1][1]) if more else None,
    )


def unfinished(connection: sqlite3.Connection, damaged: Damaged) -> list[Job]:
    """As `JobTable.unfinished`."""
    marks = ", ".join("?" * len(ACTIVE))
    rows = connection.execute(f"SELECT id, body FROM job WHERE state IN ({marks}) ORDER BY created, id", sorted(ACTIVE))
    return _readable(rows, damaged)


def queued(connection: sqlite3.Connection, after: str, limit: int, pool: str | None, damaged: Damaged) -> list[Job]:
    """As `JobTable.queued`."""
    where = "AND pool = ? " if pool is not None else ""
    while True:
        rows = connection.execute(
            "SELECT id, body FROM job INDEXED BY job_queued "
            f"WHERE state = 'queued' AND id > ? {where}ORDER BY id LIMIT ?",
            (after, *([pool] if pool is not None else []), max(1, limit)),
        ).fetchall()
        jobs = _readable(rows, damaged)
        # An empty page means the end to whoever asks for the next one.
        if jobs or not rows:
            return jobs
        after = rows[-1][0]


def oldest_queued(connection: sqlite3.Connection, damaged: Damaged) -> dict[str, datetime]:
    """As `JobTable.oldest_queued`."""
    # One seek in an index for each pool and priority, however long the queue is.
    found: dict[str, datetime] = {}
    pool = ""
    while True:
        (pool,) = connection.execute(
            "SELECT min(pool) FROM job INDEXED BY job_line WHERE state = 'queued' AND pool > ?", (pool,)
        ).fetchone()
        if pool is None:
            return found
        rows = [
            row
            for priority in range(10)
            for row in connection.execute(
                "SELECT id, body FROM job INDEXED BY job_line "
                "WHERE state = 'queued' AND pool = ? AND priority = ? ORDER BY id LIMIT 1",
                (pool, priority),
            )
        ]
        for each in _readable(sorted(rows)[:1], damaged):
            found[pool] = each.queued_at


def ahead(connection: sqlite3.Connection, job: Job) -> int:
    """As `JobTable.ahead`."""
    count: int = connection.execute(
        "SELECT (SELECT count(*) FROM job WHERE state = 'queued' AND pool = ?1 AND priority > ?2) + "
        "(SELECT count(*) FROM job WHERE state = 'queued' AND pool = ?1 AND priority = ?2 AND id < ?3)",
        (job.spec.pool, job.spec.priority, job.id),
    ).fetchone()[0]
    return count


def outgoing(connection: sqlite3.Connection, after: int, limit: int, damaged: Damaged) -> list[Outgoing]:
    """As `Outbox.outgoing`."""
    while True:
        rows = connection.execute(
            "SELECT id, job_id, body FROM outbox WHERE id > ? ORDER BY id LIMIT ?", (after, max(1, limit))
        ).fetchall()
        found = []
        for id, job_id, body in rows:
            try:
                found.append(decode_outgoing(body))
            except UNREADABLE as error:
                damaged.append((job_id, f"message {id}: {error}"))
        # An empty page means the end to whoever asks for the next one.
        if found or not rows:
            return found
        after = rows[-1][0]


def noted(connection: sqlite3.Connection, from_seq: int, limit: int) -> list[FarmEvent]:
    """As `FarmLog.noted`."""
    rows = connection.execute(
        "SELECT seq, body FROM farm WHERE seq >= ? ORDER BY seq LIMIT ?", (max(1, from_seq), max(1, limit))
    )
    return [_event(seq, body) for seq, body in rows]


def _event(seq: int, body: bytes) -> FarmEvent:
    """An event; in the place of one that cannot be read, one that says so: the numbers have no gap."""
    try:
        return decode_event(body)
    except UNREADABLE as error:
        return FarmEvent(seq=seq, time=_UNKNOWN, type="event_damaged", text=f"this event cannot be read: {error}")


def settings(connection: sqlite3.Connection, prefix: str) -> dict[str, str]:
    """As `Store.settings`."""
    return dict(
        connection.execute(
            "SELECT key, value FROM setting WHERE substr(key, 1, ?) = ? ORDER BY key", (len(prefix), prefix)
        ).fetchall()
    )


class Census:
    """How many jobs stand where: counted once at the start, then kept by following the commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.states: Counter[JobState] = Counter()
        self.queued: Counter[str] = Counter()
        self.alive: Counter[str] = Counter()
        # The pool stands in the row alone: of those that have ended, which are nearly all, only the index is read.
        for state, count in connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall():
            if state in ENDED:
                self._count(JobState(state), "", count)
        going = sorted(set(JobState) - ENDED)
        marks = ", ".join("?" * len(going))
        rows = connection.execute(
            f"SELECT state, pool, count(*) FROM job WHERE state IN ({marks}) GROUP BY state, pool", going
        ).fetchall()
        for state, pool, count in rows:
            self._count(JobState(state), pool, count)

    def moved(self, pool: str, before: JobState | None, after: JobState | None) -> None:
        """One job went from one state (None: it is new) to another (None: it is forgotten)."""
        if before is not after:
            if before is not None:
                self._count(before, pool, -1)
            if after is not None:
                self._count(after, pool, 1)

    def _count(self, state: JobState, pool: str, change: int) -> None:
        self.states[state] += change
        if state is JobState.QUEUED:
            self.queued[pool] += change
        if state not in ENDED:
            self.alive[pool] += change

"""The rows of the embedded broker's queues."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from blacktree.storage.base import QueueItem
from blacktree.strict import UNREADABLE

ASIDE = ".damaged"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(QueueItem).decode


class Queues:
    """The writer's side. Ids and depths are kept in memory, so that neither costs a look."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._next = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM queue").fetchone()[0]
        self._depths = Counter(dict(connection.execute("SELECT name, count(*) FROM queue GROUP BY name")))

    def put(self, queue: str, items: Sequence[QueueItem], maximum: int | None) -> list[int]:
        """As `QueueTable.queue_put`."""
        ids = list(range(self._next, self._next + len(items)))
        rows = [(id, queue, item.priority, item.deliveries, _encode(item)) for id, item in zip(ids, items, strict=True)]
        self._connection.executemany("INSERT INTO queue VALUES (?, ?, ?, ?, ?)", rows)
        self._next += len(items)
        self._depths[queue] += len(items)
        if maximum is not None and self._depths[queue] > maximum:
            beyond = self._depths[queue] - maximum
            self._connection.execute(
                "DELETE FROM queue WHERE id IN (SELECT id FROM queue WHERE name = ? ORDER BY id LIMIT ?)",
                (queue, beyond),
            )
            self._depths[queue] = maximum
        return ids

    def delete(self, ids: Sequence[int]) -> None:
        """As `QueueTable.queue_delete`."""
        for id in ids:
            for (name,) in self._connection.execute("DELETE FROM queue WHERE id = ? RETURNING name", (id,)).fetchall():
                self._depths[name] -= 1

    def give_back(self, ids: Sequence[int]) -> None:
        """As `QueueTable.queue_return`."""
        self._connection.executemany("UPDATE queue SET deliveries = deliveries + 1 WHERE id = ?", [(id,) for id in ids])

    def move(self, id: int, to: str, headers: dict[str, str], body: bytes | None) -> None:
        """As `QueueTable.queue_move`."""
        row = self._connection.execute("SELECT name, body FROM queue WHERE id = ?", (id,)).fetchone()
        if row is None:
            return
        item = _decode(row[1])
        moved = msgspec.structs.replace(item, headers=item.headers | headers, body=item.body if body is None else body)
        self._connection.execute("UPDATE queue SET name = ?, body = ? WHERE id = ?", (to, _encode(moved), id))
        self._depths[row[0]] -= 1
        self._depths[to] += 1

    def put_aside(self, ids: Sequence[int]) -> None:
        """These cannot be read: they are kept under a name that nobody consumes."""
        for id in ids:
            row = self._connection.execute("SELECT name FROM queue WHERE id = ?", (id,)).fetchone()
            if row is not None and not row[0].endswith(ASIDE):
                self._connection.execute("UPDATE queue SET name = ? WHERE id = ?", (row[0] + ASIDE, id))
                self._depths[row[0]] -= 1
                self._depths[row[0] + ASIDE] += 1

    def purge(self, queue: str) -> int:
        """As `QueueTable.queue_purge`."""
        count = self._connection.execute("DELETE FROM queue WHERE name = ?", (queue,)).rowcount
        self._depths[queue] = 0
        return count


class Taken(NamedTuple):
    """What was found; `damaged`: ids of rows that cannot be read, and why."""

    items: list[QueueItem]
    damaged: dict[int, str]


def take(connection: sqlite3.Connection, queue: str, limit: int, held: Collection[int]) -> Taken:
    """As `QueueTable.queue_take`."""
    taken = Taken([], {})
    while True:
        asked = max(0, limit) + len(held) + len(taken.damaged)
        rows = connection.execute(
            "SELECT id, deliveries, body FROM queue WHERE name = ? ORDER BY priority DESC, id LIMIT ?", (queue, asked)
        ).fetchall()
        taken.items.clear()
        before = len(taken.damaged)
        for id, deliveries, body in rows:
            if len(taken.items) >= limit:
                break
            if id in held or id in taken.damaged:
                continue
            try:
                taken.items.append(msgspec.structs.replace(_decode(body), id=id, deliveries=deliveries))
            except UNREADABLE as error:
                taken.damaged[id] = str(error)
        if len(taken.items) >= limit or len(rows) < asked or len(taken.damaged) == before:
            return taken


def depth(connection: sqlite3.Connection, queue: str) -> int:
    """As `QueueTable.queue_depth`."""
    count: int = connection.execute("SELECT count(*) FROM queue WHERE name = ?", (queue,)).fetchone()[0]
    return count

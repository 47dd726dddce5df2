"""Documents in SQLite: one row each, decided inside the writer's transaction."""

import sqlite3

from blacktree.errors import TooLarge
from blacktree.storage.base import Revise

MAXIMUM_BYTES = 1 << 20


def get(connection: sqlite3.Connection, kind: str, name: str) -> bytes | None:
    """As `DocumentTable.document`."""
    row = connection.execute("SELECT body FROM document WHERE kind = ? AND name = ?", (kind, name)).fetchone()
    return bytes(row[0]) if row is not None else None


def page(connection: sqlite3.Connection, kind: str, after: str, limit: int) -> list[tuple[str, bytes]]:
    """As `DocumentTable.documents`."""
    rows = connection.execute(
        "SELECT name, body FROM document WHERE kind = ? AND name > ? ORDER BY name LIMIT ?",
        (kind, after, max(0, limit)),
    )
    return [(name, bytes(body)) for name, body in rows]


def revise(connection: sqlite3.Connection, kind: str, name: str, decide: Revise) -> bytes | None:
    """As `DocumentTable.revise`."""
    before = get(connection, kind, name)
    after = checked(decide(before), kind, name)
    if after is before:
        return before
    if after is None:
        connection.execute("DELETE FROM document WHERE kind = ? AND name = ?", (kind, name))
    else:
        connection.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (kind, name, after))
    return after


def checked(body: bytes | None, kind: str, name: str) -> bytes | None:
    """The body itself, if it fits. Raises `TooLarge`."""
    if body is not None and len(body) > MAXIMUM_BYTES:
        raise TooLarge(f"the {kind} {name!r} has {len(body)} bytes, the limit is {MAXIMUM_BYTES}")
    return body

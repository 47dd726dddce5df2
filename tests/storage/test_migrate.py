"""Steps are applied in order, once, each whole or not at all."""

import sqlite3
from pathlib import Path

import pytest

from blacktree.errors import StorageFailed
from blacktree.storage.migrate import migrate, steps


@pytest.fixture
def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def test_steps_are_applied_once_in_order(tmp_path: Path, connection: sqlite3.Connection) -> None:
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (x);")
    assert migrate(connection, tmp_path) == 1
    (tmp_path / "0010_c.sql").write_text("INSERT INTO b SELECT 1;")
    (tmp_path / "0002_b.sql").write_text("CREATE TABLE b (x);")
    (tmp_path / "notes.sql").write_text("nonsense")
    assert migrate(connection, tmp_path) == 2
    assert migrate(connection, tmp_path) == 0
    assert connection.execute("SELECT x FROM b").fetchall() == [(1,)]
    connection.close()


def test_a_step_that_fails_leaves_no_trace(tmp_path: Path, connection: sqlite3.Connection) -> None:
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (x); INSERT INTO missing VALUES (1);")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, tmp_path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    connection.close()


def test_a_newer_database_is_refused(connection: sqlite3.Connection) -> None:
    newest = steps()[-1][0]
    connection.execute(f"PRAGMA user_version = {newest + 1}")
    with pytest.raises(StorageFailed) as caught:
        migrate(connection)
    assert caught.value.code == "state_too_new"
    connection.close()

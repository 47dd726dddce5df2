"""Steps are applied in order, once, each whole or not at all."""

import sqlite3
from pathlib import Path

import pytest

from blacktree.errors import StorageFailed
from blacktree.job import JobState
from blacktree.storage.migrate import SCHEMA, migrate, steps
from tests.contracts.store import a_job, adding, everything, lines, queued, to
from tests.storage.test_sqlite import opened


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


async def test_a_state_directory_of_the_first_schema_goes_on_with_all_that_is_in_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for name in ("waits", "runs"):
            await store.create(a_job(name), [queued()], [])
            await store.change(name, adding(lines("a word")))
        await store.change("runs", to(JobState.ASSIGNED))
        before = [await everything(store, name) for name in ("waits", "runs")]
    _back_to_the_first(tmp_path / "blacktree.db")
    async with opened(tmp_path) as store:
        assert [await everything(store, name) for name in ("waits", "runs")] == before
        assert [job.id for job in await store.unfinished()] == ["runs"]
        assert [job.id for job in await store.queued()] == ["waits"]
        await store.revise("kind", "name", lambda _: b"new")
        assert await store.document("kind", "name") == b"new"


def _back_to_the_first(database: Path) -> None:
    """As the first version would have written it: later steps have only added tables, which is checked here."""
    connection = sqlite3.connect(database, isolation_level=None)
    first = sqlite3.connect(":memory:", isolation_level=None)
    first.executescript((SCHEMA / "0001_initial.sql").read_text())
    look = "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL ORDER BY name"
    wanted = dict(first.execute(look).fetchall())
    found = dict(connection.execute(look).fetchall())
    assert {name: found.get(name) for name in wanted} == wanted
    for name in found.keys() - wanted.keys():
        connection.execute(f"DROP TABLE {name}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    first.close()

"""What is looked for again and again walks an index, in its order: a farm of a million jobs is asked as a small one."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blacktree.storage import pack, tables
from blacktree.storage.database import connect
from blacktree.storage.directory import Directory
from blacktree.storage.migrate import migrate
from tests.contracts.store import a_job


def plans(directory: Path, look: Callable[[sqlite3.Connection], Any]) -> list[str]:
    """How SQLite goes about every statement of this look."""
    place = Directory(directory)
    place.open()
    connection = connect(place)
    try:
        migrate(connection)
        connection.execute("INSERT INTO job VALUES (1, 'a', NULL, 'queued', 'p', 5, 0, NULL, 1, 0, x'')")
        said: list[str] = []
        connection.set_trace_callback(said.append)
        look(connection)
        connection.set_trace_callback(None)
        return [row[3] for text in said for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    finally:
        connection.close()
        place.close()


@pytest.mark.parametrize(
    "look",
    [
        lambda connection: tables.queued(connection, "", 1000, None, []),
        lambda connection: tables.queued(connection, "", 1000, "p", []),
        lambda connection: tables.oldest_queued(connection, []),
        lambda connection: tables.ahead(connection, a_job("a")),
        lambda connection: tables.find(connection, (), 50, None, []),
    ],
)
def test_nothing_is_sorted_and_no_index_is_left_for_a_coarser_one(
    tmp_path: Path, look: Callable[[sqlite3.Connection], Any]
) -> None:
    found = plans(tmp_path, look)
    assert found
    for step in found:
        assert "TEMP B-TREE" not in step, found
        assert "job_state" not in step, found


def test_counting_at_the_start_reads_no_row_of_a_job_that_has_ended(tmp_path: Path) -> None:
    for step in plans(tmp_path, tables.Census):
        assert not step.startswith("SCAN") or "COVERING INDEX" in step, step


def test_what_is_to_be_packed_is_found_by_the_segments(tmp_path: Path) -> None:
    first, second, *_ = plans(tmp_path, pack._unpacked)
    assert (first[:12], second[:10]) == ("SCAN segment", "SEARCH job")

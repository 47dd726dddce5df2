"""Cursors come back as they went, and nothing else is taken for one."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.errors import BadRequest
from blacktree.storage.cursor import make, micros, parse


@given(st.integers(-(10**15), 10**17), st.text(min_size=1, max_size=64, alphabet="abcXYZ019_-"))
def test_there_and_back(created: int, id: str) -> None:
    assert parse(make(created, id)) == (created, id)


@given(st.text(max_size=40))
def test_anything_else_is_refused(text: str) -> None:
    try:
        created, id = parse(text)
    except BadRequest:
        return
    assert make(created, id) == text


def test_a_number_that_no_database_holds_is_refused() -> None:
    with pytest.raises(BadRequest):
        parse(make(10**30, "a"))


def test_micros_are_exact() -> None:
    assert micros(datetime(2026, 1, 1, 0, 0, 0, 999999, tzinfo=UTC)) == 1767225600999999

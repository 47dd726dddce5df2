"""Waiting and guessing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.services.reliability.diagnose import diagnose
from blacktree.services.reliability.retry import backoff_seconds


@given(st.integers(0, 10_000), st.floats(0.01, 60), st.floats(60, 600), st.floats(0, 0.999999))
def test_backoff_stays_in_its_span(tries: int, first: float, limit: float, luck: float) -> None:
    seconds = backoff_seconds(tries, first, limit, lambda: luck)
    assert 0 < seconds <= limit
    assert seconds <= first * 2.0 ** min(60, max(0, tries - 1))


def test_backoff_grows() -> None:
    assert [backoff_seconds(tries, 2, 20, lambda: 1.0) for tries in range(1, 7)] == [2, 4, 8, 16, 20, 20]


@pytest.mark.parametrize(
    ("lines", "exit_code", "code"),
    [
        (["cc1plus: fatal error", "write error: No space left on device"], 1, "disk_full"),
        (["make: *** [all] Error"], 137, "out_of_memory"),
        (["exec /bin/sh: exec format error"], 1, "wrong_platform"),
        (["W: Temporary failure resolving 'deb.debian.org'", "E: Unable to locate package curl"], 100, "dns"),
        (["E: Unable to locate package crul"], 100, "package_missing"),
        (["ERROR: No matching distribution found for nothing"], 1, "package_missing"),
        (["/bin/sh: 1: ./run.sh: Permission denied"], 126, "permission_denied"),
        (["/bin/sh: 1: gcc: not found"], 127, "not_found"),
        (['failed to compute cache key: "/app.py": not found'], None, "copy_source_missing"),
        (["pull access denied for team/base, repository does not exist"], None, "registry_denied"),
        (["manifest for debian:nope not found: manifest unknown"], None, "base_missing"),
        (["dockerfile parse error line 3: unknown instruction: RUM"], None, "syntax"),
        (["curl: (7) Failed to connect to host port 443: Connection refused"], 7, "network"),
        ([], 139, "crashed"),
    ],
)
def test_causes(lines: list[str], exit_code: int | None, code: str) -> None:
    found = diagnose(["#5 building", *lines], exit_code)
    assert found is not None
    assert found.code == code
    assert found.cause
    assert found.advice


def test_no_idea_is_said_so() -> None:
    assert diagnose(["2 tests failed"], 1) is None
    assert diagnose([], None) is None

"""Errors cross as what they are; what is nobody's business is masked; nothing from the wire raises here."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from blacktree import errors
from blacktree.rpc import status


def test_details_bring_the_same_error_back() -> None:
    error = errors.Conflict("clash", code="illegal_move", advice="look first", again=True)
    number, message, details = status.to_status(error)
    assert number == status.ABORTED
    back = status.from_status(number, message, details)
    assert type(back) is errors.Conflict
    assert (back.code, back.message, back.advice, back.again) == ("illegal_move", "clash", "look first", True)


@pytest.mark.parametrize(
    "error", [errors.Broken("token s3cret"), RuntimeError("s3cret"), ExceptionGroup("s3cret", [OSError()])]
)
def test_our_own_faults_are_masked_and_logged(error: Exception) -> None:
    with capture_logs() as logs:
        number, message, details = status.to_status(error)
    assert number == status.INTERNAL
    assert "s3cret" not in message
    assert b"s3cret" not in details
    assert logs[0]["log_level"] == "error"
    assert logs[0]["exc_info"] is error
    back = status.from_status(number, message, details)
    assert type(back) is errors.Unavailable
    assert back.code == "internal"


def test_a_wrong_token_has_its_own_status() -> None:
    number, message, details = status.to_status(errors.NotAllowed("no", code="unauthenticated"))
    assert number == status.UNAUTHENTICATED
    assert type(status.from_status(number, message, details)) is errors.NotAllowed


@given(st.text(max_size=5000), st.text(max_size=5000), st.text(max_size=5000))
def test_what_crosses_is_bounded(message: str, advice: str, path: str) -> None:
    _, said, details = status.to_status(errors.BadRequest(message, advice=advice, path=path))
    assert len(said) <= status.MAX_MESSAGE
    assert len(details) <= status.MAX_DETAILS_BYTES


@given(st.integers(-5, 400), st.text(max_size=30), st.none() | st.binary(max_size=100))
def test_any_status_becomes_an_error_of_ours(number: int, message: str, details: bytes | None) -> None:
    assert isinstance(status.from_status(number, message, details), errors.BlacktreeError)


def test_an_unknown_kind_from_a_later_version_is_unavailable() -> None:
    details = msgspec.json.encode({"kind": "Sunspots", "code": "x", "message": "m", "again": False, "new": 1})
    error = status.from_status(14, "", details)
    assert type(error) is errors.Unavailable
    assert (error.code, error.again) == ("x", False)


def test_a_foreign_program_is_named_as_such() -> None:
    assert status.from_status(status.UNIMPLEMENTED, "Method not found", None).code == "not_blacktree"


def test_a_lost_peer_says_where() -> None:
    lost = status.peer_lost("h:1", ConnectionRefusedError(111, "Connection refused"))
    assert type(lost) is errors.PeerLost
    assert lost.message == "no answer from h:1: Connection refused"

"""Payloads as the forges document them, and anything else: an event, or a clear refusal; signatures hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.errors import BadRequest, NotAllowed
from blacktree.orchestrator.forges import FORGES
from blacktree.orchestrator.forges.base import Nothing, PullRequest, Pushed, payload, skipped
from blacktree.orchestrator.forges.signatures import standard_matches
from blacktree.orchestrator.groups import Head, overtaken
from tests.parts import forge as forges
from tests.parts.forge import EVENTS, SECRET, ZEROS, commit_id, pull_request, push

URL = "https://git.example.org/team/app.git"
NAMES = sorted(FORGES)


def parse(forge: str, kind: str, value: Any) -> Any:
    return FORGES[forge].parse(EVENTS[forge].get(kind, kind), json.dumps(value).encode())


@pytest.mark.parametrize("forge", NAMES)
def test_pushes(forge: str) -> None:
    event = parse(forge, "push", push(forge, URL, message="words"))
    assert isinstance(event, Pushed)
    assert (event.branch, event.tag, event.commit, event.before) == ("main", "", commit_id(1), commit_id(0))
    assert event.message == "words"
    assert URL in event.repositories
    assert forges.ssh(URL) in event.repositories
    tagged = parse(forge, "tag", push(forge, URL, ref="refs/tags/v1"))
    assert isinstance(tagged, Pushed)
    assert (tagged.branch, tagged.tag) == ("", "v1")
    assert isinstance(parse(forge, "push", push(forge, URL, after=ZEROS)), Nothing)
    fresh = parse(forge, "push", push(forge, URL, before=ZEROS))
    assert isinstance(fresh, Pushed)
    assert fresh.before == ""


@pytest.mark.parametrize("forge", NAMES)
def test_an_annotated_tag_is_its_commit(forge: str) -> None:
    value = push(forge, URL, ref="refs/tags/v1", after=commit_id(5))
    if forge == "gitlab":
        value["checkout_sha"] = commit_id(6)
    else:
        value["head_commit"]["id"] = commit_id(6)
    event = parse(forge, "tag", value)
    assert isinstance(event, Pushed)
    assert event.commit == commit_id(6)


@pytest.mark.parametrize("forge", NAMES)
@pytest.mark.parametrize("fork", [False, True])
def test_pull_requests(forge: str, fork: bool) -> None:
    for action in ("opened", "synchronize", "reopened", "closed"):
        event = parse(forge, "pull_request", pull_request(forge, URL, action=action, fork=fork))
        assert isinstance(event, PullRequest)
        assert (event.number, event.commit, event.into, event.fork) == (7, commit_id(1), "main", fork)
        assert event.closed == (action == "closed")
    assert isinstance(parse(forge, "pull_request", pull_request(forge, URL, action="assigned")), Nothing)


def test_a_gitlab_update_without_commits_is_nothing() -> None:
    value = pull_request("gitlab", URL, action="synchronize")
    del value["object_attributes"]["oldrev"]
    assert isinstance(parse("gitlab", "pull_request", value), Nothing)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(NAMES), st.sampled_from(["push", "tag", "pull_request", "ping", "other"]), st.data())
def test_whatever_comes_is_an_event_or_refused(forge: str, kind: str, data: st.DataObject) -> None:
    """A documented payload with some of its values put in the place of others or taken away."""
    value: Any = pull_request(forge, URL) if kind == "pull_request" else push(forge, URL)
    place = value
    for _ in range(data.draw(st.integers(0, 3))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(_json)
            break
        place = place[key]
    try:
        event = parse(forge, kind, value)
    except BadRequest:
        return
    assert isinstance(event, Pushed | PullRequest | Nothing)


@given(st.sampled_from(NAMES), st.binary(max_size=200))
def test_any_bytes_are_an_event_or_refused(forge: str, body: bytes) -> None:
    for kind in EVENTS[forge].values():
        with pytest.raises(BadRequest):
            FORGES[forge].parse(kind, body)


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 200))
def test_signatures_hold_for_these_bytes_alone(body: bytes, other: bytes, at: int) -> None:
    for forge in NAMES:
        adapter = FORGES[forge]
        for now in (None, 1000.0) if forge == "gitlab" else (None,):
            headers = forges.headers(forge, body, now=now)
            assert adapter.signed(headers, body, SECRET, 1000.0)
            assert not adapter.signed(headers, body, SECRET + b"x", 1000.0)
            if other != body and not (forge == "gitlab" and now is None):
                assert not adapter.signed(headers, other, SECRET, 1000.0)
        with pytest.raises(NotAllowed):
            adapter.check_signed({})
        assert not adapter.signed({}, body, b"", 1000.0)


def test_a_sha1_signature_is_none() -> None:
    headers = {"x-hub-signature": "sha1=" + "0" * 40}
    with pytest.raises(NotAllowed):
        FORGES["github"].check_signed(headers)


def test_the_signing_token_of_gitlab() -> None:
    import base64

    secret = b"whsec_" + base64.b64encode(b"k" * 32)
    headers = forges.headers("gitlab", b"{}", secret=b"k" * 32, now=1000.0, delivery="d")
    given_one = headers["webhook-signature"]
    assert standard_matches("d", "1000", given_one, b"{}", secret, 1000.0)
    assert standard_matches("d", "1000", f"v1,AAAA {given_one}", b"{}", secret, 1299.0)
    assert not standard_matches("d", "1000", given_one, b"{}", secret, 1301.0)
    assert not standard_matches("e", "1000", given_one, b"{}", secret, 1000.0)
    assert not standard_matches("d", "soon", given_one, b"{}", secret, 1000.0)


def test_forms() -> None:
    kind = "application/x-www-form-urlencoded; charset=utf-8"
    assert payload(b"payload=%7B%22a%22%3A1%7D", kind) == b'{"a":1}'
    for body in (b"", b"other=1", b"\xff", b"a&b"):
        with pytest.raises(BadRequest):
            payload(body, kind)


def test_words_that_ask_not_to_be_built() -> None:
    assert skipped("a change [skip ci]")
    assert skipped("a change\n\n[CI SKIP]")
    assert not skipped("skip ci")


def test_which_of_two_is_the_newer() -> None:
    def event(before: int, after: int, at: float | None = None) -> Pushed:
        return Pushed(repositories=[], branch="main", before=commit_id(before), commit=commit_id(after), at=at)

    def head(before: int, after: int, at: float | None = None) -> Head:
        return Head(before=commit_id(before), commit=commit_id(after), at=at, seen=0.0)

    assert not overtaken(event(0, 1), None)
    assert not overtaken(event(1, 2), head(0, 1))
    assert overtaken(event(0, 1), head(1, 2))
    # Forced back and forth: it goes on from where the branch is.
    assert not overtaken(event(2, 1), head(1, 2))
    assert not overtaken(event(0, 1), head(0, 1))
    assert overtaken(event(5, 6, 10.0), head(1, 2, 11.0))
    assert not overtaken(event(0, 1, 12.0), head(1, 2, 11.0))

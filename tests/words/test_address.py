"""Which addresses are taken, and what they become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.address import parse_address, submodule_address
from blacktree.errors import BadRequest
from blacktree.services.sync.refs import choose


@pytest.mark.parametrize(
    ("given_text", "scheme", "url", "place"),
    [
        ("https://Host.example/team/app.git", "https", "https://host.example/team/app.git", "host.example"),
        ("HTTPS://host:8443/a", "https", "https://host:8443/a", "host:8443"),
        ("http://[::1]:80/a", "http", "http://[::1]:80/a", "[::1]:80"),
        ("ssh://git@host:22/a/b", "ssh", "ssh://git@host:22/a/b", "host:22"),
        ("git@host.example:team/app.git", "ssh", "git@host.example:team/app.git", "host.example"),
        ("host:app", "ssh", "host:app", "host"),
        ("git://host/a", "git", "git://host/a", "host"),
        ("/srv/app", "file", "/srv/app", ""),
        ("file:///srv/a%20b", "file", "/srv/a b", ""),
    ],
)
def test_taken(given_text: str, scheme: str, url: str, place: str) -> None:
    address = parse_address(given_text, allow_local=True)
    assert (address.scheme, address.url, address.place) == (scheme, url, place)


@pytest.mark.parametrize(
    ("given_text", "code"),
    [
        ("ext::sh -c id", "repository_refused"),
        ("fd::7", "repository_refused"),
        ("anything::x", "repository_refused"),
        ("::x", "repository_refused"),
        ("-oProxyCommand=x:y", "repository_refused"),
        ("--upload-pack=x", "repository_refused"),
        ("ssh://-oProxyCommand=x/y", "repository_refused"),
        ("ssh://git@-o/y", "repository_refused"),
        ("git@-host:x", "repository_refused"),
        ("-git@host:x", "repository_refused"),
        ("host:-x", "repository_refused"),
        ("https://host", "repository_refused"),
        ("https://host/", "repository_refused"),
        ("https:///a", "repository_refused"),
        ("https://ho st/a", "repository_refused"),
        ("https://host:99999/a", "repository_refused"),
        ("https://host/a#main", "repository_refused"),
        ("https://host/a%0ahost=evil", "repository_refused"),
        ("ftp://host/a", "repository_refused"),
        ("https://token@host/a", "credentials_in_address"),
        ("https://u:p@host/a", "credentials_in_address"),
        ("ssh://u:p@host/a", "credentials_in_address"),
        ("file:///a", "local_source_refused"),
        ("/a", "local_source_refused"),
        ("./a", "local_source_refused"),
        ("a/b:c", "local_source_refused"),
        ("file://host/a", "repository_refused"),
    ],
)
def test_refused(given_text: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_address(given_text, allow_local=False)
    assert caught.value.code == code
    assert caught.value.path == "spec.repository"
    assert caught.value.advice
    assert "p@" not in str(caught.value)
    assert "token" not in str(caught.value).partition(";")[0]


@given(st.text(min_size=1, max_size=60) | st.from_regex(r"[a-z+.-]{0,8}:{1,2}/{0,3}[-a-z@:%0-9\[\]]{0,20}/?[-a-z]*"))
def test_whatever_is_taken_is_safe_to_hand_to_git(text: str) -> None:
    try:
        address = parse_address(text, allow_local=False)
    except BadRequest:
        return
    assert not address.url.startswith("-")
    assert not address.host.startswith("-")
    assert "::" not in address.url.split("/")[0].partition("[")[0]
    assert address.scheme in ("https", "http", "ssh", "git")
    assert parse_address(address.url, allow_local=False) == address


def test_relative_submodules() -> None:
    https = parse_address("https://host/team/app.git", allow_local=False)
    assert submodule_address("../lib.git", https, where="x").url == "https://host/team/lib.git"
    assert submodule_address("./sub", https, where="x").url == "https://host/team/app.git/sub"
    scp = parse_address("git@host:team/app", allow_local=False)
    assert submodule_address("../../other/lib", scp, where="x").url == "git@host:other/lib"
    with pytest.raises(BadRequest):
        submodule_address("../../../lib", https, where="x")


def test_the_ref_that_is_meant() -> None:
    one, two = "1" * 40, "2" * 40
    assert choose("x", "") is None
    both = choose("x", f"{one}\trefs/heads/x\n{two}\trefs/tags/x\n")
    assert both is not None
    assert (both.name, both.object) == ("refs/heads/x", one)
    assert both.remark
    same = choose("x", f"{one}\trefs/heads/x\n{two}\trefs/tags/x\n{one}\trefs/tags/x^{{}}\n")
    assert same is not None
    assert same.remark == ""
    assert choose("x", f"{one}\trefs/heads/other/refs/heads/x\n") is None

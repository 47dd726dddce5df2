"""Names, scopes, keys and seals of secrets; pure."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.cipher import Cipher, Key, Locked, new_key, parse_keys
from blacktree.errors import BadRequest
from blacktree.keyfile import VARIABLE, find_place, read_keys, take_variable, write_keys
from blacktree.secret import Scope, SecretKind, checked_name, checked_scope, fits_any, host_name, kind_named


@pytest.mark.parametrize(
    ("pattern", "repository", "fits"),
    [
        ("github.com/owner/app", "https://github.com/owner/app", True),
        ("github.com/owner/app", "https://github.com/owner/app.git", True),
        ("github.com/owner/app.git", "https://GitHub.com:443/owner/app/", True),
        ("github.com/owner/app", "git@github.com:owner/app.git", True),
        ("github.com/owner/app", "ssh://git@github.com:22/owner/app", True),
        ("github.com/owner/app", "http://github.com/owner/app", False),
        ("github.com/owner/app", "git://github.com/owner/app", False),
        ("https://github.com/owner/app", "git@github.com:owner/app", False),
        ("http://git.example:3000/team/*", "http://git.example:3000/team/app", True),
        ("http://git.example:3000/team/*", "http://git.example/team/app", False),
        ("github.com/owner/*", "https://github.com/owner/app", True),
        ("github.com/owner/*", "https://github.com/owner/group/app", False),
        ("github.com/owner/*", "https://github.com/owner", False),
        ("github.com/owner/**", "https://github.com/owner/group/app", True),
        ("github.com/**", "https://github.com.evil.test/owner/app", False),
        ("github.com/owner/*", "https://github.com/Owner/app", False),
        ("github.com/owner/*", "https://evil.test/github.com/owner/app", False),
        ("github.com/owner/*", "https://github.com/owner/../evil", False),
        ("github.com/owner/**", "https://github.com/owner/..%2f..%2fevil/app", False),
        ("github.com/owner/**", "https://github.com/owner/x/../../evil/app", False),
        ("github.com/owner/*", "https://github.com/owner//app", False),
        ("github.com/owner/*", "https://github.com/owner/app?x=/evil", False),
        ("*.example/owner/*", "https://git.example/owner/app", True),
        ("*/owner/*", "https://evil.test/owner/app", True),
        ("github.com/own.r/*", "https://github.com/owner/app", False),
        ("/srv/git/*", "/srv/git/app.git", True),
        ("/srv/git/*", "file:///srv/git/app", True),
        ("/srv/git/*", "https://x.test/srv/git/app", False),
        ("file:///srv/git/*", "/srv/git/../etc/app", False),
    ],
)
def test_patterns(pattern: str, repository: str, fits: bool) -> None:
    assert fits_any(repository, [pattern]) is fits


_PART = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,8}", fullmatch=True).filter(
    lambda part: not part.endswith(".git")
)
_HOST = st.from_regex(r"[a-z][a-z0-9]{0,8}\.(test|example)", fullmatch=True)


@given(_HOST, st.lists(_PART, min_size=1, max_size=4), st.lists(_PART, min_size=1, max_size=4), _HOST)
def test_a_pattern_fits_its_own_host_and_depth_alone(
    host: str, parts: list[str], others: list[str], stranger: str
) -> None:
    path = "/".join(parts)
    address = f"https://{host}/{path}"
    assert fits_any(address, [f"{host}/{path}"])
    assert fits_any(address, [f"{host}/" + "/".join("*" for _ in parts)])
    assert fits_any(address, [f"{host}/**"])
    assert not fits_any(address, [f"{host}/{path}/*"])
    assert fits_any(f"https://{stranger}/{path}", [f"{host}/**"]) == (host == stranger)
    assert fits_any(f"https://{host}/{'/'.join(others)}", [f"{host}/{path}"]) == (parts == others)
    assert not fits_any(f"http://{host}/{path}", [f"{host}/**"])


@given(st.text(max_size=60), st.text(max_size=40))
def test_no_text_breaks_matching(repository: str, pattern: str) -> None:
    fits_any(repository, [pattern])
    try:
        checked_scope([], [pattern])
    except BadRequest:
        return
    Scope(repositories=(pattern,)).permits(None, repository)


@given(
    st.lists(st.sampled_from(["a", "b"])),
    st.lists(st.sampled_from(["x.test/r/*", "y.test/r/*"])),
    st.sampled_from([None, "a", "c"]),
    st.sampled_from([None, "https://x.test/r/1", "https://z.test/r/1"]),
)
def test_scopes_only_narrow(
    sources: list[str], repositories: list[str], source: str | None, repository: str | None
) -> None:
    scope = checked_scope(sources, repositories)
    by_source = not sources or source in sources
    by_repository = not repositories or (repository == "https://x.test/r/1" and "x.test/r/*" in repositories)
    assert scope.permits(source, repository) == (by_source and by_repository)


def test_refused_scopes() -> None:
    for sources, repositories in (
        (["a/b"], []),
        ([""], []),
        ([], ["nohost"]),
        ([], ["with space/x"]),
        ([], ["https://nopath"]),
        ([], ["x" * 600 + "/y"]),
        (["a"] * 65, []),
    ):
        with pytest.raises(BadRequest):
            checked_scope(sources, repositories)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GHCR.io", "ghcr.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://registry.example:5000", "registry.example:5000"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("https://host/path", None),
        ("user@host", None),
        ("host:port", None),
        ("", None),
        ("-host", None),
    ],
)
def test_hosts_have_one_spelling(text: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(BadRequest):
            host_name(text)
    else:
        assert host_name(text) == name
        assert checked_name(SecretKind.REGISTRY, text) == name


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(BadRequest) as refused:
        kind_named("builds")
    assert refused.value.code == "unknown_kind"
    assert "build" in refused.value.advice


@given(st.binary(max_size=200), st.binary(max_size=20), st.binary(max_size=20))
def test_seals(value: bytes, about: bytes, other: bytes) -> None:
    key = Key(b"k" * 32)
    cipher = Cipher.of([key], "test")
    body = cipher.seal(value, about)
    assert cipher.unseal(body, about) == value
    assert cipher.seal(value, about) != body
    if about != other:
        with pytest.raises(Locked):
            cipher.unseal(body, other)
    with pytest.raises(Locked):
        Cipher.of([key], "another purpose").unseal(body, about)
    for at in range(0, len(body), 7):
        with pytest.raises(Locked):
            cipher.unseal(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], about)
    with pytest.raises(Locked):
        cipher.unseal(body[:-1], about)


def test_keys_in_text() -> None:
    one, two = new_key(), new_key()
    assert parse_keys(f"{one.text()}\n{two.text()}\n{one.text()}\n") == [one, two]
    assert one.text() not in repr(one)
    for text in ("", "short", one.text()[:-4], f"{one.text()} x"):
        with pytest.raises(BadRequest) as refused:
            parse_keys(text)
        assert one.text()[:20] not in str(refused.value)


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    key = new_key()
    write_keys(path, [key], fresh=True)
    assert read_keys(path) == [key]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_keys(path, [new_key()], fresh=True)
    assert read_keys(path) == [key]
    assert os.listdir(path.parent) == ["key"]
    for mode in (0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(BadRequest) as refused:
            read_keys(path)
        assert refused.value.code == "secrets_key_file"
        assert "chmod 600" in refused.value.advice
    path.chmod(0o600)
    with pytest.raises(BadRequest, match="state directory"):
        read_keys(path, apart=tmp_path)
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(path)
    with pytest.raises(BadRequest, match="state directory"):
        read_keys(link, apart=tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for wrong in (fifo, tmp_path, tmp_path / "absent"):
        with pytest.raises(BadRequest):
            read_keys(wrong)


def test_where_a_key_is_looked_for(tmp_path: Path) -> None:
    key, credential = new_key(), new_key()
    environ = {VARIABLE: key.text(), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    variable = take_variable(environ)
    assert VARIABLE not in environ
    assert take_variable(environ) == ""
    write_keys(tmp_path / "secrets-key", [credential])
    (tmp_path / "secrets-key").chmod(0o440)
    own = tmp_path / "own"
    assert find_place("/a/file", variable, environ, own=own).path == Path("/a/file")
    assert find_place("", variable, environ, own=own).read() == [key]
    assert find_place("", "", environ, own=own).read() == [credential]
    made = find_place("", "", {}, own=own)
    assert made.makes
    assert made.read() == []
    assert find_place("", "", {}).read() == []
    with pytest.raises(BadRequest) as refused:
        find_place("", "not a key", {})
    assert VARIABLE in str(refused.value)
    assert "not a key:" in str(refused.value)

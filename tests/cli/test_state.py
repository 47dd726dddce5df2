"""State directories, tokens, and which server a client finds."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from blacktree.cli import state
from blacktree.cli.exits import Unreachable
from blacktree.cli.farm import reachable_url
from blacktree.cli.server import resolve, url_of
from blacktree.errors import BadRequest, Conflict


def test_a_token_is_made_once_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "own" / "token"
    path.parent.mkdir()
    token = state.ensure_token(path)
    assert state.ensure_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["token"]


def test_of_two_that_start_at_once_both_use_the_first_one_s_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("theirs\n")
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert state.ensure_token(path) == "theirs"


@pytest.mark.parametrize("content", [None, "", "  \n", b"\xff\xfe"])
def test_a_token_file_that_is_none_is_told(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "token"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(BadRequest, match="token file"):
        state.read_token(path)


def test_a_state_directory_is_private_and_ours_alone(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    assert not state.is_locked(home)
    with state.open_state(home):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert state.is_locked(home)
        with pytest.raises(Conflict, match="another farm"), state.open_state(home):
            pass
    assert not state.is_locked(home)
    with state.open_state(home):
        pass


def test_the_runtime_directory_is_short_private_and_the_same_each_time(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 50)
    home.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / ("run" * 60))}
    first = state.runtime_directory({**environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")}, home)
    assert first == state.runtime_directory({**environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")}, home)
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    # A base that is too long for a socket's path is not used.
    assert str(state.runtime_base(environ)) == f"/tmp/blacktree-{os.getuid()}"


def test_somebody_else_s_runtime_directory_is_refused(tmp_path: Path) -> None:
    # Not below `tmp_path`, which may be too long for a socket: such a base is passed over.
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "blacktree").mkdir(mode=0o777)
        (Path(base) / "blacktree").chmod(0o777)
        with pytest.raises(BadRequest, match="not a private directory"):
            state.runtime_directory({"RUNTIME_DIRECTORY": base}, tmp_path)


def test_a_farm_that_somebody_else_has_left_there_is_none(tmp_path: Path) -> None:
    """Below /tmp anybody may have made this user's directory first: a token shown to that farm would be theirs."""
    with tempfile.TemporaryDirectory() as base:
        environ = {"RUNTIME_DIRECTORY": base, "XDG_STATE_HOME": str(tmp_path / "none"), "BLACKTREE_TOKEN": "mine"}
        _farm(tmp_path / "theirs", "http://127.0.0.1:1", "theirs")
        with state.open_state(tmp_path / "theirs"):
            link = state.runtime_directory(environ, tmp_path / "theirs")
            assert resolve(None, None, environ).url == "http://127.0.0.1:1"
            link.parent.chmod(0o755)
            with pytest.raises(Unreachable, match="no farm runs"):
                resolve(None, None, environ)
        # Nor is anything cleared up there: what a link of theirs leads to may be ours.
        shutil.rmtree(tmp_path / "theirs")
        with pytest.raises(BadRequest, match="not a private directory"):
            state.runtime_directory(environ, tmp_path)
        assert link.exists()


def test_farms_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    gone, here = tmp_path / "gone", tmp_path / "here"
    gone.mkdir()
    here.mkdir()
    left = state.runtime_directory(environ, gone)
    gone.rmdir()
    state.runtime_directory(environ, here)
    assert not left.exists()


def _farm(place: Path, url: str, token: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "token").write_text(token)
    state.write_server(place, url)


def test_flags_win_over_the_environment_and_that_over_a_farm_here(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    with pytest.raises(Unreachable, match="no farm runs"):
        resolve(None, None, environ)
    _farm(tmp_path / "blacktree" / "orchestrator", "http://127.0.0.1:2", "two")
    assert resolve(None, None, environ)[:2] == ("http://127.0.0.1:2", "two")
    _farm(tmp_path / "blacktree" / "up", "http://127.0.0.1:1", "one")
    assert resolve(None, None, environ)[:2] == ("http://127.0.0.1:1", "one")
    with state.open_state(tmp_path / "blacktree" / "orchestrator"):
        # The one that runs, not the one that ran.
        assert resolve(None, None, environ)[:2] == ("http://127.0.0.1:2", "two")
    environ |= {"BLACKTREE_SERVER": "h:3", "BLACKTREE_TOKEN": "three"}
    assert resolve(None, None, environ)[:2] == ("http://h:3", "three")
    assert resolve("https://h", None, environ)[:2] == ("https://h", "three")
    assert resolve("h:4", "four", environ)[:2] == ("http://h:4", "four")


def test_who_names_a_state_directory_means_no_other_farm(tmp_path: Path) -> None:
    named = tmp_path / "named"
    environ = {"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    environ["BLACKTREE_ORCHESTRATOR_STATE_DIRECTORY"] = str(named)
    _farm(tmp_path / "blacktree" / "up", "http://127.0.0.1:1", "one")
    with state.open_state(tmp_path / "blacktree" / "up"):
        with pytest.raises(Unreachable, match=f"no farm runs on the state directory {named}"):
            resolve(None, None, environ)
        # One that was killed has left its address.
        _farm(named, "http://127.0.0.1:2", "two")
        assert resolve(None, None, environ)[:2] == ("http://127.0.0.1:2", "two")
        assert resolve("127.0.0.1:1", None, environ).token == "one"


def test_a_named_server_that_is_a_farm_here_needs_no_token(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    _farm(tmp_path / "blacktree" / "up", "http://127.0.0.1:1", "one")
    assert resolve("127.0.0.1:1", None, environ).token == "one"
    # Another server must not be shown this farm's token.
    assert resolve("127.0.0.1:2", None, environ).token == ""
    assert "one" not in repr(resolve("127.0.0.1:1", None, environ))


@pytest.mark.parametrize(
    "text", ["", "ftp://h", "http://", "http://h:port", "http://u:p@h", "http://h?x", "http://h:99999"]
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(BadRequest, match="not a server's address"):
        url_of(text)


def test_addresses() -> None:
    assert url_of("[::1]:80/") == "http://[::1]:80"
    assert url_of("wss://h/prefix/") == "https://h/prefix"
    assert reachable_url(["0.0.0.0:80"]) == "http://127.0.0.1:80"
    assert reachable_url(["[::]:80"]) == "http://[::1]:80"
    assert reachable_url(["10.1.2.3:80", "[::1]:80"]) == "http://10.1.2.3:80"

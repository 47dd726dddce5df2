"""`blacktree secret` and `blacktree registry` against a farm as its user starts it."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blacktree.cipher import new_key
from blacktree.cli.main import tree
from blacktree.cli.secret import without_newline
from blacktree.keyfile import VARIABLE, read_keys, write_keys
from tests.cli.running import one_line, run
from tests.parts.whole_farm import COMMAND, WholeFarm, open_whole_farm

pytestmark = pytest.mark.timeout(120)

VALUE = "correct horse battery staple"


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[WholeFarm]:
    with open_whole_farm(tmp_path, XDG_CONFIG_HOME=str(tmp_path / "config"), BLACKTREE_LOG_LEVEL="debug") as farm:
        yield farm


def given(farm: WholeFarm, words: list[str], text: str, code: int = 0) -> Result:
    """A command with this on its stdin, in this process: a further one takes a second."""
    told = {name: value for name, value in farm.environ.items() if name.startswith(("BLACKTREE_", "XDG_"))}
    told |= {"BLACKTREE_SERVER": farm.url, "BLACKTREE_TOKEN": (farm.state / "token").read_text().strip()}
    done = CliRunner().invoke(tree, words, input=text, env=told, prog_name="blacktree")
    assert done.exit_code == code, (done, done.output, farm.log.read_text()[-3000:])
    assert VALUE not in done.output
    return done


def holders(*places: Path) -> list[str]:
    """Files that hold the value in clear."""
    found = []
    for place in places:
        for path in [place] if place.is_file() else place.rglob("*"):
            if path.is_file() and VALUE.encode() in path.read_bytes():
                found.append(str(path))
    return found


def test_a_whole_life(farm: WholeFarm, tmp_path: Path) -> None:
    farm.start()
    keys = tmp_path / "config" / "blacktree"
    assert not keys.exists()
    given(farm, ["secret", "set", "build", "npm", "--repository", "example.test/*"], VALUE + "\n")
    (key_file,) = keys.iterdir()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert not key_file.is_relative_to(farm.state)
    file = tmp_path / "value"
    file.write_bytes(VALUE.encode() + b"\n")
    given(farm, ["secret", "set", "run", "key", "--from-file", str(file), "--source", "app"], "")
    done = given(farm, ["registry", "login", "index.docker.io", "--username", "alice"], VALUE + "\n")
    assert "docker.io" in done.stdout
    listed = json.loads(given(farm, ["secret", "list", "--json"], "").stdout)
    assert [(each["kind"], each["name"]) for each in listed["secrets"]] == [
        ("build", "npm"),
        ("registry", "docker.io"),
        ("run", "key"),
    ]
    assert listed["key"]["place"] == f"the file {key_file}"
    table = given(farm, ["secret", "list"], "").stdout
    assert "example.test/*" in table
    assert "docker.io" in given(farm, ["registry", "list"], "").stdout
    assert "npm" not in given(farm, ["registry", "list"], "").stdout

    before = read_keys(key_file)
    assert "3 secrets are sealed anew" in given(farm, ["secret", "rotate-key"], "").stdout
    assert read_keys(key_file) != before
    assert farm.stop() == 0
    farm.start()
    readable = json.loads(given(farm, ["secret", "list", "--json"], "").stdout)["secrets"]
    assert [each["readable"] for each in readable] == [True, True, True]

    events = given(farm, ["events", "--json"], "").stdout
    for word in ("secret_added", "secrets_key_rotated"):
        assert word in events
    given(farm, ["registry", "logout", "docker.io"], "")
    given(farm, ["secret", "remove", "build", "npm"], "")
    assert "no build secret" in given(farm, ["secret", "remove", "build", "npm"], "", code=2).stderr
    doctor = json.loads(given(farm, ["doctor", "--json"], "").stdout)
    (finding,) = [each for each in doctor["findings"] if each["part"] == "secrets"]
    assert finding["status"] == "ok"
    assert farm.stop() == 0
    assert holders(farm.state, farm.log, keys, tmp_path / "xdg") == []


def test_another_key_is_told_and_loses_nothing(farm: WholeFarm, tmp_path: Path) -> None:
    farm.start()
    given(farm, ["secret", "set", "build", "npm"], VALUE)
    (key_file,) = (tmp_path / "config" / "blacktree").iterdir()
    right = key_file.read_bytes()
    assert farm.stop() == 0
    key_file.unlink()
    farm.start()
    refused = given(farm, ["secret", "set", "build", "other"], VALUE, code=2)
    assert str(key_file) in refused.stderr
    assert "put that file back" in refused.stderr
    assert farm.stop() == 0
    write_keys(key_file, [new_key()])
    farm.start()
    listed = given(farm, ["secret", "list"], "")
    assert "1 of 1 secrets cannot be opened" in listed.stderr
    assert "cannot be opened" in listed.stdout
    doctor = json.loads(given(farm, ["doctor", "--json"], "").stdout)
    (finding,) = [each for each in doctor["findings"] if each["part"] == "secrets"]
    assert finding["status"] == "problem"
    assert "nothing is lost" in finding["advice"]
    built = given(farm, ["build", "https://example.test/a/b.git", "--secret", "npm", "--json"], "", code=1)
    job = json.loads(built.stdout.splitlines()[-1])["job"]
    assert job["error"]["code"] == "secret_locked"
    assert "refused" not in given(farm, ["secret", "rotate-key"], "", code=2).stdout
    assert farm.stop() == 0
    key_file.write_bytes(right)
    farm.start()
    assert given(farm, ["secret", "list"], "").stderr == ""
    given(farm, ["build", "https://example.test/a/b.git", "--secret", "npm"], "")


def test_a_key_in_the_environment_is_seen_by_nobody(tmp_path: Path) -> None:
    key = new_key()
    with open_whole_farm(tmp_path, **{VARIABLE: key.text(), "XDG_CONFIG_HOME": str(tmp_path / "config")}) as farm:
        farm.start()
        given(farm, ["secret", "set", "build", "npm"], VALUE)
        assert not (tmp_path / "config").exists()
        worker = Path(f"/proc/{farm.worker_pid}/environ").read_text()
        assert "BLACKTREE_WORKER_ID" in worker
        assert key.text() not in worker
        # The variable is still in this environment: the listing passes it over.
        shown = given(farm, ["config"], "").stdout + given(farm, ["config", "--json"], "").stdout
        assert key.text() not in shown
        assert "secrets_key_file" in shown
        refused = given(farm, ["secret", "rotate-key"], "", code=2)
        assert "--new-key-file" in refused.stderr
        moved = tmp_path / "moved"
        done = given(farm, ["secret", "rotate-key", "--new-key-file", str(moved)], "")
        assert f"set `orchestrator.secrets_key_file` to {moved}" in done.stdout
        assert farm.stop() == 0
        assert key.text().encode() not in b"".join(
            path.read_bytes() for path in farm.state.rglob("*") if path.is_file()
        )
        assert key.text() not in farm.log.read_text()
        del farm.environ[VARIABLE]
        farm.environ["BLACKTREE_ORCHESTRATOR_SECRETS_KEY_FILE"] = str(moved)
        farm.start()
        assert given(farm, ["secret", "list"], "").stderr == ""


def test_a_key_file_that_others_can_read(tmp_path: Path) -> None:
    key = tmp_path / "key"
    write_keys(key, [new_key()])
    key.chmod(0o644)
    with open_whole_farm(tmp_path, BLACKTREE_ORCHESTRATOR_SECRETS_KEY_FILE=str(key)) as farm:
        farm.start()
        refused = given(farm, ["secret", "set", "build", "npm"], VALUE, code=2)
        assert "can be read by others" in refused.stderr
        assert f"chmod 600 {key}" in refused.stderr
        given(farm, ["build", "https://example.test/a/b.git"], "")
        doctor = json.loads(given(farm, ["doctor", "--json"], "").stdout)
        statuses = {each["part"]: each["status"] for each in doctor["findings"]}
        assert statuses["orchestrator.secrets_key_file"] == "problem"
        assert statuses["secrets"] == "problem"


def test_a_variable_that_holds_no_key_is_refused_at_start(tmp_path: Path) -> None:
    word = "hunter2-hunter2"
    ran = subprocess.run(
        [*COMMAND, "up", "--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0"],
        env={**os.environ, VARIABLE: word, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 2
    assert VARIABLE in ran.stderr
    assert word not in ran.stderr


def test_new_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert run("secret", "new-key", str(path)).code == 0
    (key,) = read_keys(path)
    again = run("secret", "new-key", str(path))
    assert again.code == 2
    assert "must not be lost" in one_line(again)
    assert read_keys(path) == [key]
    before = run("secret", "new-key", "--before-old", str(path))
    assert before.code == 0
    assert "rotate-key" in before.out
    fresh, old = read_keys(path)
    assert old == key
    assert fresh != key
    assert run("secret", "new-key", "--before-old", str(tmp_path / "absent")).code == 2


def test_usage(tmp_path: Path) -> None:
    assert "'bild' is not one of" in one_line(run("secret", "set", "bild", "x"))
    assert "--username" in one_line(run("registry", "login", "host"))
    # There is no way to give a value on the command line.
    assert run("secret", "set", "build", "x", "value").code == 2
    assert run("registry", "login", "host", "-u", "me", "--password", "x").code == 2


@pytest.mark.parametrize(
    ("given", "value"),
    [(b"a\n", b"a"), (b"a\r\n", b"a"), (b"a", b"a"), (b"a\nb\n", b"a\nb\n"), (b"\n", b""), (b"a\n\n", b"a\n\n")],
)
def test_the_newline_of_a_single_line(given: bytes, value: bytes) -> None:
    assert without_newline(given) == value

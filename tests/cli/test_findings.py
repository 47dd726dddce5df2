"""What the doctor makes of what it sees."""

import json
import socket
import struct
import threading
from pathlib import Path

import pytest

from blacktree.cli import findings
from blacktree.cli.doctor import finding_lines
from blacktree.cli.examine import engine_findings, local_findings
from blacktree.config import Config, WorkerConfig
from blacktree.providers.base import Health
from tests.cli.running import run
from tests.parts.disk import few_files


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("git version 2.39.5", "ok"),
        ("git version 2.39.5 (Apple Git-1)", "ok"),
        ("git version 1.8", "problem"),
        (None, "problem"),
        ("", "problem"),
    ],
)
def test_git(said: str | None, status: str) -> None:
    found = findings.git(said)
    assert found.status == status
    assert bool(found.advice) == (status != "ok")


def test_disk(tmp_path: Path) -> None:
    assert findings.disk("d", tmp_path / "not" / "yet", 0).status == "ok"
    assert findings.disk("d", tmp_path, 1 << 60).status == "problem"
    assert findings.disk("d", tmp_path, 0, 1 << 60).status == "warning"


def test_a_disk_without_room_for_files(tmp_path: Path) -> None:
    with few_files(tmp_path / "disk") as place:
        found = findings.disk("d", place, 0)
    assert (found.status, "inodes" in found.text) == ("problem", True)


def test_the_engine_s_own_disk(tmp_path: Path) -> None:
    health = Health(name="docker", version="1", directories=[str(tmp_path)])
    assert [each.part for each in engine_findings(health, 1 << 60) if each.status == "problem"] == ["engine disk"]
    assert all(each.status == "ok" for each in engine_findings(health, 0))


def test_files_with_secrets(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert findings.secret_file("t", file).status == "problem"
    file.write_text("x")
    file.chmod(0o644)
    assert "chmod 600" in findings.secret_file("t", file).advice
    file.chmod(0o600)
    assert findings.secret_file("t", file).status == "ok"


def test_state_directories(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert findings.state("worker state", tmp_path).status == "warning"
    tmp_path.chmod(0o700)
    assert findings.state("worker state", tmp_path).status == "ok"
    assert "first start" in findings.state("worker state", tmp_path / "x").text


@pytest.mark.parametrize(
    ("content", "status", "word"),
    [
        (None, "ok", "public images only"),
        ({"auths": {"r.example": {"auth": "c2VjcmV0OnB3"}}}, "ok", "r.example"),
        ({"credsStore": "no-such-helper"}, "problem", "no-such-helper"),
        ({"credHelpers": {"h": "no-such-helper"}}, "problem", "no-such-helper"),
        ("not json", "problem", "cannot be used"),
        ([], "problem", "cannot be used"),
    ],
)
def test_registry_logins(tmp_path: Path, content: object, status: str, word: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    found = findings.registry({"DOCKER_CONFIG": str(tmp_path), "PATH": ""})
    assert found.status == status
    assert word in found.text
    assert "c2VjcmV0OnB3" not in found.text


def test_clocks() -> None:
    assert findings.clocks("c", 1.0, 0.5).status == "ok"
    assert findings.clocks("c", -60.0, 0.5).status == "warning"


def test_an_engine_that_refuses() -> None:
    found = engine_findings(Health(name="docker", refusal="no such socket: start the engine"), 0)
    assert [each.status for each in found] == ["problem"]
    assert "start the engine" in found[0].text


def test_nothing_here_works_and_the_doctor_says_so(tmp_path: Path) -> None:
    env = {
        "BLACKTREE_WORKER_ENGINE": str(tmp_path / "no.sock"),
        "BLACKTREE_ORCHESTRATOR_BROKER_URL": "amqp://u:hunter2@127.0.0.1:9/",
        "BLACKTREE_WORKER_ORCHESTRATOR": "127.0.0.1:9",
        "BLACKTREE_WORKER_JOIN_TOKEN_FILE": str(tmp_path / "nowhere"),
        "BLACKTREE_SERVER": "http://127.0.0.1:9",
        "BLACKTREE_TOKEN": "t",
    }
    ran = run("doctor", "--json", env=env)
    assert ran.code == 0
    body = json.loads(ran.out)
    bad = {each["part"] for each in body["findings"] if each["status"] == "problem"}
    assert body["ok"] is False
    assert {"engine", "broker", "orchestrator", "server", "worker.join_token_file"} <= bad
    assert "hunter2" not in ran.out


def test_a_secret_that_builds_do_not_get_is_told(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("x")
    (tmp_path / "good").chmod(0o600)
    (tmp_path / "open").write_text("x")
    (tmp_path / "open").chmod(0o644)
    (found,) = findings.build_secrets("worker secrets", tmp_path)
    assert (found.status, found.advice) == ("problem", f"run: chmod 600 {tmp_path / 'open'}")
    assert findings.build_secrets("worker secrets", tmp_path / "none") == []


def test_a_port_that_hangs_up_is_no_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            client, _ = server.accept()
            client.recv(8)
            # With a reset, as from a program that wants to hear nothing of this.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        env = {
            "BLACKTREE_ORCHESTRATOR_BROKER_URL": f"amqp://127.0.0.1:{server.getsockname()[1]}/",
            "BLACKTREE_WORKER_ENGINE": "/nonexistent.sock",
        }
        ran = run("doctor", "--json", env=env)
        thread.join()
    told = next(each for each in json.loads(ran.out)["findings"] if each["part"] == "broker")
    assert "does not speak AMQP" in told["text"]


def test_the_farm_that_runs_here_is_the_one_that_is_looked_at(tmp_path: Path) -> None:
    farm = tmp_path / "up"
    (farm / "worker").mkdir(parents=True, mode=0o700)
    farm.chmod(0o700)
    texts = {found.part: found.text for found in local_findings(Config(), {}, farm)}
    assert (texts["orchestrator state"], texts["worker state"]) == (str(farm), str(farm / "worker"))
    elsewhere = Config(worker=WorkerConfig(state_directory=str(tmp_path)))
    texts = {found.part: found.text for found in local_findings(elsewhere, {}, farm)}
    assert texts["worker state"] == str(tmp_path)


def test_a_finding_is_folded_on_a_terminal_alone() -> None:
    finding = findings.Finding(part="broker", status="problem", text="word " * 20 + "end", advice="mend it")
    assert len(finding_lines(finding, colour=False)) == 2
    lines = finding_lines(finding, colour=False, columns=80)
    assert max(len(line) for line in lines) <= 80
    assert " ".join(" ".join(lines).split()) == f"PROBLEM broker {finding.text} mend it"
    assert {line[:28].strip() for line in lines[1:]} == {""}

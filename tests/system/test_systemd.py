"""systemd itself judges the units, and the daemons speak to a real notify socket."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from blacktree.cli import systemd
from blacktree.config import load
from tests.parts.whole_farm import COMMAND, open_whole_farm

PARTS = ["orchestrator", "worker", "up"]


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing")
        pytest.skip("systemd-analyze is missing")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


def printed(part: str, *arguments: str) -> str:
    ran = subprocess.run([*COMMAND, "systemd", part, *arguments], capture_output=True, text=True, check=True)
    return ran.stdout


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("arguments", [(), ("--user", "root", "--config", "/etc/black tree/100%.toml")])
def test_systemd_accepts_the_unit(part: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / f"blacktree-{part}.service"
    config = tmp_path / "black tree 100%.toml"
    config.write_text("")
    file.write_text(printed(part, *(str(config) if "/" in word else word for word in arguments)))
    verdict = analyze("verify", str(file))
    assert (verdict.returncode, verdict.stdout, verdict.stderr) == (0, "", "")


@pytest.mark.parametrize("part", PARTS)
def test_a_state_directory_of_the_settings_can_be_written(part: str, tmp_path: Path) -> None:
    section = "worker" if part == "worker" else "orchestrator"
    config = tmp_path / "settings.toml"
    config.write_text(f'[{section}]\nstate_directory = "/srv/black tree"\n')
    text = printed(part, "--config", str(config))
    assert 'ReadWritePaths="/srv/black tree"\n' in text
    assert "ReadWritePaths" not in printed(part)
    file = tmp_path / f"blacktree-{part}.service"
    file.write_text(text)
    verdict = analyze("verify", str(file))
    assert (verdict.returncode, verdict.stdout, verdict.stderr) == (0, "", "")


def test_systemd_would_not_accept_anything(tmp_path: Path) -> None:
    file = tmp_path / "blacktree-worker.service"
    file.write_text(printed("worker").replace("Type=notify", "Type=nonsense").replace("ExecStart=", "ExecStart=x"))
    verdict = analyze("verify", str(file))
    assert verdict.returncode != 0 or verdict.stderr


@pytest.mark.parametrize(("part", "limit"), [("orchestrator", 2.0), ("worker", 2.5), ("up", 2.5)])
def test_the_exposure_is_low(part: str, limit: float, tmp_path: Path) -> None:
    """systemd's own figure, from 0 (closed) to 10."""
    file = tmp_path / f"blacktree-{part}.service"
    file.write_text(printed(part))
    verdict = analyze("security", "--offline=true", "--no-pager", str(file))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", verdict.stdout)
    if found is None:
        pytest.skip(f"this systemd cannot judge a file: {verdict.stderr.strip()}")
    assert float(found[1]) <= limit


@pytest.mark.parametrize("part", PARTS)
def test_systemd_waits_longer_than_the_grace(part: str) -> None:
    environ = {
        "BLACKTREE_ORCHESTRATOR_SHUTDOWN_GRACE_SECONDS": "300",
        "BLACKTREE_WORKER_SHUTDOWN_GRACE_SECONDS": "200",
    }
    config = load(None, environ)[0]
    text = systemd.unit(part, config, ["/usr/bin/blacktree"], [part], user=None, docker_group="docker")
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    assert stop > {"orchestrator": 300, "worker": 200, "up": 500}[part]


def test_the_engine_s_group_is_for_those_who_build() -> None:
    assert "SupplementaryGroups=docker" in printed("worker")
    assert "SupplementaryGroups=podman" in printed("up", "--docker-group", "podman")
    assert "SupplementaryGroups" not in printed("orchestrator")
    assert "DynamicUser=yes" in printed("worker")
    assert "DynamicUser" not in printed("worker", "--user", "builder")


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("plain", "plain"), ("a b", '"a b"'), ("100%", "100%%"), ("$HOME", "$$HOME"), ('a"b', '"a\\"b"')],
)
def test_words_survive_systemd(word: str, quoted: str) -> None:
    assert systemd.quoted(word) == quoted


class NotifySocket:
    """What systemd would hear."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(self.path)
        self.heard: list[str] = []

    def wait_for(self, word: str, seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        seen = 0
        while True:
            for message in self.heard[seen:]:
                if word in message:
                    return message
            seen = len(self.heard)
            assert time.monotonic() < deadline, f"{word} was not heard, but {self.heard}"
            if select.select([self._socket], [], [], 0.2)[0]:
                self.heard.append(self._socket.recv(4096).decode())

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("part", ["orchestrator", "up"])
def test_a_farm_tells_systemd_how_it_stands(part: str, tmp_path: Path) -> None:
    notify = NotifySocket(tmp_path / "notify")
    with open_whole_farm(tmp_path) as farm:
        environ = farm.environ | {
            "NOTIFY_SOCKET": notify.path,
            "WATCHDOG_USEC": "1000000",
            "BLACKTREE_ORCHESTRATOR_STATE_DIRECTORY": str(farm.state),
            "BLACKTREE_ORCHESTRATOR_LISTEN": "127.0.0.1:0",
            "BLACKTREE_ORCHESTRATOR_GRPC_LISTEN": f"unix:{tmp_path}/grpc",
        }
        process = subprocess.Popen([*COMMAND, part], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            notify.wait_for("READY=1")
            notify.wait_for("WATCHDOG=1")
            process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in notify.wait_for("RELOADING=1")
            process.send_signal(signal.SIGTERM)
            notify.wait_for("STOPPING=1")
            assert process.wait(40) == 0
        finally:
            process.kill()
            process.wait()
            notify.close()


def test_a_worker_tells_systemd_how_it_stands(tmp_path: Path) -> None:
    notify = NotifySocket(tmp_path / "notify")
    (tmp_path / "join").write_text("secret\n")
    with open_whole_farm(tmp_path) as farm:
        environ = farm.environ | {
            "NOTIFY_SOCKET": notify.path,
            "WATCHDOG_USEC": "1000000",
            "BLACKTREE_WORKER_ORCHESTRATOR": f"unix:{tmp_path}/nobody",
            "BLACKTREE_WORKER_LISTEN": f"unix:{tmp_path}/worker",
            "BLACKTREE_WORKER_JOIN_TOKEN_FILE": str(tmp_path / "join"),
            "BLACKTREE_WORKER_STATE_DIRECTORY": str(tmp_path / "state"),
        }
        process = subprocess.Popen([*COMMAND, "worker"], env=environ, stderr=subprocess.DEVNULL)
        try:
            notify.wait_for("READY=1")
            notify.wait_for("WATCHDOG=1")
            process.send_signal(signal.SIGTERM)
            notify.wait_for("STOPPING=1")
            assert process.wait(40) == 0
        finally:
            process.kill()
            process.wait()
            notify.close()

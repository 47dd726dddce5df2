"""compose.yaml: its shape and what it names. Its image: test_scaling_containers.py."""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from blacktree.config import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_parts(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"rabbitmq", "orchestrator", "worker-1", "worker-2"}
    for name, service in compose["services"].items():
        assert set(service.get("networks", [])) <= set(compose["networks"]), name
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in compose["secrets"], name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or source.startswith(("${", "/")), name
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] == "service_healthy"
            assert "healthcheck" in compose["services"][other]


def test_the_settings_are_ones_that_exist(compose: dict[str, Any]) -> None:
    for name in ("orchestrator", "worker-1", "worker-2"):
        config, _ = load(None, compose["services"][name]["environment"])
        if name == "orchestrator":
            assert config.orchestrator.listen.endswith(":8080")
            assert config.orchestrator.token_file == "/run/secrets/token"
        else:
            assert config.worker.id == name
            assert config.worker.advertise == f"{name}:6000"
            assert config.worker.orchestrator == "orchestrator:5051"


def test_two_workers_share_nothing_but_the_engine(compose: dict[str, Any]) -> None:
    first, second = (set(compose["services"][name]["volumes"]) for name in ("worker-1", "worker-2"))
    assert {volume.rpartition(":")[2] for volume in first & second} == {"/var/run/docker.sock"}


def test_no_secret_is_in_the_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for key, value in service.get("environment", {}).items():
            assert "TOKEN" not in key or str(value).startswith("/run/secrets/"), key
            assert "amqp://" not in str(value)


def test_only_loopback_is_published(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_itself_accepts_it(tmp_path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("docker compose is not installed: the file's shape is checked above")
    copy = tmp_path / "compose.yaml"
    shutil.copy(ROOT / "compose.yaml", copy)
    subprocess.run(["docker", "compose", "-f", str(copy), "config", "-q"], check=True, timeout=30)


def test_the_secrets_are_made_once_and_fit(tmp_path: Path, compose: dict[str, Any]) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "compose-secrets"
    shutil.copy(ROOT / "bin" / "compose-secrets", script)
    made = []
    for _ in range(2):
        subprocess.run([script], check=True, capture_output=True)
        made.append({path.name: path.read_text() for path in (tmp_path / "compose-secrets").iterdir()})
    assert made[0] == made[1]
    assert {Path(secret["file"]).name for secret in compose["secrets"].values()} <= set(made[0])
    assert (tmp_path / "compose-secrets").stat().st_mode & 0o077 == 0
    url = tomllib.loads(made[0]["orchestrator.toml"])["orchestrator"]["broker_url"]
    password = made[0]["rabbitmq.conf"].split("default_pass = ")[1].strip()
    assert url == f"amqp://blacktree:{password}@rabbitmq/"
    assert len({made[0]["token"], made[0]["join-token"], password}) == 3

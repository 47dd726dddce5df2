"""compose.yaml: its shape, what it names, and the image it builds, from a base made here."""

import os
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


def engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.docker
@pytest.mark.timeout(240)
def test_the_image_is_built_from_a_base_made_here(tmp_path: Path) -> None:
    """No network: the base is this machine's Python with the locked packages, so pip finds everything in place."""
    from tests.parts.python_base import import_python_base

    if not engine_answers():
        if os.environ.get("CI") == "true":
            pytest.fail("no container engine answers")
        pytest.skip("no container engine answers")
    base, image = f"blacktree-test/python-{os.getpid()}", f"blacktree-test/compose-{os.getpid()}"
    context = tmp_path / "context"
    context.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        shutil.copy(ROOT / name, context)
    shutil.copytree(ROOT / "blacktree", context / "blacktree", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        import_python_base(base)
        command = ["docker", "build", "-q", "-f", str(ROOT / ".ci" / "Dockerfile"), "--build-arg", f"BASE={base}"]
        built = subprocess.run(
            [*command, "--network", "none", "-t", image, str(context)], capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stdout + built.stderr
        run = [
            "docker",
            "run",
            "--rm",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--tmpfs",
            "/tmp",
            "--network",
            "none",
            image,
        ]
        said = subprocess.run([*run, "config", "--json"], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        assert '"/var/lib/blacktree"' in said.stdout
        user = subprocess.run(
            [*run[:-1], "--entrypoint", "id", image, "-u"], capture_output=True, text=True, check=True
        )
        assert user.stdout.strip() == "10001"
    finally:
        subprocess.run(["docker", "rmi", "-f", image, base], capture_output=True, check=False)

"""One moto for all, empty for each test; and no credentials but the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.moto import moto_server, reset


@pytest.fixture(scope="session")
def _moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def moto(_moto: str, aws_environment: None) -> str:
    reset(_moto)
    return _moto


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws-credentials"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)

"""No test finds a farm of whoever runs it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_farm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "ORCHESTRATOR_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    # Short: one that is too long for a socket's path is not used, and then there is the machine's own.
    with tempfile.TemporaryDirectory(prefix="bt-") as run:
        monkeypatch.setenv("XDG_RUNTIME_DIR", run)
        yield

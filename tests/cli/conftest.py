"""No test finds a farm of whoever runs it."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_farm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "ORCHESTRATOR_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)

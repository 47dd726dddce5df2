"""Fixtures that every room of the tests may use. Real parts live in `tests/parts`, one file each."""

import pytest


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it."""
    import os

    for name in list(os.environ):
        if name.startswith("BLACKTREE_") or name in ("MQ_URL", "ORCHESTRATOR_ADDR", "WORKER_ID", "NOTIFY_SOCKET"):
            monkeypatch.delenv(name)

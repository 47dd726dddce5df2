"""What `up` hands to its worker: nothing of what makes a client of this shell."""

import pytest

from blacktree.cli.up import worker_environment
from blacktree.config import Config


def test_the_worker_inherits_no_token_of_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKTREE_TOKEN", "of the door")
    monkeypatch.setenv("BLACKTREE_SERVER", "http://elsewhere:8080")
    monkeypatch.setenv("BLACKTREE_WORKER_POOL", "arm")
    environ = worker_environment(Config())
    assert environ["BLACKTREE_WORKER_POOL"] == "arm"
    assert not {"BLACKTREE_TOKEN", "BLACKTREE_SERVER"} & set(environ)

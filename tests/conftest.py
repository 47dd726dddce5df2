"""Fixtures that every room of the tests may use. Real parts live in `tests/parts`, one file each."""

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Rich draws a traceback with all of its source and locals: a tenth of a second of work for each error that is logged.
structlog.get_config()["processors"][-1].exception_formatter = structlog.dev.plain_traceback

# How long a machine takes decides no test.
settings.register_profile("farm", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farm")

LONGEST = (
    *("scenarios/test_engine", "cli/test_up", "scenarios/test_queue", "system/test_several_machines"),
    *("system/test_scaling_containers", "system/test_bad_input", "system/test_builds", "scenarios/test_leases"),
    *("worker/test_replica_restart", "scenarios/test_deployments", "scenarios/test_stages", "scenarios/test_push"),
    *("system/test_deploy_command", "worker/test_replicas", "bench/test_smoke", "scenarios/test_random"),
    *("system/test_readme", "viewer/test_access", "system/test_demo", "scenarios/test_scaling", "scenarios/test_disk"),
    *("providers/docker/test_build", "scenarios/test_failover", "viewer/test_log", "viewer/test_trouble"),
)
"""Files that take longest, longest first: begun last, one of them would keep a single process busy at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; `bin/test` keeps this order."""
    places = {f"tests/{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it."""
    import os

    for name in list(os.environ):
        if name.startswith("BLACKTREE_") or name in ("MQ_URL", "ORCHESTRATOR_ADDR", "WORKER_ID", "NOTIFY_SOCKET"):
            monkeypatch.delenv(name)

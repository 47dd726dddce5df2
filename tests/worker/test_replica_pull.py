"""Images from a real registry, and an orchestrator that knows nothing of replicas."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from blacktree.rpc import handlers
from blacktree.rpc.replica import RegistryLogin
from blacktree.runspec import Restart
from tests.parts.orchestrator_side import an_assignment
from tests.parts.registry import can_start_registries, registry
from tests.parts.replicas import ReplicaPart, a_run, an_order, docker, named, orders
from tests.worker.test_daemon import a_worker
from tests.worker.test_replicas import base, keeping

__all__ = ["base"]


@pytest.mark.docker
@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="no docker-registry here")
async def test_pulled_by_digest_with_a_login(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = ReplicaPart()
    # The worker's own logins must not help.
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nothing"))
    run = a_run(command=["sleep", "600"], restart=Restart(first_seconds=0.1, most=0))
    with registry({"alice": "wonderland"}) as there:
        tag = f"{there.host}/replica/app:1"
        config = tmp_path / "docker"
        await docker("tag", base, tag)
        await docker("--config", str(config), "login", "-u", "alice", "-p", "wonderland", there.host)
        pushed = await docker("--config", str(config), "push", tag)
        digest = pushed.partition("digest: ")[2].split()[0]
        await docker("rmi", tag)
        image = f"{there.host}/replica/app@{digest}"
        await docker("rmi", image)
        async with keeping(tmp_path, part) as side:
            right = {there.host: RegistryLogin(username="alice", password="wonderland")}
            wrong = {there.host: RegistryLogin(username="alice", password="looking-glass")}
            try:
                await side.apply_replicas(orders(an_order(image, run, named(1, 0), pull=True, logins=wrong)))
                state = await part.state(named(1, 0), "failed")
                assert "unauthorized" in state.reason or "no basic auth" in state.reason, state
                assert "looking-glass" not in repr(part.replica_reports)
                missing = f"{there.host}/replica/none:1"
                await side.apply_replicas(
                    orders(
                        an_order(image, run, named(1, 1), pull=True, logins=right),
                        an_order(missing, run, named(1, 2), pull=True, logins=right),
                    )
                )
                await part.state(named(1, 1), "healthy")
                assert (await part.state(named(1, 2), "failed")).code == "image_missing"
                kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
                assert b"wonderland" not in kept
            finally:
                await side.apply_replicas(orders())
                await part.gone()
                await docker("rmi", image)


async def test_an_older_orchestrator_is_served_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = ReplicaPart()
    calls = handlers.orchestrator_calls

    def older(side: Any) -> Any:
        return {path: call for path, call in calls(side).items() if "Replicas" not in path}

    monkeypatch.setattr("blacktree.rpc.server.orchestrator_calls", older)
    with capture_logs() as logs:
        async with a_worker(tmp_path, part) as (side, _):
            # It would not order any; whatever is left of a newer one's orders is kept going.
            await side.apply_replicas(orders(an_order("app:1", a_run())))
            assignment = an_assignment()
            await side.run_jobs([assignment])
            assert (await part.outcome(assignment.name)).state == "succeeded"
            await part.until(lambda: any("knows nothing of replicas" in each["event"] for each in logs))
    assert sum("knows nothing of replicas" in each["event"] for each in logs) == 1


async def test_scripted_replicas_are_kept_like_real_ones(tmp_path: Path) -> None:
    part = ReplicaPart()
    run = a_run(command=["print", "dying", "exit", "3"], restart=Restart(first_seconds=0.1, limit_seconds=0.1, most=1))
    async with a_worker(tmp_path, part) as (side, _):
        assert part.registrations[0].capabilities == ["replicas", "replicas-kept"]
        await side.apply_replicas(orders(an_order("app:1", run)))
        state = await part.state(named(), "failed")
        assert (state.code, state.exit_code, state.restarts) == ("budget_used_up", 3, 1)
        await part.until(lambda: part.text(named()) == "dying\ndying\n")
        await side.apply_replicas(orders())
        await part.gone()

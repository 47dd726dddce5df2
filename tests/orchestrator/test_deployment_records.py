"""What is on record of deployments: deleted, found again, and what they need that cannot be had."""

from pathlib import Path

import pytest
import trio

from blacktree.cipher import Locked, new_key
from blacktree.clock import now
from blacktree.deployment import Version
from blacktree.errors import BadRequest, Conflict, NotFound, StorageFailed, TooLarge
from blacktree.orchestrator.orders import Plan
from blacktree.rpc.replica import ReplicaName
from blacktree.secret import SecretKind
from blacktree.source import Source
from tests.orchestrator.conftest import House, open_house
from tests.orchestrator.deploying import a_run, a_worker, deploy, until, until_event


async def test_secrets_reach_the_worker_and_missing_ones_are_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()], memory=True) as house:
        await secrets_reach_the_worker(house)


async def secrets_reach_the_worker(house: House) -> None:
    worker = await a_worker(house)
    await house.control.secrets.put("db-password", b"very secret", kind=SecretKind.RUN)
    await house.control.secrets.put("registry.example", b'{"username": "u", "password": "p"}', kind=SecretKind.REGISTRY)
    with pytest.raises(BadRequest) as caught:
        await deploy(house, secrets=["other"])
    assert caught.value.code == "unknown_secret"
    await deploy(house, secrets=["db-password"])
    await until(house, lambda view: view.deployment.serving == 1)
    order = worker.order(1)
    assert order is not None
    assert order.secrets == {"db-password": b"very secret"}
    assert order.logins["registry.example"].password == "p"


async def test_a_stopped_deployment_is_deleted_and_its_name_begins_anew(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()]) as house:
        worker = await a_worker(house)
        for name in ("own", "shared", "declared"):
            await house.control.secrets.put(name, b"very secret", kind=SecretKind.RUN)
        await house.control.sources.add(
            Source(name="app", repository="https://x.example/app.git", run=a_run("app", secrets=["declared"]))
        )
        await deploy(house, name="other", secrets=["shared"])
        await deploy(house, secrets=["own", "shared", "declared"])
        view = await until(house, lambda view: view.deployment.serving == 1)
        order = worker.order(1)
        assert order is not None
        worker.say(ReplicaName(deployment="web", version=1, index=0), view.deployment.placements[0].generation, "old")
        await until_event(house, lambda event: event.get("line") == "old")
        deployments = house.control.deployments
        with pytest.raises(Conflict) as caught:
            await deployments.delete("web")
        assert (caught.value.code, "blacktree stop web" in caught.value.advice) == ("not_stopped", True)
        await deployments.stop("web")
        was = await deployments.delete("web", secrets=True)
        assert was.deployment.state == "stopped"
        for gone in (deployments.get("web"), deployments.events("web", 1, 10), deployments.delete("web")):
            with pytest.raises(NotFound):
                await gone
        with pytest.raises(NotFound):
            await deployments.kept._store.get("run.web")
        assert [each.name for each in await house.control.secrets.listed()] == ["declared", "shared"]
        assert [each.deployment.name for each in await deployments.all()] == ["other"]
        # A worker that still has words of the old one is told that they are not wanted.
        worker.say(ReplicaName(deployment="web", version=1, index=0), 1, "late")
        with trio.fail_after(40):
            while worker.logs:
                await trio.sleep(0.02)
        await deploy(house)
        view = await until(house, lambda view: view.deployment.serving == 1)
        # No container of the old one can be taken for one of these.
        assert view.deployment.placements[0].generation > was.deployment.versions[0].generation + 1
        found = await until_event(house, lambda event: event.get("to") == "running")
        assert [(event["seq"], event.get("line")) for event in found] == [(number, None) for number in range(1, 4)]
        assert "deployment_deleted" in [event.type for event in await house.control.farm_events(1, 100)]


async def test_a_deletion_that_was_cut_short_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        await a_worker(house)
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        await house.control.deployments.stop("web")

        async def fail(name: str) -> None:
            raise StorageFailed("no space left")

        monkeypatch.setattr(house.control.deployments.kept.logs, "drop", fail)
        with pytest.raises(StorageFailed):
            await house.control.deployments.delete("web")
        with pytest.raises(NotFound):
            await house.control.deployments.get("web")
    async with open_house(tmp_path) as house:
        kept = house.control.deployments.kept
        assert await kept._store.documents("deployment") == []
        with pytest.raises(NotFound):
            await kept._store.get("run.web")


async def test_everything_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        worker = await a_worker(house, "one")
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        order = worker.order(1)
        assert order is not None
        worker.say(order.name, order.generation, "before")
        await until_event(house, lambda event: event.get("line") == "before")
        revision = worker.orders_given.revision
        orders = worker.orders_given.orders
    # The orchestrator's end has touched nothing.
    assert worker.orders_given.orders == orders
    async with open_house(tmp_path) as house:
        view = await house.control.deployments.get("web")
        assert (view.deployment.serving, view.replicas[0].state) == (1, "unknown")
        again = await a_worker(house, "one", secret=worker.secret)
        await until(house, lambda view: view.replicas[0].state == "healthy")
        assert again.orders_given.revision > revision
        order = again.order(1)
        assert order is not None
        again.numbers[order.name, order.generation] = 1
        again.say(order.name, order.generation, "after")
        found = await until_event(house, lambda event: event.get("line") == "after")
        assert [event["line"] for event in found if event["type"] == "log"] == ["before", "after"]
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))


async def test_what_has_no_room_in_a_workers_list_is_refused_and_blocks_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()], memory=True) as house:
        worker = await a_worker(house)
        names = [f"web-{number}" for number in range(8)]
        for name in names:
            await house.control.secrets.put(name, b"x", kind=SecretKind.RUN)
            await house.control.secrets.put(f"{name}-more", b"x", kind=SecretKind.RUN)
            await deploy(house, name=name, secrets=[name, f"{name}-more"])
            await until(house, lambda view: view.deployment.serving == 1, name)
        for name in names:
            # They grow afterwards.
            await house.control.secrets.put(name, b"x" * 250_000, kind=SecretKind.RUN)
            await house.control.secrets.put(f"{name}-more", b"x" * 270_000, kind=SecretKind.RUN)
        await house.control.secrets.put("small", b"x" * 400_000, kind=SecretKind.RUN)
        with pytest.raises(TooLarge) as caught:
            await deploy(house, name="late", secrets=["small"])
        assert caught.value.code == "worker_full"
        kept = house.control.deployments.kept
        run = a_run("late", secrets=["small"])
        await kept.record.add(Version(number=0, run=run, created_at=now(), image="registry.example/app:1", pull=True))
        await until(house, lambda view: bool(view.replicas) and view.waiting.startswith("room in"), "late")
        assert await house.control.deployments.stop(names[0])
        left = {each.name.deployment for each in worker.orders_given.orders}
        assert left >= set(names[1:])
        assert names[0] not in left
        for name in names[1:3]:
            await house.control.deployments.stop(name)
        await until(house, lambda view: view.deployment.serving == 1, "late")
        assert {each.name.deployment for each in worker.orders_given.orders} == {*names[3:], "late"}


async def test_what_cannot_be_read_is_not_started_and_what_runs_goes_on(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()], memory=True) as house:
        worker = await a_worker(house)
        kept = house.control.deployments.kept
        await house.control.secrets.put("word", b"secret", kind=SecretKind.RUN)
        await deploy(house, secrets=["word"])
        await until(house, lambda view: view.deployment.serving == 1)
        secrets = kept._couriers._secrets
        read = secrets.of

        async def locked(plan: Plan) -> dict[str, bytes]:
            if plan.run.secrets:
                raise Locked("its key is not here", code="secret_locked")
            return dict(await read(plan))

        secrets.of = locked
        await deploy(house, name="new", secrets=["word"])
        await until(house, lambda view: "its key is not here" in view.waiting, "new")
        await deploy(house, name="plain")
        await until(house, lambda view: view.deployment.serving == 1, "plain")
        before = worker.order(1)
        assert before is not None
        await house.control.deployments.restart("web")
        await deploy(house, name="plainer")
        await until(house, lambda view: view.deployment.serving == 1, "plainer")
        orders = {each.name.deployment: each for each in worker.orders_given.orders}
        assert set(orders) == {"web", "plain", "plainer"}
        assert (orders["web"].generation, orders["web"].secrets) == (1, {})
        assert {name.deployment for name in worker.states} == {"web", "plain", "plainer"}
        secrets.of = read
        view = await until(house, lambda view: view.deployment.serving == 1, "new")
        assert view.waiting == ""
        orders = {each.name.deployment: each for each in worker.orders_given.orders}
        assert orders["web"].generation == 2
        assert orders["web"].secrets == orders["new"].secrets == {"word": b"secret"}

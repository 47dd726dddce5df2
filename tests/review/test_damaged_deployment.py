"""A deployment whose record cannot be read: what runs of it stays, and all the others are cared for."""

import sqlite3
from pathlib import Path

import pytest
import trio

from blacktree.errors import StorageFailed
from blacktree.orchestrator.deploymentdesk import DeploymentDesk
from blacktree.rpc.replica import CAPABILITY
from blacktree.runspec import Port
from tests.orchestrator.conftest import TOKEN, House, open_house
from tests.orchestrator.deploying import a_worker, deploy, state, until
from tests.parts.farm import SLOW
from tests.parts.toy_replicas import ToyReplicas


def damage(directory: Path, name: str) -> None:
    with sqlite3.connect(directory / "state" / "blacktree.db", timeout=SLOW) as connection:
        connection.execute("UPDATE document SET body = ? WHERE kind = 'deployment' AND name = ?", (b"\xc1", name))


async def back(house: House, before: ToyReplicas, **options: list[str]) -> ToyReplicas:
    """The worker of an earlier farm, with what it was told there."""
    worker = ToyReplicas(before.id, secret=before.secret)
    worker.orders_given = before.orders_given
    worker.capabilities = options.get("capabilities", worker.capabilities)
    await house.nursery.start(worker.run, house.address, TOKEN, house.directory)
    return worker


def told(worker: ToyReplicas) -> list[tuple[str, str]]:
    """What it should run: deployment and image."""
    return sorted((each.name.deployment, each.image.partition("/")[2]) for each in worker.orders_given.orders)


async def until_told(worker: ToyReplicas, *expected: tuple[str, str]) -> None:
    with trio.move_on_after(SLOW):
        while told(worker) != sorted(expected):
            await trio.sleep(0.01)
    assert told(worker) == sorted(expected)


async def test_the_others_go_on(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        before = await a_worker(house, "one")
        await deploy(house, ports=[Port(host=8080, container=80)])
        await deploy(house, name="other", ports=[Port(host=8081, container=80)])
        await until(house, lambda view: view.deployment.serving == 1)
        await until(house, lambda view: view.deployment.serving == 1, "other")
    damage(tmp_path, "web")
    async with open_house(tmp_path) as house:
        worker = await back(house, before)
        deployments = house.control.deployments
        assert [each.deployment.name for each in await deployments.all()] == ["other"]
        with pytest.raises(StorageFailed) as caught:
            await deployments.get("web")
        assert "deployments delete web" in str(caught.value.advice)
        assert "web cannot be read" in house.control.readiness().reasons[0]
        # Its own port is its own; it is replaced, and the damaged one stays as it is.
        await deploy(house, "registry.example/app:2", name="other", ports=[Port(host=8081, container=80)])
        await until(house, lambda view: state(view, 1) == "stopped", "other")
        await deploy(house, name="portless")
        await until(house, lambda view: view.deployment.serving == 1, "portless")
        everything = ("other", "app:2"), ("portless", "app:1"), ("web", "app:1")
        await until_told(worker, *everything)
        with trio.fail_after(SLOW):
            while "deployment_damaged" not in [each.type for each in await house.control.farm_events(1, 1000)]:
                await trio.sleep(0.01)
        # Nobody knows which ports it has: a stranger to them waits.
        await deploy(house, name="ported", ports=[Port(host=8082, container=80)])
        await deployments.stop("portless")
        assert state(await deployments.get("ported"), 1) == "built"
        assert told(worker) == [("other", "app:2"), ("web", "app:1")]
        job = await house.submit()
        await worker.end(await worker.next_assignment())
        assert (await house.finished(job)).state == "succeeded"
        # Given up, it leaves the list.
        await deployments.delete("web")
        await until(house, lambda view: view.deployment.serving == 1, "ported")
        await until_told(worker, ("other", "app:2"), ("ported", "app:1"))
        assert house.control.readiness().reasons == []


async def test_where_none_of_it_is_ports_are_free(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        before = await a_worker(house, "one")
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
    damage(tmp_path, "web")
    async with open_house(tmp_path) as house:
        worker = await back(house, before)
        free = await a_worker(house, "two")
        await deploy(house, name="ported", ports=[Port(host=8082, container=80)])
        await until(house, lambda view: view.deployment.serving == 1, "ported")
        await until_told(free, ("ported", "app:1"))
        await until_told(worker, ("web", "app:1"))
        # And what has it is not scaled away.
        desk = house.control.deployments
        assert isinstance(desk, DeploymentDesk)
        assert "one" in desk.kept.placed()


async def test_an_older_worker_is_told_nothing_that_would_end_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        before = await a_worker(house, "one")
        await deploy(house)
        await deploy(house, name="other")
        await until(house, lambda view: view.deployment.serving == 1)
        await until(house, lambda view: view.deployment.serving == 1, "other")
    damage(tmp_path, "web")
    async with open_house(tmp_path) as house:
        worker = await back(house, before, capabilities=[CAPABILITY])
        newer = await a_worker(house, "two")
        await deploy(house, "registry.example/app:2", name="third")
        await deploy(house, "registry.example/app:2", name="fourth")
        await until_told(newer, ("fourth", "app:2"), ("third", "app:2"))
        assert worker.orders_given is before.orders_given
        await house.control.deployments.delete("web")
        with trio.fail_after(SLOW):
            while worker.orders_given is before.orders_given:
                await trio.sleep(0.01)
        assert "web" not in [name for name, _ in told(worker)]


async def test_one_that_is_damaged_while_it_runs_is_put_aside(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        worker = await a_worker(house, "one")
        await deploy(house)
        await deploy(house, name="other")
        await until(house, lambda view: view.deployment.serving == 1)
        await until(house, lambda view: view.deployment.serving == 1, "other")
        damage(tmp_path, "web")
        with pytest.raises(StorageFailed):
            await deploy(house, "registry.example/app:2")
        await deploy(house, "registry.example/app:2", name="other")
        await until(house, lambda view: state(view, 1) == "stopped", "other")
        await until_told(worker, ("other", "app:2"), ("web", "app:1"))
        assert "web cannot be read" in house.control.readiness().reasons[0]

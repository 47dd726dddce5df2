"""Deployments through a real orchestrator: orders and reports, and workers that come and go."""

from pathlib import Path

import pytest
import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import Conflict, NotFound
from blacktree.runspec import Port, Volume
from tests.orchestrator.conftest import TOKEN, House, open_house
from tests.orchestrator.deploying import a_worker, deploy, state, until, until_event
from tests.parts.rabbit import shared_node
from tests.parts.stranger import Stranger
from tests.parts.toy_replicas import ToyReplicas


async def test_an_image_is_deployed_replaced_and_stopped(house: House) -> None:
    worker = await a_worker(house)
    assert await deploy(house) == 1
    view = await until(house, lambda view: view.deployment.serving == 1 and view.replicas[0].serving)
    order = worker.order(1)
    assert order is not None
    assert (order.image, order.pull, order.serve) == ("registry.example/app:1", True, True)
    assert view.replicas[0].state == "healthy"
    await deploy(house, "registry.example/app:2")
    await until(house, lambda view: state(view, 1) == "stopped")
    assert worker.order(1) is None
    assert all(len(served) <= 1 for served in worker.history)
    stopped = await house.control.deployments.stop("web")
    assert (stopped.deployment.state, stopped.replicas) == ("stopped", [])
    assert worker.orders_given.orders == []
    found = await until_event(house, lambda event: event.get("to") == "stopped" and event["attempt"] == 2)
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    moves = [(event["attempt"], event["to"]) for event in found if event["type"] == "state"]
    assert moves == [
        (1, "pending"), (1, "built"), (1, "running"),
        (2, "pending"), (2, "built"), (2, "running"),
        (1, "stopped"), (2, "stopped"),
    ]  # fmt: skip
    told = [event.type for event in await house.control.farm_events(1, 100)]
    assert told.count("deployment_running") == 2
    assert house.control.figures()["deployments"]["stopped"] == 1


async def test_a_version_that_breaks_leaves_the_old_one_alone(house: House) -> None:
    worker = await a_worker(house)
    await deploy(house)
    await until(house, lambda view: view.deployment.serving == 1)
    worker.fare(2, state="failed", reason="no such file", exit_code=127, last_lines=["sh: app: not found"])
    await deploy(house, "registry.example/app:2")
    view = await until(house, lambda view: state(view, 2) == "failed")
    version = view.deployment.version(2)
    assert version is not None
    assert (version.reason, version.last_lines) == ("no such file", ["sh: app: not found"])
    assert view.deployment.serving == 1
    assert all(served <= {1} for served in worker.history)


async def test_ports_of_another_deployment_are_refused(house: House) -> None:
    await a_worker(house)
    await deploy(house, ports=[Port(container=80, host=8080)])
    await until(house, lambda view: view.deployment.serving == 1)
    with pytest.raises(Conflict) as caught:
        await deploy(house, name="other", ports=[Port(container=80, host=8080, address="0.0.0.0")])
    assert caught.value.code == "port_taken"
    with pytest.raises(NotFound):
        await house.control.deployments.get("other")


async def test_restart_and_rollback(house: House) -> None:
    worker = await a_worker(house)
    await deploy(house, "registry.example/app:1")
    await until(house, lambda view: view.deployment.serving == 1)
    await deploy(house, "registry.example/app:2")
    await until(house, lambda view: view.deployment.serving == 2)
    before = worker.order(2)
    await house.control.deployments.restart("web")
    await until(house, lambda view: not view.deployment.version(2).restarting)
    with trio.fail_after(40):
        while (after := worker.order(2)) is None or before is None or after.generation == before.generation:
            await trio.sleep(0.01)
    done = await house.control.deployments.rollback("web")
    assert done.version == 3
    await until(house, lambda view: view.deployment.serving == 3)
    order = worker.order(3)
    assert order is not None
    assert order.image == "registry.example/app:1"


async def test_a_worker_that_comes_back_gets_the_complete_list(house: House) -> None:
    worker = await a_worker(house, "one")
    await deploy(house)
    await until(house, lambda view: view.deployment.serving == 1)
    revision = worker.orders_given.revision
    again = ToyReplicas("one", secret=worker.secret)
    worker.silent = True
    await house.nursery.start(again.run, house.address, TOKEN, house.directory)
    with trio.fail_after(40):
        while again.order(1) is None:
            await trio.sleep(0.01)
    assert again.orders_given.revision >= revision


async def test_it_starts_elsewhere_when_its_worker_is_silent_for_long(house: House) -> None:
    first = await a_worker(house)
    await deploy(house, failover_seconds=10)
    await until(house, lambda view: view.deployment.serving == 1)
    second = await a_worker(house)
    first.mute = True
    kept = house.control.deployments.kept
    # Ten seconds are the least that may be asked for; the test does not wait for them.
    kept.sightings.seen[first.id].at -= 9.5
    with trio.fail_after(40):
        while second.order(1) is None:
            await trio.sleep(0.02)
    with trio.fail_after(40):
        while first.orders_given.orders:
            await trio.sleep(0.02)
    assert (await house.control.deployments.get("web")).replicas[0].worker_id == second.id


async def test_a_drained_worker_gives_away_what_others_can_take(house: House) -> None:
    first = await a_worker(house)
    await deploy(house)
    await until(house, lambda view: view.deployment.serving == 1)
    await deploy(house, name="data", volumes=[Volume(source="shop-data", target="/data")])
    await until(house, lambda view: view.deployment.serving == 1, "data")
    second = await a_worker(house)
    drained = await house.control.drain(first.id, True)
    rows = {each.deployment: (each.to, each.reason) for each in drained.leaving}
    assert rows["web"] == (second.id, "")
    assert rows["data"] == ("", "its volumes are on this worker; with `failover_seconds` it may start without them")
    view = await until(
        house, lambda view: [(each.worker_id, each.state) for each in view.replicas] == [(second.id, "healthy")]
    )
    assert view.deployment.serving == 1
    assert [each.name.deployment for each in first.orders_given.orders] == ["data"]
    events = await until_event(house, lambda event: event.get("code") == "moved")
    codes = [event["code"] for event in events if event["type"] == "notice"]
    assert codes == ["move", "moved"]
    (still,) = next(each for each in house.control.workers() if each.id == first.id).leaving
    assert (still.deployment, still.to) == ("data", "")
    assert (await house.control.drain(first.id, False)).leaving == []


@pytest.mark.rabbitmq
async def test_versions_are_told_on_the_status_queue(tmp_path: Path) -> None:
    node = await in_thread(shared_node)
    await in_thread(node.clear)
    async with open_house(tmp_path, memory=True, broker_url=node.url) as house:
        while house.control.readiness().state != "ready":
            await trio.sleep(0.05)
        worker = await a_worker(house)
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        worker.fare(2, state="failed", reason="broken", last_lines=["last words"])
        await deploy(house, "registry.example/app:2")
        await until(house, lambda view: state(view, 2) == "failed")
        got = await Stranger(node.url).take("status.queue", 2)
    assert [each.message_id.partition("/")[0] for each in got] == ["run.web", "run.web"]
    runs, failed = [each.value for each in got]
    assert (runs["deploymentId"], runs["success"], runs["state"], runs["version"]) == ("web", True, "running", 1)
    assert (runs["imageUrl"], runs["error"]) == ("registry.example/app:1", None)
    assert (failed["success"], failed["error"], failed["logs"]) == (False, "broken", "last words")
    assert failed["deployment"]["version"]["state"] == "failed"

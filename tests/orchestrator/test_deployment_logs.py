"""The log of a deployment: one sequence, followed, and dropped at its old end."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from blacktree.api.deploymentlog import watch_deployment
from blacktree.errors import NotFound
from blacktree.rpc.replica import ReplicaName
from tests.orchestrator.conftest import House, open_house
from tests.orchestrator.deploying import a_worker, deploy, events, until


async def test_logs_are_one_sequence_without_doubles_and_are_followed(house: House) -> None:
    worker = await a_worker(house)
    await deploy(house, replicas=2)
    await until(house, lambda view: view.deployment.serving == 1)
    names = [ReplicaName(deployment="web", version=1, index=index) for index in (0, 1)]
    generations = {each.name: each.generation for each in worker.orders_given.orders}
    read: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            async with house.control.deployments.follow("web", 1) as reader:
                async for piece in reader:
                    read.extend(msgspec.json.decode(b"[" + piece.body + b"]"))

        nursery.start_soon(follow)
        for number in range(20):
            worker.say(names[number % 2], generations[names[number % 2]], f"line {number}")
            if number % 5 == 0:
                # As when the answer was lost: everything is told again.
                worker.logs += worker.logs
            await worker.report_all()
        with trio.fail_after(40):
            while sum(event["type"] == "log" for event in read) < 20:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    lines = [event for event in read if event["type"] == "log"]
    assert [event["line"] for event in lines] == [f"line {number}" for number in range(20)]
    assert [event["seq"] for event in read] == list(range(1, len(read) + 1))
    assert {event["step"] for event in lines} == {"1/0", "1/1"}
    assert {event["attempt"] for event in lines} == {1}
    begin, end = await house.control.deployments.text_size("web")
    text = await house.control.deployments.read_text("web", begin, end)
    assert text == "".join(f"line {number}\n" for number in range(20)).encode()
    # No list, count or door of jobs knows of it.
    assert (await house.control.jobs(())).jobs == []
    assert sum((await house.control.counts()).values()) == 0
    for call in (house.control.job, house.control.cancel, house.control.retry, house.control.text_size):
        with pytest.raises(NotFound):
            await call("run.web")


async def test_old_output_is_dropped_and_reading_begins_later(tmp_path: Path) -> None:
    async with open_house(tmp_path, runtime_log_bytes=1 << 20) as house:
        worker = await a_worker(house)
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        order = worker.order(1)
        assert order is not None
        for number in range(80):
            worker.say(order.name, order.generation, f"{number} ".ljust(50_000, "x"))
            await worker.report_all()
        first = await house.control.deployments.first_seq("web")
        assert first > 1
        found = await events(house)
        assert found[0]["seq"] == first
        assert [event["seq"] for event in found] == list(range(first, first + len(found)))
        begin, end = await house.control.deployments.text_size("web")
        assert end - begin <= 3 << 20
        assert (await house.control.deployments.read_text("web", begin, 10)).strip(b"x ").isdigit()


async def test_a_watcher_that_leaves_is_told_by_one_error_and_no_group(house: House) -> None:
    await deploy(house)

    async def reply(result: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def send(frame: object) -> None:
        raise trio.BrokenResourceError

    with pytest.raises(trio.BrokenResourceError), trio.fail_after(40):
        await watch_deployment(house.control.deployments, b'{"name":"web"}', 1, reply, send)

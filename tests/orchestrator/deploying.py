"""Deployments in tests: a worker that keeps them, orders to give, and waiting for what becomes of them."""

from typing import Any

import msgspec
import trio

from blacktree.deployment import DeployImage
from blacktree.orchestrator.deploymentcontrol import DeploymentView
from blacktree.runspec import RunSpec, Strategy
from tests.orchestrator.conftest import TOKEN, House
from tests.parts.toy_replicas import ToyReplicas

QUICK = Strategy(drain_seconds=0.1)


def a_run(name: str = "web", **changes: Any) -> RunSpec:
    return RunSpec(name=name, **{"strategy": QUICK, **changes})


async def a_worker(house: House, *args: Any, **options: Any) -> ToyReplicas:
    worker = ToyReplicas(*args, **options)
    await house.nursery.start(worker.run, house.address, TOKEN, house.directory)
    while any(view.id == worker.id and "reached" in view.refusal for view in house.control.workers()):
        await trio.sleep(0.005)
    return worker


async def deploy(house: House, image: str = "registry.example/app:1", **changes: Any) -> int:
    done = await house.control.deployments.deploy(DeployImage(image=image, run=a_run(**changes)))
    return done.version


async def until(house: House, fits: Any, name: str = "web") -> DeploymentView:
    """The deployment, once it is as wished."""
    version = 0
    view = await house.control.deployments.get(name)
    with trio.move_on_after(40):
        while not fits(view):
            version = await house.control.deployments.wait_changed(version)
            view = await house.control.deployments.get(name)
        return view
    raise AssertionError(f"still {msgspec.to_builtins(view)}")


def state(view: DeploymentView, number: int) -> str:
    version = view.deployment.version(number)
    return version.state if version is not None else "gone"


async def events(house: House, name: str = "web", from_seq: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while (piece := await house.control.deployments.events(name, from_seq, 1000)).count:
        found += msgspec.json.decode(b"[" + piece.body + b"]")
        from_seq = piece.next_seq
    return found


async def until_event(house: House, fits: Any, name: str = "web") -> list[dict[str, Any]]:
    with trio.fail_after(40):
        while not any(map(fits, found := await events(house, name))):
            await trio.sleep(0.02)
        return found

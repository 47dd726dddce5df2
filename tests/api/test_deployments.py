"""Deployments at the door: HTTP and websocket before a real orchestrator and a toy worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from blacktree.client import Client
from blacktree.client.deployments import delete, deploy, deployment, deployments, events, restart, rollback, stop
from blacktree.concurrency.island import open_island
from blacktree.errors import BadRequest, Conflict, NotFound
from tests.api.little import TOKEN, House
from tests.api.talk import ask, talking
from tests.api.test_real_desk import JOIN_TOKEN, real_house
from tests.parts.toy_replicas import ToyReplicas

RUN: dict[str, Any] = {"name": "web", "strategy": {"drain_seconds": 0.1}}
WANTED: dict[str, Any] = {"image": "registry.example/app:1", "run": RUN}


@asynccontextmanager
async def a_farm(directory: Path) -> AsyncIterator[tuple[House, ToyReplicas]]:
    async with open_island(), real_house(directory) as house, trio.open_nursery() as nursery:
        worker = ToyReplicas()
        await nursery.start(partial(worker.run, house.grpc, JOIN_TOKEN, directory))
        yield house, worker
        nursery.cancel_scope.cancel()


async def until(house: House, **wanted: Any) -> Any:
    """The deployment `web` as HTTP shows it, once these fields are so."""
    with trio.fail_after(40):
        while True:
            found = (await ask(house, "GET", "/api/v1/deployments/web")).json
            if all(found.get(name) == value for name, value in wanted.items()):
                return found
            await trio.sleep(0.02)


async def post(house: House, path: str, value: Any = None) -> Any:
    body = msgspec.json.encode(value) if value is not None else b""
    return await ask(house, "POST", path, headers={"Content-Type": "application/json"}, body=body)


async def test_http(tmp_path: Path) -> None:
    async with a_farm(tmp_path) as (house, worker):
        base = "/api/v1/deployments"
        assert (await ask(house, "GET", base)).json == {"deployments": []}
        answer = await post(house, base, WANTED)
        assert answer.status == 201
        assert answer.headers["location"] == f"{base}/web"
        assert (answer.json["version"], answer.json["from_seq"], answer.json["job"]) == (1, 1, None)
        found = await until(house, serving=1)
        assert (found["state"], found["target"], found["replicas"][0]["state"]) == ("running", None, "healthy")
        assert found["versions"][0]["image"] == "registry.example/app:1"
        assert "generation" not in found["versions"][0]
        order = worker.order(1)
        assert order is not None
        worker.say(order.name, order.generation, "hello", "world")
        with trio.fail_after(40):
            while (await ask(house, "GET", f"{base}/web/log")).body != b"hello\nworld\n":
                await trio.sleep(0.02)
        part = await ask(house, "GET", f"{base}/web/log", headers={"Range": "bytes=6-"})
        assert (part.status, part.body) == (206, b"world\n")
        seen = (await ask(house, "GET", f"{base}/web/events")).json["events"]
        said = [event["seq"] for event in seen if event["type"] == "log"]
        for query, hits in (
            ("text=WORLD", said[1:]),
            ("text=o&step=1/0&attempt=1", said),
            ("text=o&attempt=2", []),
            ("text=o&step=1/1", []),
            ("errors=1", []),
        ):
            found = (await ask(house, "GET", f"{base}/web/search?{query}")).json
            assert (found["hits"], found["next_seq"]) == (hits, None), query
        stretches = (await ask(house, "GET", f"{base}/web/outline?step=1/0")).json
        assert (stretches["stretches"], stretches["done"]) == ([[said[0], said[1], "1/0", 1]], True)
        async with talking(house) as talker:
            assert (await talker.result("deployment.search", {"name": "web", "text": "hello"}))["hits"] == said[:1]
            assert await talker.result("deployment.outline", {"name": "web", "step": "1/0"}) == stretches
        page = (await ask(house, "GET", f"{base}/web/events?from_seq=2&limit=2")).json
        assert [event["seq"] for event in page["events"]] == [2, 3]
        assert (page["next_seq"], page["first_seq"]) == (4, 1)
        assert (await post(house, base, {**WANTED, "image": "registry.example/app:2"})).json["version"] == 2
        await until(house, serving=2)
        assert (await post(house, f"{base}/web/restart")).status == 200
        back = await post(house, f"{base}/web/rollback", {"version": 1})
        assert (back.status, back.json["version"]) == (201, 3)
        await until(house, serving=3)
        assert (await post(house, f"{base}/web/stop")).json["state"] == "stopped"
        assert (await post(house, f"{base}/web/stop")).status == 200
        assert [each["name"] for each in (await ask(house, "GET", base)).json["deployments"]] == ["web"]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"image": "app"}, "spec.run"),
        ({"image": "app", "run": {"name": "Web"}}, "spec.run.name"),
        ({"image": "app it", "run": RUN}, "spec.image"),
        ({"image": "app", "run": RUN, "ref": "main"}, "spec.ref"),
        ({"image": "app", "run": {**RUN, "env": {"A=B": "c"}}}, "spec.run.env.A=B"),
        ({"image": "app", "run": {**RUN, "secrets": ["nowhere"]}}, "spec.run.secrets"),
        ({"image": "app", "run": {**RUN, "env": {"A": "x" * 32000, "B": "y" * 32000}}}, "spec.run"),
        ({"repository": "https://x.example/y"}, "spec.run"),
        ({"repository": "https://x.example/y", "run": RUN, "idempotency_kay": "k"}, "spec.idempotency_kay"),
    ],
)
async def test_bad_input_is_told_with_its_path(tmp_path: Path, value: Any, path: str) -> None:
    async with real_house(tmp_path) as house:
        answer = await post(house, "/api/v1/deployments", value)
        assert answer.status == 422, answer.body
        assert answer.json["path"] == path
        assert (await ask(house, "GET", "/api/v1/deployments")).json == {"deployments": []}


async def test_what_is_not_there(tmp_path: Path) -> None:
    async with real_house(tmp_path) as house:
        for path in ("web", "..", "x" * 300, "%00"):
            assert (await ask(house, "GET", f"/api/v1/deployments/{path}")).status == 404
        for path in ("web/events", "web/log"):
            assert (await ask(house, "GET", f"/api/v1/deployments/{path}")).status == 404
        for verb in ("stop", "restart", "rollback"):
            assert (await post(house, f"/api/v1/deployments/web/{verb}")).status == 404
        assert (await ask(house, "DELETE", "/api/v1/deployments/web")).status == 404
        assert (await ask(house, "PUT", "/api/v1/deployments/web")).status == 405
        assert (await ask(house, "GET", "/api/v1/jobs/run.web")).status == 404


async def test_the_client_and_its_watch(tmp_path: Path) -> None:
    async with a_farm(tmp_path) as (house, worker), Client(house.address, TOKEN) as client:
        with pytest.raises(NotFound):
            await deployment(client, "web")
        with pytest.raises(NotFound):
            async with client.watch_deployment("web"):
                pass
        done = await deploy(client, WANTED)
        seen: list[dict[str, Any]] = []
        shown: list[Any] = []
        async with client.watch_deployment("web") as watch:
            async for batch in watch:
                seen += batch.events
                shown.append(watch.deployment["serving"])
                order = worker.order(1)
                if order is not None and order.serve and not worker.numbers:
                    worker.say(order.name, order.generation, "printed")
                if any(event.get("line") == "printed" for event in seen) and shown[-1] == 1:
                    break
        assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
        assert [event["to"] for event in seen if event["type"] == "state"] == ["pending", "built", "running"]
        page = await events(client, "web", 1)
        assert page["events"][: len(seen)] == seen
        assert (await deployments(client))[0]["name"] == done["deployment"]["name"] == "web"
        with pytest.raises(Conflict):
            await rollback(client, "web")
        assert (await restart(client, "web"))["state"] == "running"
        assert (await stop(client, "web"))["state"] == "stopped"
        with pytest.raises(BadRequest):
            await deploy(client, {"image": "x", "run": {}})


async def test_a_repository_with_run_by_websocket(tmp_path: Path) -> None:
    async with a_farm(tmp_path) as (house, worker), talking(house) as talker:
        spec = {"repository": "https://x.example/y.git", "run": RUN}
        done = await talker.result("deployment.deploy", spec)
        assert done["version"] == 1
        assignment = await worker.next_assignment()
        assert assignment.name.job_id == done["job"]
        await worker.end(assignment)
        await until(house, serving=1)
        watching = await talker.result("deployment.watch", {"name": "web", "from_seq": 1 << 40})
        assert watching["first_seq"] == 1
        assert await talker.result("deployment.unwatch", {"watch": watching["watch"]}) == {}


async def test_deleting(tmp_path: Path) -> None:
    """Only what is stopped, by both doors."""
    async with a_farm(tmp_path) as (house, _), Client(house.address, TOKEN) as client:
        one = "/api/v1/deployments/web"
        assert (await ask(house, "DELETE", one)).status == 404
        await deploy(client, WANTED)
        await until(house, serving=1)
        answer = await ask(house, "DELETE", one)
        assert (answer.status, answer.json["code"]) == (409, "not_stopped")
        assert "blacktree stop web" in answer.json["advice"]
        assert (await ask(house, "DELETE", f"{one}?secrets=maybe")).json["code"] == "bad_query"
        await stop(client, "web")
        answer = await ask(house, "DELETE", f"{one}?secrets=true")
        assert (answer.status, answer.json["state"]) == (200, "stopped")
        assert (await ask(house, "GET", one)).status == 404
        await deploy(client, WANTED)
        await until(house, serving=1)
        with pytest.raises(Conflict):
            await delete(client, "web")
        await stop(client, "web")
        assert (await delete(client, "web"))["name"] == "web"
        assert await deployments(client) == []

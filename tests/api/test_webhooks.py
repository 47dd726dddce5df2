"""Webhooks and sources at the real door: let in by a signature alone, bounded, answered clearly."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.api import budget
from blacktree.cipher import new_key
from blacktree.client import Client
from blacktree.client.sources import add_source, edit_source, remove_source, source, sources
from blacktree.secret import SecretKind
from tests.api.little import TOKEN, House, open_house
from tests.api.talk import Answer, ask, talking
from tests.api.test_real_desk import real_house
from tests.parts import forge as forges
from tests.parts.forge import SECRET, push

URL = "https://git.example.org/team/app.git"
PATH = "/api/v1/webhooks/github"
SOURCE: dict[str, Any] = {"name": "app", "repository": URL, "webhook_secret": "hook"}


@asynccontextmanager
async def hooked(directory: Path, **door: Any) -> AsyncIterator[House]:
    async with real_house(directory, new_key(), **door) as house:
        await house.doors[0]._control.secrets.put("hook", SECRET, kind=SecretKind.WEBHOOK)
        answer = await ask(house, "POST", "/api/v1/sources", body=json.dumps(SOURCE).encode(), headers=JSON)
        assert answer.status == 201, answer.body
        yield house


JSON = {"Content-Type": "application/json"}
PROXIED: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"], "body_seconds": 600.0}


def begun(path: str, address: str) -> bytes:
    """Most of a body of the largest size, from this address."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {address}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n".encode() + b"x" * 190_000


async def send(house: House, body: bytes, path: str = PATH, **how: Any) -> Answer:
    headers = forges.headers("github", body, **{key: value for key, value in how.items() if key != "also"})
    return await ask(house, "POST", path, headers=headers | how.get("also", {}), body=body, token=False)


async def test_a_delivery_needs_no_token_but_a_signature(tmp_path: Path) -> None:
    async with hooked(tmp_path) as house:
        body = json.dumps(push("github", URL)).encode()
        answer = await send(house, body, delivery="d-1")
        assert (answer.status, answer.json["status"], answer.json["sources"]) == (202, "accepted", ["app"])
        answer = await send(house, body, f"{PATH}/app", delivery="d-1")
        assert (answer.status, answer.json["status"]) == (200, "known")
        answer = await send(house, body, secret=b"wrong")
        assert (answer.status, answer.json["code"]) == (401, "signature_wrong")
        answer = await ask(house, "POST", PATH, headers=JSON, body=body, token=False)
        assert (answer.status, answer.json["code"]) == (401, "signature_missing")
        answer = await send(house, b"{}", event="star")
        assert (answer.status, answer.json["status"]) == (202, "ignored")
        answer = await send(house, b"{}", event="ping")
        assert (answer.status, answer.json["status"]) == (200, "pong")
        answer = await send(house, b"{}", event="push")
        assert (answer.status, answer.json["code"]) == (400, "malformed")
        # Only this address, and only POST, is open.
        assert (await ask(house, "GET", PATH, token=False)).status == 401
        assert (await ask(house, "GET", PATH)).status == 405
        assert (await ask(house, "POST", "/api/v1/webhooks", headers=JSON, body=b"{}", token=False)).status == 401
        assert (await send(house, body, "/api/v1/webhooks/svn")).status == 404
        answer = await send(house, body, also={"content-type": "text/xml"})
        assert answer.status == 415
        # A browser that was lured here is refused as everywhere.
        answer = await send(house, body, also={"Host": "evil.example"})
        assert (answer.status, answer.json["code"]) == (403, "host_not_allowed")
        metrics = (await ask(house, "GET", "/metrics")).body.decode()
        assert 'blacktree_webhooks_total{result="accepted"} 1.0' in metrics


async def test_the_public_address_is_known_as_a_host(tmp_path: Path) -> None:
    async with hooked(tmp_path, public_url="https://farm.example.org") as house:
        body = json.dumps(push("github", URL)).encode()
        assert (await send(house, body, also={"Host": "farm.example.org"})).status == 202
        own = SOURCE | {"name": "own", "repository": "https://farm.example.org/team/app.git"}
        answer = await ask(house, "POST", "/api/v1/sources", body=json.dumps(own).encode(), headers=JSON)
        assert (answer.status, answer.json["code"]) == (422, "source_is_ourselves")


async def test_twenty_five_megabytes_are_refused_clearly(tmp_path: Path) -> None:
    async with hooked(tmp_path) as house:
        answer = await send(house, b"x" * (25 << 20))
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert str(8 << 20) in answer.json["detail"]
        # Without a length it is counted while it comes.
        answer = await send(house, b"x" * (25 << 20), also={"Transfer-Encoding": "chunked"})
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        large = push("github", URL, message="x" * (3 << 20))
        assert (await send(house, json.dumps(large).encode())).status == 202


# Each as the gate reads it; the login takes a body from anybody, too.
@pytest.mark.parametrize("path", [PATH, PATH.replace("w", "%77"), "/login"])
async def test_what_nobody_vouches_for_is_bounded_together(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SLOW_SECONDS", 3600.0)
    async with hooked(tmp_path, maximum_webhook_bytes=200_000, **PROXIED) as house:
        body = json.dumps(push("github", URL, message="x" * 70_000)).encode()
        async with AsyncExitStack() as stack:
            for number in range(4):
                stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", house.port))
                await stream.send_all(begun(path, f"192.0.2.{number // 2}"))
                if number == 1:
                    # One network has its part: it gets no more, another does.
                    while (await send(house, body, also={"X-Forwarded-For": "192.0.2.0"})).status != 503:
                        await trio.sleep(0.02)
                    assert (await send(house, body, also={"X-Forwarded-For": "192.0.2.9"})).status in (200, 202)
            while (answer := await send(house, body, also={"X-Forwarded-For": "192.0.2.9"})).status != 503:
                assert answer.json["status"] in ("accepted", "known")
            assert answer.json["code"] == "too_many_requests"
        while (await send(house, body, also={"X-Forwarded-For": "192.0.2.0"})).status == 503:
            await trio.sleep(0.02)
    assert house.doors[0]._budget._taken == {}


async def test_slow_uploads_of_one_network_make_way_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SLOW_SECONDS", 0.0)
    async with hooked(tmp_path, maximum_webhook_bytes=200_000, **PROXIED) as house, AsyncExitStack() as stack:
        streams = []
        for number, address in enumerate(["192.0.2.1", "192.0.2.2", "192.0.2.2"]):
            streams.append(await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", house.port)))
            await streams[-1].send_all(begun(PATH, address))
            while house.doors[0]._budget._left > 800_000 - 190_000 * (number + 1):
                await trio.sleep(0.01)
        body = json.dumps(push("github", URL, message="x" * 70_000)).encode()
        assert (await send(house, body, also={"X-Forwarded-For": "192.0.2.2"})).status == 202
        with trio.fail_after(40):
            assert b" 503 " in await streams[1].receive_some(100)
        for stream in (streams[0], streams[2]):
            await stream.send_all(b"x" * 10_000)
            with trio.fail_after(40):
                assert b" 401 " in await stream.receive_some(100)


async def test_slow_uploads_make_way_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SLOW_SECONDS", 0.0)
    async with hooked(tmp_path, maximum_webhook_bytes=200_000, **PROXIED) as house, AsyncExitStack() as stack:
        streams = []
        for number in range(4):
            streams.append(await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", house.port)))
            await streams[-1].send_all(begun(PATH, f"192.0.2.{number}"))
            while house.doors[0]._budget._left > 800_000 - 190_000 * (number + 1):
                await trio.sleep(0.01)
        body = json.dumps(push("github", URL, message="x" * 70_000)).encode()
        assert (await send(house, body)).status == 202
        # One made way, and was told; the others may go on.
        with trio.fail_after(40):
            assert b" 503 " in await streams[0].receive_some(100)
        for stream in streams[1:]:
            await stream.send_all(b"x" * 10_000)
            with trio.fail_after(40):
                assert b" 401 " in await stream.receive_some(100)


async def test_sources_over_http_and_websocket() -> None:
    async with open_house() as house:
        base = "/api/v1/sources"
        assert (await ask(house, "GET", base)).json == {"sources": []}
        answer = await ask(house, "POST", base, headers=JSON, body=json.dumps(SOURCE).encode())
        assert (answer.status, answer.json["repository"], answer.json["configured"]) == (201, URL, False)
        assert answer.headers["location"] == f"{base}/app"
        answer = await ask(house, "POST", base, headers=JSON, body=json.dumps(SOURCE).encode())
        assert answer.status == 409
        answer = await ask(house, "PATCH", f"{base}/app", headers=JSON, body=b'{"branches": ["main"]}')
        assert answer.json["branches"] == ["main"]
        for body, path in (
            (b'{"branchs": ["main"]}', "source.branchs"),
            (b'{"configured": true}', "source.configured"),
            (b'{"repository": "/srv/app"}', "source.repository"),
            (b'{"spec": {"ref": "main"}}', "source.spec.ref"),
            (b'{"spec": {"contxt": "."}}', "source.spec.contxt"),
            (b'{"forge_url": "file:///etc"}', "source.forge_url"),
        ):
            answer = await ask(house, "PATCH", f"{base}/app", headers=JSON, body=body)
            assert (answer.status, answer.json["path"]) == (422, path), answer.json
        answer = await ask(house, "PATCH", f"{base}/app", headers=JSON, body=b'{"name": "other"}')
        assert (answer.status, answer.json["path"]) == (409, "source.name")
        own = SOURCE | {"name": "own", "repository": f"http://127.0.0.1:{house.port}/team/app.git"}
        answer = await ask(house, "POST", base, headers=JSON, body=json.dumps(own).encode())
        assert answer.json["code"] == "source_is_ourselves"
        assert (await ask(house, "GET", f"{base}/nope")).status == 404
        assert (await ask(house, "GET", base, token=False)).status == 401
        async with talking(house) as talker:
            found = await talker.result("source.get", {"name": "app"})
            assert found == (await ask(house, "GET", f"{base}/app")).json
            assert (await talker.error("source.add", SOURCE))["code"] == -32002
            assert (await talker.error("source.edit", {"name": "app"}))["data"]["path"] == "params.changes"
            assert await talker.result("source.remove", {"name": "app"}) == found
            assert await talker.result("source.list") == {"sources": []}
        assert (await ask(house, "DELETE", f"{base}/app")).status == 404


async def test_sources_by_the_client() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        await add_source(client, SOURCE)
        await edit_source(client, "app", {"push": False, "tags": ["v*"]})
        assert (await source(client, "app"))["tags"] == ["v*"]
        assert [each["name"] for each in await sources(client)] == ["app"]
        await remove_source(client, "app")
        assert await sources(client) == []

"""Tokens at a real door: sessions, links, revoking, scopes, limits, proxies, and what goes on record."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio_websocket

from blacktree.api.auth import cookie_name
from blacktree.api.limits import Buckets, network_of
from blacktree.api.proxies import Proxies
from blacktree.client import Client
from blacktree.errors import BadRequest, Unavailable
from blacktree.job import JobState
from blacktree.role import Role
from blacktree.token import NewToken
from tests.api.little import SPEC, House, open_house
from tests.api.talk import Answer, ask, raw, talking, until
from tests.rpc.certificates import Authority

SLOW = 100.0
JSON = {"Content-Type": "application/json"}
OTHER: dict[str, Any] = {"repository": "https://example.test/others/app.git"}
TEAM = ["example.test/team/**"]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def token(house: House, role: Role = Role.ADMIN, repositories: list[str] | None = None, name: str = "ci") -> str:
    wanted = NewToken(name=name, role=role, repositories=repositories or [])
    return (await house.control.tokens.create(wanted))[1]


async def log_in(house: House, query: str) -> Answer:
    return await ask(house, "GET", f"/login{query}", token=False)


def cookie(house: House, answer: Answer) -> dict[str, str]:
    assert answer.status == 303, answer.body
    pair = answer.headers["set-cookie"].partition(";")[0]
    assert pair.startswith(cookie_name(house.port))
    return {"Cookie": pair, "Origin": f"http://127.0.0.1:{house.port}", "Host": f"127.0.0.1:{house.port}"}


async def submitted(house: House, headers: dict[str, str], spec: dict[str, Any] = SPEC, **more: str) -> Answer:
    body = json.dumps(spec).encode()
    return await ask(house, "POST", "/api/v1/jobs", headers={**JSON, **headers, **more}, body=body, token=False)


async def test_a_link_lets_one_browser_in_once_and_ends_with_its_token() -> None:
    async with open_house(seconds=SLOW) as house:
        secret = await token(house, Role.VIEW)
        made = await ask(house, "POST", "/api/v1/login-links", headers=bearer(secret), token=False)
        assert made.status == 201
        query = "?" + made.json["url"].partition("?")[2]
        assert made.json["url"].startswith(f"http://127.0.0.1:{house.port}/login?token=")
        first, second = await log_in(house, query), await log_in(house, query)
        assert (first.status, second.status) == (303, 401)
        session = cookie(house, first)
        assert "Secure" not in first.headers["set-cookie"]
        itself = (await ask(house, "GET", "/api/v1/tokens/self", headers=session, token=False)).json
        assert (itself["name"], itself["role"]) == ("ci", "view")
        assert (await submitted(house, session)).json["code"] == "role_missing"
        await house.control.tokens.revoke("ci")
        assert (await ask(house, "GET", "/api/v1/jobs", headers=session, token=False)).status == 401
        # A code outlives nobody: made before, used after.
        again = await token(house, name="again")
        link = (await ask(house, "POST", "/api/v1/login-links", headers=bearer(again), token=False)).json["url"]
        await house.control.tokens.revoke("again")
        assert (await log_in(house, "?" + link.partition("?")[2])).status == 401


async def test_links_for_other_tokens_are_the_admins() -> None:
    async with open_house(seconds=SLOW) as house:
        await token(house, Role.ADMIN, name="boss")
        secret, scoped = await token(house, Role.SUBMIT), await token(house, Role.ADMIN, TEAM, name="team")
        for shown in (secret, scoped):
            for wanted in ("farm", "boss"):
                body = json.dumps({"token": wanted}).encode()
                headers = {**bearer(shown), **JSON}
                answer = await ask(house, "POST", "/api/v1/login-links", headers=headers, body=body, token=False)
                assert answer.status == 403, (wanted, answer.body)
        made = await ask(house, "POST", "/api/v1/login-links", headers=JSON, body=b'{"token": "ci"}')
        session = cookie(house, await log_in(house, "?" + made.json["url"].partition("?")[2]))
        assert (await ask(house, "GET", "/api/v1/tokens/self", headers=session, token=False)).json["name"] == "ci"


async def test_whoever_asks_for_many_links_uses_up_their_own() -> None:
    async with open_house(seconds=SLOW) as house:
        secret = await token(house, Role.VIEW)
        admins = house.door.login_link()
        links = []
        for _ in range(100):
            made = await ask(house, "POST", "/api/v1/login-links", headers=bearer(secret), token=False)
            links.append("?" + made.json["url"].partition("?")[2])
        assert (await log_in(house, links[0])).status == 401
        assert (await log_in(house, links[-1])).status == 303
        assert (await log_in(house, "?" + admins.partition("?")[2])).status == 303


async def test_revoking_ends_open_websockets() -> None:
    async with open_house(seconds=SLOW) as house:
        secret = await token(house, Role.VIEW)
        job = await house.control.new_job()
        async with talking(house) as other, talking(house, bearer(secret)) as talker:
            await talker.result("job.watch", {"id": job})
            await talker.hear()
            await house.control.tokens.revoke("ci")
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                while True:
                    await talker.hear()
            assert closed.value.reason.code == 1008
            assert await other.result("job.get", {"id": job})


async def test_a_websocket_ends_when_its_token_expires() -> None:
    async with open_house(seconds=SLOW) as house:
        wanted = NewToken(name="brief", role=Role.VIEW, expires_in_seconds=3600)
        made, secret = await house.control.tokens.create(wanted)
        async with talking(house, bearer(secret)) as talker:
            await talker.result("farm.info")
            # As if the hour were over: the clock that counts is the wall's.
            at_once = msgspec.structs.replace(made, expires_at=made.created_at)
            house.control.tokens._put(at_once)
            with pytest.raises(trio_websocket.ConnectionClosed):
                await talker.hear()


async def test_a_scoped_token_has_its_own_farm() -> None:
    async with open_house(seconds=SLOW) as house:
        secret = bearer(await token(house, Role.SUBMIT, TEAM))
        own, others = [], []
        for number in range(5):
            own.append(await house.control.new_job(ref=f"r{number}"))
            others.append(await house.control.new_job(**OTHER, ref=f"r{number}"))
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = (await ask(house, "GET", f"/api/v1/jobs?limit=2&cursor={cursor}", headers=secret, token=False)).json
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["cursor"]
        assert seen == own[::-1]
        await house.control.finish(own[0])
        again = await ask(house, "POST", f"/api/v1/jobs/{own[0]}/retry", headers=secret, token=False)
        assert (again.status, again.json["retry_of"]) == (201, own[0])
        assert (await submitted(house, secret, OTHER)).json["code"] == "repository_not_allowed"
        async with talking(house, secret) as talker:
            watched = await talker.result("farm.watch")
            assert {job["id"] for job in watched["jobs"]} == {*own, again.json["id"]}
            assert watched["queue"]["queued"] == {}
            # Of what happens now, this one hears its own alone.
            await house.control.new_job(**OTHER, ref="unseen")
            mine = await house.control.new_job(ref="seen")
            heard: set[str] = set()
            while mine not in heard:
                told = (await talker.hear())["params"]
                assert "others" not in json.dumps(told)
                heard |= {job["id"] for job in told.get("jobs", [])}


async def test_idempotency_keys_of_others_are_not_there() -> None:
    async with open_house(seconds=SLOW) as house:
        secret = bearer(await token(house, Role.SUBMIT, TEAM))
        farm = {"Authorization": f"Bearer {(await token(house, name='all'))}"}
        key = {"Idempotency-Key": "nightly"}
        theirs = await submitted(house, farm, OTHER, **key)
        mine, again = await submitted(house, secret, SPEC, **key), await submitted(house, secret, SPEC, **key)
        assert (theirs.status, mine.status, again.status) == (201, 201, 200)
        assert mine.json["id"] == again.json["id"] != theirs.json["id"]
        assert mine.json["spec"]["idempotency_key"] == "nightly"
        long = {"Idempotency-Key": "n" * 256}
        assert (await submitted(house, secret, SPEC, **long)).status == 201
        assert (await submitted(house, secret, {**SPEC, "ref": "v2"}, **key)).status == 409


async def test_what_was_done_is_on_record_without_any_secret() -> None:
    async with open_house(seconds=SLOW) as house:
        made = await ask(
            house, "POST", "/api/v1/tokens", headers=JSON, body=b'{"name": "ci", "role": "view", "repositories": []}'
        )
        assert (made.status, made.json["token"]["state"]) == (201, "valid")
        secret = made.json["secret"]
        await ask(house, "PUT", "/api/v1/secrets/build/npm", headers=JSON, body=b'{"value": "very-secret-value"}')
        job = (await submitted(house, {"Authorization": bearer(await token(house, name="boss"))["Authorization"]})).json
        assert (await submitted(house, bearer(secret))).status == 403
        async with talking(house) as talker:
            await talker.result("job.cancel", {"id": job["id"]})
            await talker.error("source.remove", {"name": "none"})
        entries: list[dict[str, Any]] = []

        async def told() -> bool:
            nonlocal entries
            entries = (await ask(house, "GET", "/api/v1/audit")).json["entries"]
            return len(entries) >= 6

        while not await told():
            await trio.sleep(0.05)
        acts = [(e["actor"], e["via"], e["action"], e["target"], e["outcome"]) for e in reversed(entries)]
        assert acts == [
            ("token", "http", "token.create", made.json["token"]["id"], "ok"),
            ("token", "http", "secret.put", "build/npm", "ok"),
            ("boss", "http", "job.submit", job["id"], "ok"),
            ("ci", "http", "job.submit", "", "role_missing"),
            ("token", "websocket", "job.cancel", job["id"], "ok"),
            ("token", "websocket", "source.remove", "none", "not_found"),
        ]
        assert entries[3]["repository"] == SPEC["repository"]
        assert entries[3]["address"] == "127.0.0.1"
        whole = json.dumps(entries) + json.dumps((await ask(house, "GET", "/api/v1/tokens")).json)
        for value in ("very-secret-value", secret, secret.split("_", 2)[2]):
            assert value not in whole
        page = (await ask(house, "GET", f"/api/v1/audit?limit=2&before={entries[0]['seq']}")).json
        assert (page["entries"], page["before"]) == (entries[1:3], entries[2]["seq"])


async def test_tokens_are_named_once_and_the_farms_own_stays() -> None:
    async with open_house(seconds=SLOW) as house, talking(house) as talker:
        made = await talker.result("token.create", {"name": "ci", "role": "submit", "repositories": ["github.com/o/*"]})
        again = await talker.error("token.create", {"name": "ci", "role": "view"})
        assert again["data"]["code"] == "token_exists"
        for wrong in (
            {"name": "no spaces", "role": "view"},
            {"name": "x", "role": "none"},
            {"name": "x", "role": "king"},
            {"name": "x", "role": "view", "repositories": ["no-slash"]},
            {"name": "x", "role": "view", "expires_in_seconds": 0},
        ):
            assert (await talker.error("token.create", wrong))["code"] == -32602, wrong
        listed = (await talker.result("token.list"))["tokens"]
        assert [each["id"] for each in listed] == ["farm", made["token"]["id"]]
        assert (await talker.error("token.revoke", {"name": "farm"}))["data"]["code"] == "farm_token"
        assert (await talker.result("token.revoke", {"name": "ci"}))["state"] == "revoked"
        assert (await talker.result("token.revoke", {"name": made["token"]["id"]}))["state"] == "revoked"
        assert await talker.result("token.create", {"name": "ci", "role": "view"})


async def test_too_many_requests_are_told_when_to_come_again() -> None:
    limits = {"token_requests_per_second": 0.01, "burst_seconds": 300.0}
    async with open_house(seconds=SLOW, **limits) as house:
        answers = [await ask(house, "GET", "/api/v1/workers") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert 0 < int(answers[3].headers["retry-after"]) <= 100
        assert answers[3].json["code"] == "rate_limited"
        # The same for a websocket's messages, and another token is not touched.
        async with talking(house, bearer(await token(house))) as talker:
            assert [("error" in await talker.call("worker.list")) for _ in range(3)] == [False, False, True]
            assert (await talker.error("worker.list"))["code"] == -32004


async def test_guessing_is_slowed_down_and_the_right_token_is_not() -> None:
    async with open_house(seconds=SLOW, refusals_per_second=0.01, burst_seconds=200.0) as house:
        wrong = [await ask(house, "GET", "/api/v1/jobs", headers=bearer("bt_a_b"), token=False) for _ in range(4)]
        assert [answer.status for answer in wrong] == [401, 401, 429, 429]
        assert (await ask(house, "GET", "/api/v1/jobs")).status == 200
        assert (await ask(house, "GET", "/healthz", token=False)).status == 200


async def test_addresses_are_believed_from_trusted_proxies_alone() -> None:
    forwarded = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9", "X-Forwarded-Proto": "https"}
    for trusted, address in ([], "127.0.0.1"), (["127.0.0.0/8"], "203.0.113.9"):
        async with open_house(seconds=SLOW, trusted_proxies=trusted) as house:
            await submitted(house, {**bearer(await token(house)), **forwarded})
            await until(lambda house=house: not house.control.audit._pending, SLOW)
            entries = await house.control.audit.entries()
            assert [entry.address for entry in entries] == [address]
            answer = await ask(house, "GET", f"/login?token={house.door.auth.new_code()}", headers=forwarded)
            assert ("; Secure" in answer.headers["set-cookie"]) is bool(trusted)
            # A page that came without TLS is another page.
            page = {**bearer(await token(house, name="b")), **forwarded, "Origin": "http://127.0.0.1"}
            assert (await submitted(house, page)).status == (403 if trusted else 201)


async def test_a_page_under_the_public_address_may_use_the_door() -> None:
    async with open_house(seconds=SLOW, public_url="https://farm.example.test") as house:
        good, bad = {"Origin": "https://farm.example.test"}, {"Origin": "https://evil.test"}
        assert (await submitted(house, {**bearer(await token(house)), **good})).status == 201
        assert (await submitted(house, {**bearer(await token(house, name="b")), **bad})).status == 403
        rebound = {**bearer(await token(house, name="c")), "Host": "evil.test"}
        assert (await submitted(house, rebound)).json["code"] == "host_not_allowed"


def test_a_bucket_fills_again() -> None:
    time = [0.0]
    bucket = Buckets(2.0, 3.0, lambda: time[0])
    assert [bucket.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take("b") == 0
    time[0] = 0.5
    assert (bucket.take("a"), bucket.take("a")) == (0, 0.5)
    time[0] = 1000.0
    assert [bucket.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert Buckets(0.0, 1.0, lambda: time[0]).take("a") == 0
    assert network_of("2001:db8::1") == network_of("2001:db8::2:3") != network_of("2001:db8:1::1")


def test_forwarded_headers() -> None:
    proxies = Proxies(["10.0.0.0/8", "::1"], "Forwarded", "Forwarded")
    header = {"forwarded": 'for=1.2.3.4, for="[2001:db8::9]:4711";proto=http, for=10.1.1.1;proto=https'}
    assert proxies.seen(header, "10.0.0.1", False) == ("2001:db8::9", True)
    assert proxies.seen(header, "::ffff:10.0.0.1", False) == ("2001:db8::9", True)
    assert proxies.seen(header, "8.8.8.8", False) == ("8.8.8.8", False)
    assert proxies.seen({}, "::1", True) == ("::1", True)
    plain = Proxies(["10.0.0.0/8"], "X-Real-IP", "X-Forwarded-Proto")
    assert plain.seen({"x-real-ip": "9.9.9.9:80", "x-forwarded-for": "6.6.6.6"}, "10.0.0.1", False)[0] == "9.9.9.9"
    assert plain.seen({"x-real-ip": "not an address"}, "10.0.0.1", False)[0] == "10.0.0.1"
    with pytest.raises(BadRequest, match="trusted_proxies"):
        Proxies(["example.test"], "a", "b")


@asynccontextmanager
async def shaken(house: House, authority: Authority) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    context = ssl.create_default_context(cafile=authority.file)
    async with await trio.open_tcp_stream("127.0.0.1", house.port) as plain:
        stream = trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
        yield stream


async def got(stream: trio.SSLStream[trio.SocketStream], path: str = "/healthz") -> bytes:
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    found = b""
    while b'{"status":"ok"}' not in found:
        piece = bytes(await stream.receive_some())
        assert piece
        found += piece
    return found


def serial(stream: trio.SSLStream[trio.SocketStream]) -> Any:
    return stream.getpeercert()["serialNumber"]


async def test_tls_and_its_reload(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    files = authority.issue("door")
    named = {"tls_certificate_file": files.certificate_file, "tls_key_file": files.key_file}
    async with open_house(seconds=SLOW, **named) as house:
        assert house.door.login_link().startswith("https://")
        assert b"this port speaks https" in await raw(house, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await raw(house, b"\x16\x03\x01garbage that is no handshake") is not None
        async with shaken(house, authority) as old:
            assert b"HTTP/1.1 200" in await got(old)
            first = serial(old)
            authority.issue("door")
            house.door.reload()
            async with shaken(house, authority) as new:
                assert serial(new) != first
            # The connection that was open goes on.
            assert b"HTTP/1.1 200" in await got(old)
            Path(files.key_file).write_text("broken")
            with pytest.raises(BadRequest) as refused:
                house.door.reload()
            assert refused.value.code == "door_certificate"
            async with shaken(house, authority) as still:
                assert b"HTTP/1.1 200" in await got(still)
        async with Client(f"https://localhost:{house.port}", "") as client:
            with pytest.raises(Unavailable) as untrusted:
                await client.workers()
            assert untrusted.value.code == "server_certificate"
        async with trio.open_nursery() as nursery:
            context = ssl.create_default_context(cafile=authority.file)
            connect = partial(trio_websocket.connect_websocket, nursery, "localhost", house.port, "/ws")
            headers = [(b"Authorization", f"Bearer {await token(house)}".encode())]
            websocket = await connect(use_ssl=context, extra_headers=headers)
            job = await house.control.new_job()
            await house.control.print(job, ["x" * 60_000] * 40)
            await house.control.finish(job, JobState.SUCCEEDED)
            watch = {"jsonrpc": "2.0", "id": 1, "method": "job.watch", "params": {"id": job}}
            await websocket.send_message(json.dumps(watch))
            lines = 0
            while (heard := json.loads(await websocket.get_message())).get("method") != "job.end":
                lines += sum(event["type"] == "log" for event in heard["params"]["events"]) if "params" in heard else 0
            assert lines == 40
            await websocket.aclose()

"""Who may come in, and what a client cannot do to the door."""

import json
import math
import socket

import pytest
import trio
import trio.testing
import trio_websocket

from blacktree.api.door import Door
from blacktree.config import DoorConfig
from blacktree.endpoints import split_address
from blacktree.errors import BadRequest, NotAllowed, Unavailable
from blacktree.job import JobState
from tests.api.little import SPEC, TOKEN, House, Little, open_house
from tests.api.talk import BEARER, ask, connect, raw, request_head, talking, until

ROUTES = [
    ("GET", "/metrics"),
    ("GET", "/ws"),
    ("GET", "/api/v1/jobs"),
    ("POST", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/x"),
    ("POST", "/api/v1/jobs/x/cancel"),
    ("POST", "/api/v1/jobs/x/retry"),
    ("GET", "/api/v1/jobs/x/events"),
    ("GET", "/api/v1/jobs/x/log"),
    ("GET", "/api/v1/workers"),
    ("POST", "/api/v1/workers/w1/drain"),
    ("GET", "/api/v1/events"),
    ("GET", "/nothing"),
    ("DELETE", "/"),
]


@pytest.mark.parametrize("token", ["", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer \xe9"])
async def test_nothing_answers_without_the_token(token: str) -> None:
    async with open_house() as house:
        headers = {"Authorization": token} if token else {}
        for method, path in ROUTES:
            answer = await ask(house, method, path, token=False, headers=headers)
            assert (answer.status, answer.json["code"]) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert house.control.drained == set()
        page = await ask(house, "GET", "/", token=False, headers=headers)
        assert page.status == 401
        assert b"<form" in page.body


async def test_a_websocket_needs_the_token_and_its_place() -> None:
    async with open_house(allowed_hosts=["farm.test"], allowed_origins=["https://ui.test"]) as house:
        refused: list[tuple[dict[str, str], int]] = [
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({**BEARER, "Origin": "http://evil.test"}, 403),
            ({**BEARER, "Origin": "null"}, 403),
            ({**BEARER, "Origin": "http://127.0.0.1:1"}, 403),
        ]
        for headers, status in refused:
            with pytest.RaisesGroup(trio_websocket.ConnectionRejected) as rejected:
                async with talking(house, headers):
                    pass
            answer = rejected.value.exceptions[0]
            assert answer.status_code == status
            assert json.loads(answer.body or b"")["status"] == status
        for headers in (
            BEARER,
            {**BEARER, "Origin": f"http://{house.address}"},
            {**BEARER, "Origin": "https://ui.test"},
        ):
            async with talking(house, headers) as talker:
                assert (await talker.result("farm.info"))["status"] == "ready"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:99", 404),
        ("localhost", 404),
        ("farm.localhost:80", 404),
        ("[::1]:80", 404),
        ("192.168.3.4", 404),
        ("farm.test", 404),
        ("FARM.test.:80", 404),
        ("a.wide.test", 404),
        ("wide.test", 403),
        ("evil.test", 403),
        ("127.0.0.1.evil.test", 403),
        ("farm.test.evil.test", 403),
        ("localhost:1:2", 403),
        ("[::1", 403),
        ("127.0.0.1:80@evil.test", 403),
        ("[::1]:evil", 403),
        ("", 403),
    ],
)
async def test_hosts(host: str, status: int) -> None:
    async with open_house(allowed_hosts=["farm.test", ".wide.test"]) as house:
        answer = await ask(house, "POST", "/api/v1/jobs/x/cancel", headers={"Host": host})
        assert answer.status == status
        websocket = await raw(
            house,
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 12\r\n\r\n".encode(),
        )
        assert websocket.startswith(b"HTTP/1.1 426 " if status == 404 else b"HTTP/1.1 403 ")


async def test_a_one_time_link_lets_a_browser_in() -> None:
    async with open_house() as house:
        link = house.door.login_link()
        assert link.startswith(f"http://{house.address}/login?token=")
        path = link.removeprefix(f"http://{house.address}")
        assert (await ask(house, "HEAD", path, token=False)).status == 200
        first = await ask(house, "GET", path, token=False)
        assert (first.status, first.headers["location"]) == (303, "/")
        cookie, *attributes = first.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
        assert (await ask(house, "GET", path, token=False)).status == 401
        mine = {"Cookie": f"a=b; {cookie}"}
        page = await ask(house, "GET", "/", token=False, headers=mine)
        assert page.status == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await ask(house, "GET", "/api/v1/jobs", token=False, headers=mine)).status == 200
        body = json.dumps(SPEC).encode()
        typed = {**mine, "Content-Type": "application/json", "Host": house.address}
        without = await ask(house, "POST", "/api/v1/jobs", token=False, headers=typed, body=body)
        assert (without.status, without.json["code"]) == (403, "origin_not_allowed")
        foreign = {**typed, "Origin": "http://127.0.0.1:3000"}
        assert (await ask(house, "POST", "/api/v1/jobs", token=False, headers=foreign, body=body)).status == 403
        own = {**typed, "Origin": f"http://{house.address}"}
        assert (await ask(house, "POST", "/api/v1/jobs", token=False, headers=own, body=body)).status == 201
        async with talking(house, {**mine, "Origin": f"http://{house.address}"}) as talker:
            assert (await talker.result("job.list"))["jobs"]
        assert house.control.actors == ["token"]
        tampered = {"Cookie": cookie[:-2] + "xx"}
        assert (await ask(house, "GET", "/api/v1/jobs", token=False, headers=tampered)).status == 401


async def test_the_token_may_be_typed_into_the_login_page() -> None:
    async with open_house() as house:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        wrong = await ask(house, "POST", "/login", token=False, headers=form, body=b"token=nonsense")
        assert (wrong.status, "set-cookie" in wrong.headers) == (401, False)
        right = await ask(house, "POST", "/login", token=False, headers=form, body=f"token={TOKEN}".encode())
        assert right.status == 303
        evil = {**form, "Origin": "http://evil.test"}
        assert (await ask(house, "POST", "/login", token=False, headers=evil, body=b"token=x")).status == 403


async def test_listening_beyond_loopback_needs_a_token() -> None:
    for listen in ("0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.test:0"):
        with pytest.raises(NotAllowed):
            Door(Little(), DoorConfig(), listen=listen, token="")
        Door(Little(), DoorConfig(), listen=listen, token="x")
    for listen in ("127.0.0.1:0", "[::1]:0", "localhost:0"):
        Door(Little(), DoorConfig(), listen=listen, token="")
    for listen in ("8080", "127.0.0.1", "a:b", "::1:80", "127.0.0.1:70000", "[::1]"):
        with pytest.raises(BadRequest):
            split_address(listen)


async def test_a_port_in_use_is_told() -> None:
    async with open_house() as house:
        door = Door(house.control, DoorConfig(), listen=house.address, token="x")
        with pytest.raises(Unavailable) as caught:
            await door.run()
        assert caught.value.code == "address_in_use"


async def test_an_address_of_elsewhere_is_told_with_what_to_do() -> None:
    async with open_house() as house:
        door = Door(house.control, DoorConfig(), listen="192.0.2.1:8080", token="x")
        with pytest.raises(Unavailable) as caught:
            await door.run()
        assert caught.value.code == "cannot_listen"
        assert "--listen" in caught.value.advice


async def test_a_slow_head_is_refused() -> None:
    async with open_house(head_seconds=0.3) as house:
        assert (await raw(house, b"GET / HTTP/1.1\r\nHo")).startswith(b"HTTP/1.1 408 ")
        assert await raw(house, b"") == b""
        async with await connect(house) as stream:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"X")
                    await trio.sleep(0.05)
        # Whose head is whole in time is served; where all stands still, even this one may be late.
        while (await ask(house, "GET", "/healthz")).status != 200:
            pass


async def test_a_slow_body_is_refused() -> None:
    async with open_house(body_seconds=0.3) as house:
        head = request_head("POST", "/api/v1/jobs", "Content-Length: 9")
        assert (await raw(house, head + b"{")).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 70_000, b"431"),
        (b"GET /" + b"a" * 70_000, b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"4"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: nonsense\r\n\r\n", b"501"),
        # A proxy that goes by the other one would take what follows for the next client's request.
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"401"),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", b"401"),
    ],
)
async def test_what_is_no_request_is_refused(data: bytes, status: bytes) -> None:
    async with open_house(head_seconds=60) as house:
        answer = await raw(house, data, half_close=True)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (await ask(house, "GET", "/healthz")).status == 200


async def test_an_upgrade_is_read_once() -> None:
    """What the door has not looked at, the websocket's own parser does not see either: here it would fail."""
    async with open_house() as house:
        lines = (
            *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Extensions: \xff",
            "Sec-WebSocket-Protocol: \xff",
        )
        answer = await raw(house, request_head("GET", "/ws", *lines), half_close=True)
        assert answer.startswith(b"HTTP/1.1 101 ")


async def test_a_half_closed_client_gets_its_answer() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        await house.control.print(job_id, ["x" * 1000] * 3000)
        answer = await raw(house, request_head("GET", f"/api/v1/jobs/{job_id}/log"), half_close=True)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"x" * 1000) == 3000


async def test_too_many_connections_are_turned_away() -> None:
    async with open_house(maximum_connections=2) as house:
        async with talking(house) as first, talking(house):
            assert (await raw(house, b"")).startswith(b"HTTP/1.1 503 ")
            assert (await first.result("farm.info"))["status"] == "ready"
        await until(lambda: not house.door.tally.connections)
        assert (await ask(house, "GET", "/healthz")).status == 200


LOGIN = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", LOGIN, b"\x16\r\n\r\n"]
)
async def test_whoever_says_nothing_makes_way(sent: bytes) -> None:
    """Else anybody could keep everybody out, without a token: each of these may wait for long."""
    async with open_house(maximum_connections=4, head_seconds=600, body_seconds=600) as house, talking(house) as first:
        silent = [await connect(house) for _ in range(3)]
        for stream in silent:
            await stream.send_all(sent)
        await until(lambda: house.door.tally.connections == 4)
        for _ in range(5):
            assert (await ask(house, "GET", "/healthz")).status == 200
        assert (await first.result("farm.info"))["status"] == "ready"
        for stream in silent:
            await stream.aclose()


def _small_reader() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return sock


async def stalled_log_reader(house: House, job_id: str) -> trio.SocketStream:
    """Asks for a long log and reads nothing of it."""
    sock = trio.socket.from_stdlib_socket(_small_reader())
    await sock.connect(("127.0.0.1", house.port))
    stream = trio.SocketStream(sock)
    await stream.send_all(request_head("GET", f"/api/v1/jobs/{job_id}/log"))
    return stream


async def test_a_client_that_reads_nothing_cannot_hold_the_end() -> None:
    async with open_house(send_seconds=600, ping_seconds=600) as house:
        job_id = await house.control.new_job()
        await house.control.print(job_id, ["x" * 60_000] * 200)
        stalled = [await stalled_log_reader(house, job_id) for _ in range(3)]
        waiting = await connect(house)
        await waiting.send_all(b"POST /api/v1/jobs HTTP/1.1\r\nHost: a\r\n")
        async with talking(house) as talker:
            await talker.result("job.watch", {"id": job_id})
            # Nothing more is read: the events fill every buffer on the way.
            await trio.testing.wait_all_tasks_blocked(0.1)
            house.stop.cancel()
            with trio.fail_after(40):
                await house.ended.wait()
        for stream in [*stalled, waiting]:
            await stream.aclose()


async def test_a_client_that_reads_nothing_is_dropped() -> None:
    async with open_house(send_seconds=0.5) as house:
        job_id = await house.control.new_job()
        await house.control.print(job_id, ["x" * 60_000] * 200)
        stalled = await stalled_log_reader(house, job_id)
        await until(lambda: house.door.tally.connections == 1)
        await until(lambda: house.door.tally.connections == 0)
        await stalled.aclose()


async def test_leaving_a_cancel_leaves_it_going() -> None:
    async with open_house() as house:
        house.control.slow_cancel = True
        job_id = await house.control.new_job()
        async with await connect(house) as stream:
            await stream.send_all(request_head("POST", f"/api/v1/jobs/{job_id}/cancel"))
            await until(lambda: house.control.canceling)
            # A reset, not an orderly end.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await until(lambda: not house.door.tally.connections)
        assert (await house.control.store.get(job_id)).state is JobState.CANCELING
        await house.control.finish(job_id, JobState.CANCELED)
        again = await ask(house, "POST", f"/api/v1/jobs/{job_id}/cancel")
        assert again.json["state"] == "canceled"


async def test_a_long_log_streams_in_constant_memory() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        for _ in range(4):
            await house.control.print(job_id, ["y" * 1000] * 8000)
        asked: list[int] = []
        read_text = house.control.read_text

        async def counted(job: str, offset: int, most: int) -> bytes:
            asked.append(most)
            return await read_text(job, offset, most)

        house.control.read_text = counted
        log = await ask(house, "GET", f"/api/v1/jobs/{job_id}/log")
        assert len(log.body) == 4 * 8000 * 1001
        assert max(asked) <= 256 * 1024
        assert len(asked) >= math.ceil(len(log.body) / (256 * 1024))

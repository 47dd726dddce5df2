"""Whatever arrives, the door answers or closes, and serves the next one."""

import json
from typing import Any

import structlog.testing
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.little import SPEC, TOKEN, House, open_house
from tests.api.talk import ask, connect, request_head, talking

QUICK = settings(
    max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)

names = st.sampled_from(
    [*SPEC, "ref", "tags", "build_args", "priority", "timeout_seconds", "run", "push", "jsonrpc", "x"]
)
odd_numbers = st.sampled_from(["NaN", "1e999", "-0", "9" * 400, "0.1e-400", "18446744073709551616", "-1", "1"])
odd_texts = st.sampled_from(
    ['"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"--x"', '"../.."', '"\\n"', '"' + "a" * 5000 + '"']
)
json_texts: st.SearchStrategy[str] = st.recursive(
    st.one_of(odd_numbers, odd_texts, st.sampled_from(["null", "true", "[]", "{}", "", "{", "]"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(names, inner), max_size=5).map(
            lambda pairs: "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"
        ),
        st.tuples(st.integers(1, 3000), inner).map(lambda deep: "[" * deep[0] + deep[1] + "]" * deep[0]),
    ),
    max_leaves=12,
)
heads = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda method, path, lines: (
            b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n%b\r\n"
            % (method, path, TOKEN.encode(), b"".join(line + b"\r\n" for line in lines))
        ),
        st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH", b"\x00"]),
        st.sampled_from(
            [
                b"/",
                b"*",
                b"//",
                b"/ws",
                b"/api/v1/jobs",
                b"/api/v1/jobs/%ff%00/log",
                b"/api/v1/jobs?limit=%ff&a=%",
                b"http://x/healthz",
                b"/../../etc/passwd",
                b"/api/v1/jobs/x/events?from_seq=1e9",
                b"/login?token=%ff",
            ]
        ),
        st.lists(
            st.sampled_from(
                [
                    b"Upgrade: websocket",
                    b"Connection: Upgrade",
                    b"Connection: close",
                    b"Content-Length: 3",
                    b"Content-Length: -1",
                    b"Transfer-Encoding: chunked",
                    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                    b"Sec-WebSocket-Version: 13",
                    b"Range: bytes=0-",
                    b"Expect: 100-continue",
                    b"Origin: \xff",
                    b"Authorization: Bearer x",
                    b"Cookie: \xff=;;=",
                    b"Host: b",
                    b": x",
                    b"A",
                    b"Content-Type: a/b",
                ]
            ),
            max_size=6,
        ),
    ),
)


async def still_serves(house: House) -> None:
    assert (await ask(house, "GET", "/healthz")).status == 200


async def read_out(stream: trio.SocketStream) -> bytes:
    found = b""
    try:
        async for piece in stream:
            found += piece
    except trio.BrokenResourceError:
        pass
    return found


async def upgraded(house: House) -> trio.SocketStream:
    """A websocket without a library: what it sends is ours."""
    lines = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    stream = await connect(house)
    await stream.send_all(request_head("GET", "/ws", *lines, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
    assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101 ")
    return stream


def run(test: Any, *args: Any) -> None:
    """A house for each example: what one breaks, the next must not hide."""

    async def whole() -> None:
        async with open_house(head_seconds=30, body_seconds=30) as house:
            await test(house, *args)
            await still_serves(house)

    with structlog.testing.capture_logs() as logs:
        trio.run(whole)
    # Nothing of it may have been a surprise to us.
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []


@QUICK
@given(heads, st.binary(max_size=50))
def test_any_head(head: bytes, rest: bytes) -> None:
    async def test(house: House) -> None:
        async with await connect(house) as stream:
            try:
                await stream.send_all(head + rest)
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass
            answer = await read_out(stream)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")

    run(test)


@QUICK
@given(st.binary(min_size=1, max_size=400))
def test_any_frames(data: bytes) -> None:
    async def test(house: House) -> None:
        async with await upgraded(house) as stream:
            try:
                await stream.send_all(data)
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass
            await read_out(stream)

    run(test)


@QUICK
@given(json_texts)
def test_any_message(text: str) -> None:
    async def test(house: House) -> None:
        async with talking(house) as talker:
            for method in ("job.submit", "job.list", "job.watch", "worker.drain"):
                await talker.say(f'{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{text}}}')
                answer = await talker.hear()
                assert ("error" in answer) != ("result" in answer)
            await talker.say(text)
            await talker.say({"jsonrpc": "2.0", "id": "last", "method": "farm.info"})
            while answer.get("id") != "last":
                answer = await talker.hear()

    run(test)


@QUICK
@given(json_texts)
def test_any_spec(text: str) -> None:
    async def test(house: House) -> None:
        body = text.encode("utf-8", "surrogatepass")
        headers = {"Content-Type": "application/json", "Connection": "close"}
        answer = await ask(house, "POST", "/api/v1/jobs", headers=headers, body=body)
        assert answer.status in (201, 400, 411, 422)
        json.loads(answer.body)

    run(test)


def test_a_frame_that_never_ends() -> None:
    async def test(house: House) -> None:
        async with await upgraded(house) as stream:
            # A text frame that announces 2^40 bytes: refused when the limit is passed, not when it is complete.
            try:
                await stream.send_all(b"\x01\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0")
                for _ in range(32):
                    await stream.send_all(b"x" * 65536)
            except trio.BrokenResourceError:
                pass
            assert (await read_out(stream)).startswith(b"\x88")

    run(test)

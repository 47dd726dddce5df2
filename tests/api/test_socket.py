"""JSON-RPC over the websocket: every method, every refusal, and many readers."""

import json
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
import trio_websocket

from blacktree.job import JobState
from blacktree.orchestrator.control import Readiness
from tests.api.little import SPEC, open_house
from tests.api.talk import Talker, connect, request_head, talking, until


async def test_a_job_by_every_method() -> None:
    async with open_house() as house, talking(house) as talker:
        job = await talker.result("job.submit", SPEC)
        assert job["state"] == "queued"
        assert job["spec"]["repository"] == SPEC["repository"]
        same = {"id": job["id"]}
        assert (await talker.result("job.get", same))["id"] == job["id"]
        for state in (None, "queued", ["queued", "running"], []):
            listed = await talker.result("job.list", {"state": state, "limit": 5, "cursor": None})
            assert [each["id"] for each in listed["jobs"]] == [job["id"]]
        assert (await talker.result("job.list", {"state": "failed"}))["jobs"] == []
        assert (await talker.error("job.retry", same))["code"] == -32002
        assert (await talker.result("job.cancel", {**same, "reason": "no need"}))["state"] == "canceled"
        assert (await talker.result("job.cancel", same))["state"] == "canceled"
        assert (await talker.result("job.retry", same))["retry_of"] == job["id"]
        events = await talker.result("job.events", {**same, "from_seq": 2})
        assert [event["to"] for event in events["events"]] == ["canceled"]
        assert [worker["id"] for worker in (await talker.result("worker.list"))["workers"]] == ["w1"]
        assert (await talker.result("worker.drain", {"id": "w1"}))["state"] == "draining"
        assert (await talker.result("worker.drain", {"id": "w1", "drain": False}))["state"] == "free"
        await house.control.store.note("started", "here we are")
        assert (await talker.result("farm.events"))["next_seq"] == 2
        assert (await talker.result("farm.info"))["status"] == "ready"


async def test_errors_have_their_numbers() -> None:
    async with open_house() as house, talking(house) as talker:
        for identity in ("unknown", "", "../x", "x" * 5000, "\0", "\N{SNOWMAN}"):
            for method in ("job.get", "job.cancel", "job.retry", "job.watch", "job.events", "worker.drain"):
                error = await talker.error(method, {"id": identity})
                assert (error["code"], error["data"]["code"]) == (-32001, "not_found")
        missing = await talker.error("job.get", {})
        assert (missing["code"], missing["data"]["path"]) == (-32602, "params.id")
        wrong = await talker.error("job.get", {"id": 5})
        assert (wrong["code"], wrong["data"]["path"]) == (-32602, "params.id")
        unknown = await talker.error("job.list", {"lim": 5})
        assert unknown["data"]["advice"] == "did you mean `limit`?"
        spec = await talker.error("job.submit", {**SPEC, "conext": "x"})
        assert (spec["code"], spec["data"]["path"]) == (-32602, "spec.conext")
        nothing = await talker.error("job.submit", {})
        assert (nothing["code"], nothing["data"]["path"]) == (-32602, "spec.repository")
        method = await talker.error("job.sumbit", {})
        assert (method["code"], method["data"]["advice"]) == (-32601, "did you mean `job.submit`?")
        first = await talker.result("job.submit", {**SPEC, "idempotency_key": "k"})
        assert (await talker.result("job.submit", {**SPEC, "idempotency_key": "k"}))["id"] == first["id"]
        assert (await talker.error("job.submit", {**SPEC, "ref": "x", "idempotency_key": "k"}))["code"] == -32002
        house.control.state = Readiness(state="draining", reasons=[])
        draining = await talker.error("job.submit", SPEC)
        assert (draining["code"], draining["data"]["retry_after"]) == (-32004, 7)
        house.control.state = Readiness(state="ready", reasons=[])
        house.control.explode = True
        assert (await talker.error("job.submit", SPEC))["code"] == -32603


@pytest.mark.parametrize(
    ("message", "code", "identity"),
    [
        ("", -32700, None),
        ("{", -32700, None),
        ("nonsense", -32700, None),
        ('{"jsonrpc": "2.0", "method": NaN}', -32700, None),
        ("[" * 100_000, -32600, None),
        ('{"a":' * 100_000, -32700, None),
        ("[]", -32600, None),
        ('[{"jsonrpc": "2.0", "id": 1, "method": "farm.info"}]', -32600, None),
        ("5", -32600, None),
        ('"x"', -32600, None),
        ("null", -32600, None),
        ("{}", -32600, None),
        ('{"jsonrpc": "1.0", "id": 3, "method": "farm.info"}', -32600, 3),
        ('{"jsonrpc": "2.0", "id": 3}', -32600, 3),
        ('{"jsonrpc": "2.0", "id": "a", "method": 5}', -32600, "a"),
        ('{"jsonrpc": "2.0", "id": [1], "method": "farm.info"}', -32600, None),
        ('{"jsonrpc": "2.0", "id": {}, "method": "farm.info"}', -32600, None),
        ('{"jsonrpc": "2.0", "id": true, "method": "farm.info"}', -32600, None),
        ('{"jsonrpc": "2.0", "id": 1.5, "method": "farm.info", "params": [1]}', -32602, 1.5),
        ('{"jsonrpc": "2.0", "id": null, "method": "nope"}', -32601, None),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "farm.info"}', -32600, None),
        (b"\xff\x00", -32600, None),
    ],
)
async def test_a_bad_message_is_answered_and_the_connection_lives(message: str, code: int, identity: Any) -> None:
    async with open_house() as house, talking(house) as talker:
        await talker.say(message)
        answer = await talker.hear()
        assert (answer["error"]["code"], answer["id"]) == (code, identity)
        assert (await talker.result("farm.info"))["status"] == "ready"


async def test_ids_are_echoed_and_notifications_are_not_answered() -> None:
    async with open_house() as house, talking(house) as talker:
        for identity in ("0", "-1", "12345678901234567890123", "1e3", '"a\\u00e9\\""', "null"):
            await talker.say(f'{{"id":{identity},"jsonrpc":"2.0","method":"farm.info"}}')
            assert f'"id":{identity},' in await talker.websocket.get_message()
        for method in ("job.submit", "nope", "job.watch", "job.get"):
            await talker.say({"jsonrpc": "2.0", "method": method, "params": SPEC})
        await until(lambda: len(house.control.actors) == 1)
        assert (await talker.result("farm.info"))["status"] == "ready"


async def test_a_frame_over_the_limit_closes_with_1009() -> None:
    async with open_house(maximum_frame_bytes=10_000) as house:
        async with talking(house) as talker:
            await talker.say("x" * 200_000)
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await talker.hear()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1009
        async with talking(house) as talker:
            await talker.result("farm.info")


async def test_text_that_is_not_utf8_closes_with_1007() -> None:
    async with open_house() as house, talking(house) as talker:
        # Masked by zeros: a text frame of one byte, 0xff.
        await talker.websocket._stream.send_all(b"\x81\x81\0\0\0\0\xff")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await talker.hear()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1007


async def test_requests_run_beside_each_other_up_to_a_bound() -> None:
    async with open_house() as house, talking(house, queue=200) as talker:
        house.control.slow_cancel = True
        jobs = [await house.control.new_job() for _ in range(70)]
        for number, job_id in enumerate(jobs):
            await talker.say({"jsonrpc": "2.0", "id": number, "method": "job.cancel", "params": {"id": job_id}})
        refused = [await talker.hear() for _ in range(6)]
        assert [answer["error"]["code"] for answer in refused] == [-32004] * 6
        await trio.testing.wait_all_tasks_blocked(0.05)
        for job_id in jobs[:64]:
            await house.control.finish(job_id, JobState.CANCELED)
        answered = {(await talker.hear())["id"] for _ in range(64)}
        assert answered == set(range(64))


async def read_watch(talker: Talker, job_id: str, from_seq: int = 1) -> list[tuple[int, str | None]]:
    """Every event's number and line until the end."""
    await talker.say(
        {"jsonrpc": "2.0", "id": "w", "method": "job.watch", "params": {"id": job_id, "from_seq": from_seq}}
    )
    answer = await talker.hear()
    assert answer["result"]["job"]["id"] == job_id
    seen: list[tuple[int, str | None]] = []
    while True:
        message = await talker.hear()
        assert message["params"]["watch"] == answer["result"]["watch"]
        if message["method"] == "job.end":
            assert message["params"]["job"]["state"] == "succeeded"
            return seen
        seen += [(event["seq"], event.get("line")) for event in message["params"]["events"]]


async def test_a_watch_from_any_number() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        await house.control.print(job_id, [f"line {number}" for number in range(50)])
        await house.control.finish(job_id)
        last = (await house.control.store.get(job_id)).next_seq
        async with talking(house) as talker:
            for from_seq in (-5, 0, 1, 2, 30, last - 1, last, last + 100, 10**30):
                seen = await read_watch(talker, job_id, from_seq)
                assert [seq for seq, _ in seen] == list(range(max(1, from_seq), last) if from_seq < last else [])


async def test_a_hundred_readers_get_every_line_once_and_in_order() -> None:
    # No pings: how the reading side answers one while it leaves is its own business.
    async with open_house(ping_seconds=600) as house:
        job_id = await house.control.new_job()
        results: list[list[tuple[int, str | None]]] = []
        ready = []

        async def read() -> None:
            async with talking(house) as talker:
                ready.append(1)
                results.append(await read_watch(talker, job_id))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(read)
            printed = []
            for batch in range(20):
                lines = [f"{batch}.{number} \N{SNOWMAN}" for number in range(20)]
                printed += lines
                await house.control.print(job_id, lines)
                await trio.sleep(0.001)
            await until(lambda: len(ready) == 100)
            await house.control.finish(job_id)
        assert len(results) == 100
        for seen in results:
            assert [seq for seq, _ in seen] == list(range(1, len(printed) + 5))
            assert [line for _, line in seen if line is not None] == printed


async def test_a_slow_reader_delays_nobody() -> None:
    async with open_house(send_seconds=600, ping_seconds=600) as house:
        job_id = await house.control.new_job()
        async with talking(house) as slow, talking(house) as quick:
            watch = {"jsonrpc": "2.0", "id": 0, "method": "job.watch", "params": {"id": job_id}}
            await slow.say(watch)
            async with trio.open_nursery() as nursery:
                seen: list[tuple[int, str | None]] = []

                async def read() -> None:
                    seen.extend(await read_watch(quick, job_id))

                nursery.start_soon(read)
                for _ in range(40):
                    await house.control.print(job_id, ["z" * 50_000] * 10)
                await house.control.finish(job_id)
                with trio.fail_after(40):
                    while len(seen) < 404:
                        await trio.sleep(0.01)
            # The slow one has all of it still before it, and gets it.
            await slow.hear()
            last = 0
            while (message := await slow.hear())["method"] == "job.events":
                for event in message["params"]["events"]:
                    assert event["seq"] == last + 1
                    last = event["seq"]
            assert last == 404


async def test_a_reader_that_reads_nothing_is_dropped_and_no_other() -> None:
    async with open_house(send_seconds=0.5) as house:
        job_id = await house.control.new_job()
        for _ in range(30):
            await house.control.print(job_id, ["z" * 50_000] * 10)
        async with talking(house) as stalled:
            await stalled.say({"jsonrpc": "2.0", "id": 0, "method": "job.watch", "params": {"id": job_id}})
            assert "result" in await stalled.hear()
            await house.control.finish(job_id)
            # Who comes from now on has all the time there is.
            house.door._config = msgspec.structs.replace(house.door._config, send_seconds=600)
            async with talking(house) as quick:
                assert len(await read_watch(quick, job_id)) == 304
            await until(lambda: house.door.tally.connections == 0)


async def test_whoever_lets_most_wait_is_dropped_where_too_much_waits() -> None:
    """64 large answers on each of thousands of connections would not fit into any machine."""
    async with open_house(send_seconds=1000, seconds=100) as house:
        house.door.backlog.most = 2 << 20
        job_id = await house.control.new_job()
        await house.control.print(job_id, ["x" * 60_000] * 100)
        async with talking(house) as honest, await connect(house) as hog:
            await honest.result("job.watch", {"id": job_id})
            head = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
            await hog.send_all(request_head("GET", "/ws", *head, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
            await until(lambda: house.door.tally.websockets == 2)
            asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "job.events", "params": {"id": job_id}}).encode()
            await hog.send_all((bytes((0x81, 0x80 | len(asked))) + bytes(4) + asked) * 60)
            await until(lambda: house.door.tally.websockets == 1)
            while (await honest.hear())["method"] != "job.events":
                pass


async def test_unwatch_and_the_limit_of_watches() -> None:
    async with open_house(maximum_watches=2) as house, talking(house, queue=50) as talker:
        job_id = await house.control.new_job()
        watches = []
        for _ in range(2):
            await talker.say(
                {"jsonrpc": "2.0", "id": 0, "method": "job.watch", "params": {"id": job_id, "from_seq": 9}}
            )
            watches.append((await talker.hear())["result"]["watch"])
        refused = await talker.error("job.watch", {"id": job_id})
        assert (refused["code"], refused["data"]["code"]) == (-32004, "too_many_watches")
        assert await talker.result("job.unwatch", {"watch": watches[0]}) == {}
        assert await talker.result("job.unwatch", {"watch": watches[0]}) == {}
        assert (await talker.error("job.unwatch", {"watch": 99}))["code"] == -32001
        await talker.result("job.watch", {"id": job_id, "from_seq": 9})
        assert house.door.tally.watches == 2
    await until(lambda: house.door.tally.watches == 0)


async def test_the_farm_as_it_changes() -> None:
    async with open_house() as house, talking(house) as talker:
        first = await house.control.new_job()
        farm = await talker.result("farm.watch")
        assert [job["id"] for job in farm["jobs"]] == [first]
        assert farm["workers"][0]["state"] == "free"
        assert farm["queue"]["queued"] == {"default": 1}
        await house.control.finish(first)
        await house.control.drain("w1", True)
        second = await house.control.new_job()
        jobs = {job["id"]: job["state"] for job in farm["jobs"]}
        state = ""
        with trio.fail_after(40):
            while jobs != {first: "succeeded", second: "queued"} or state != "draining":
                changed = await talker.hear()
                assert changed["method"] == "farm.changed"
                assert changed["params"]["watch"] == farm["watch"]
                jobs |= {job["id"]: job["state"] for job in changed["params"].get("jobs", [])}
                state = changed["params"].get("workers", [{"state": state}])[0]["state"]
        assert await talker.result("farm.unwatch", {"watch": farm["watch"]}) == {}


async def test_a_reader_is_told_that_the_door_closes() -> None:
    async with open_house() as house, talking(house) as talker:
        await talker.result("farm.watch")
        house.stop.cancel()
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            while True:
                await talker.hear()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1001


async def test_pings_go_out_and_a_silent_peer_is_dropped() -> None:
    async with open_house(ping_seconds=0.1, send_seconds=1) as house:
        async with talking(house) as talker:
            # The library answers pings by itself: a peer that lives is kept, here past the 4.2 s that another is given.
            await trio.sleep(5)
            assert (await talker.result("farm.info"))["status"] == "ready"
        async with talking(house) as silent:
            stream = silent.websocket._stream
            receive = stream.receive_some

            async def hold(most: int | None = None) -> bytes:
                await trio.sleep(60)
                return bytes(await receive(most))

            stream.receive_some = hold
            # One more message comes through before the library asks for more.
            await until(lambda: house.door.tally.websockets == 0)


async def test_json_of_the_wire_is_one_object_a_frame() -> None:
    async with open_house() as house, talking(house) as talker:
        await talker.say({"jsonrpc": "2.0", "id": 1, "method": "job.submit", "params": SPEC})
        text = await talker.websocket.get_message()
        assert isinstance(text, str)
        assert json.loads(text)["jsonrpc"] == "2.0"

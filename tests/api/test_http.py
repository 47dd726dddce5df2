"""Every route of the door, over real connections."""

import json

import pytest
import trio
import trio.testing

from blacktree.job import JobState
from blacktree.orchestrator.control import Readiness
from tests.api.little import SPEC, open_house
from tests.api.talk import BEARER, Visitor, ask, connect, raw, request_head

JSON = {"Content-Type": "application/json"}


async def test_a_job_from_submission_to_log() -> None:
    async with open_house() as house:
        made = await ask(house, "POST", "/api/v1/jobs", headers=JSON, body=json.dumps(SPEC).encode())
        assert made.status == 201
        job_id = made.json["id"]
        assert made.headers["location"] == f"/api/v1/jobs/{job_id}"
        assert made.json["state"] == "queued"
        assert made.json["waiting"]
        await house.control.print(job_id, ["one", "two \N{SNOWMAN}"])
        await house.control.finish(job_id)
        job = (await ask(house, "GET", f"/api/v1/jobs/{job_id}")).json
        assert job["state"] == "succeeded"
        assert "token" not in json.dumps(job)
        events = (await ask(house, "GET", f"/api/v1/jobs/{job_id}/events?from_seq=2&limit=2")).json
        assert [(event["seq"], event.get("line")) for event in events["events"]] == [(2, "one"), (3, "two \N{SNOWMAN}")]
        assert events["next_seq"] == 4
        log = await ask(house, "GET", f"/api/v1/jobs/{job_id}/log")
        assert log.body.decode() == "one\ntwo \N{SNOWMAN}\n"
        assert log.headers["content-type"] == "text/plain; charset=utf-8"
        retried = await ask(house, "POST", f"/api/v1/jobs/{job_id}/retry")
        assert retried.status == 201
        assert retried.json["retry_of"] == job_id
        canceled = await ask(house, "POST", f"/api/v1/jobs/{retried.json['id']}/cancel", body=b'{"reason": "no need"}')
        assert (canceled.status, canceled.json["state"]) == (200, "canceled")
        conflict = await ask(house, "POST", f"/api/v1/jobs/{await house.control.new_job()}/retry")
        assert (conflict.status, conflict.json["code"]) == (409, "conflict")


async def test_events_past_the_end_and_odd_numbers_are_clamped() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        base = f"/api/v1/jobs/{job_id}/events"
        assert (await ask(house, "GET", f"{base}?from_seq=99")).json == {"events": [], "next_seq": 99}
        for query in ("limit=0", "limit=-5", "limit=999999999999999999999", "from_seq=-3", "from_seq=&limit="):
            assert len((await ask(house, "GET", f"{base}?{query}")).json["events"]) == 1
        assert (await ask(house, "GET", f"{base}?from_seq={10**30}")).json["events"] == []
        bad = await ask(house, "GET", f"{base}?limit=many")
        assert (bad.status, bad.json["path"]) == (400, "limit")


async def test_ranges_of_the_log() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        path = f"/api/v1/jobs/{job_id}/log"
        empty = await ask(house, "GET", path)
        assert (empty.status, empty.body) == (200, b"")
        assert (await ask(house, "GET", path, headers={"Range": "bytes=0-"})).status == 416
        await house.control.print(job_id, ["0123456789"])
        for asked, status, body in [
            ("bytes=0-3", 206, b"0123"),
            ("bytes=4-", 206, b"456789\n"),
            ("bytes=-2", 206, b"9\n"),
            ("bytes=-200", 206, b"0123456789\n"),
            ("bytes=2-999", 206, b"23456789\n"),
            ("bytes=3-2", 200, b"0123456789\n"),
            ("bytes=0-1,3-4", 200, b"0123456789\n"),
            ("lines=0-1", 200, b"0123456789\n"),
            ("bytes=-", 200, b"0123456789\n"),
        ]:
            answer = await ask(house, "GET", path, headers={"Range": asked})
            assert (answer.status, answer.body) == (status, body), asked
        partial = await ask(house, "GET", path, headers={"Range": "bytes=0-3"})
        assert partial.headers["content-range"] == "bytes 0-3/11"
        beyond = await ask(house, "GET", path, headers={"Range": "bytes=11-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */11")
        head = await ask(house, "HEAD", path)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "11")


async def test_a_list_is_filtered_and_paged() -> None:
    async with open_house() as house:
        ids = [await house.control.new_job() for _ in range(3)]
        await house.control.finish(ids[0], JobState.CANCELED)
        queued = (await ask(house, "GET", "/api/v1/jobs?state=queued&state=running")).json["jobs"]
        assert {job["id"] for job in queued} == set(ids[1:])
        seen: list[str] = []
        cursor = ""
        while True:
            page = (await ask(house, "GET", f"/api/v1/jobs?state=&limit=2&cursor={cursor}")).json
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        assert sorted(seen) == sorted(ids)
        wrong = await ask(house, "GET", "/api/v1/jobs?state=runing")
        assert (wrong.status, wrong.json["advice"]) == (400, "did you mean `running`?")
        unknown = await ask(house, "GET", "/api/v1/jobs?lim=3")
        assert (unknown.status, unknown.json["path"], unknown.json["advice"]) == (400, "lim", "did you mean `limit`?")
        assert (await ask(house, "GET", "/api/v1/jobs?cursor=rubbish")).status in (400, 422)


async def test_the_same_key_answers_with_the_first_job() -> None:
    async with open_house() as house:
        body = json.dumps(SPEC).encode()
        headers = {**JSON, "Idempotency-Key": "k1"}
        first = await ask(house, "POST", "/api/v1/jobs", headers=headers, body=body)
        second = await ask(house, "POST", "/api/v1/jobs", headers=headers, body=body)
        assert (first.status, second.status) == (201, 200)
        assert first.json["id"] == second.json["id"]
        other = json.dumps({**SPEC, "ref": "main"}).encode()
        assert (await ask(house, "POST", "/api/v1/jobs", headers=headers, body=other)).status == 409


@pytest.mark.parametrize(
    ("body", "headers", "status", "path"),
    [
        (b"{", JSON, 400, "spec"),
        (b"[]", JSON, 422, "spec"),
        (b"{}", JSON, 422, "spec.repository"),
        (b'{"repository": 5}', JSON, 422, "spec.repository"),
        (b'{"repository": "https://e.test/a", "conext": "x"}', JSON, 422, "spec.conext"),
        (b'{"repository": "https://e.test/a", "ref": "--upload-pack=x"}', JSON, 422, "spec.ref"),
        (b'{"repository": "https://e.test/a", "priority": 10}', JSON, 422, "spec.priority"),
        (b'{"repository": "\\ud800"}', JSON, 400, "spec"),
        (b"\xff\xfe", JSON, 400, "spec"),
        (
            b'{"repository": "https://e.test/a", "priority": 2.0, "tags": %b}' % (b"[" * 900 + b"]" * 900),
            JSON,
            400,
            "spec",
        ),
        (b"{}", {"Content-Type": "text/plain"}, 415, None),
        (b"{}", {**JSON, "Content-Encoding": "gzip"}, 415, None),
    ],
)
async def test_bad_submissions(body: bytes, headers: dict[str, str], status: int, path: str | None) -> None:
    async with open_house() as house:
        answer = await ask(house, "POST", "/api/v1/jobs", headers=headers, body=body)
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json.get("path") == path
        assert answer.json["status"] == status
        assert answer.json["detail"]


async def test_a_body_needs_a_length_and_has_a_limit() -> None:
    async with open_house() as house:
        head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {BEARER['Authorization']}\r\n".encode()
        assert b" 411 " in await raw(house, head + b"Connection: close\r\n\r\n")
        big = b"x" * (2 << 20)
        assert (await ask(house, "POST", "/api/v1/jobs", headers=JSON, body=big)).status == 413
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"40000\r\n" + b" " * 0x40000 + b"\r\n"
        answer = await raw(house, chunked + (b"40000\r\n" + b" " * 0x40000 + b"\r\n") * 8 + b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "chunks",
    [b"-2\r\n{}\r\n0\r\n\r\n", b"f" * 30 + b"\r\n{}", b"2\r\n{}XX0\r\n\r\n", b"2;" + b"a" * 100_000 + b"\r\n{}"],
)
async def test_a_body_that_is_none_is_the_clients_fault(chunks: bytes) -> None:
    async with open_house() as house:
        head = request_head("POST", "/api/v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked")
        answer = await raw(house, head + chunks)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"malformed"' in answer


async def test_unknown_things_are_404_and_wrong_methods_405() -> None:
    async with open_house() as house:
        for path in ("/nothing", "/api/v1/jobs/", "/api/v1/jobs/unknown", "/api/v1/jobs/a%2Fb", "/api/v1/jobs/%00%ff"):
            answer = await ask(house, "GET", path)
            assert (answer.status, answer.json["code"]) == (404, "not_found"), path
        for path in ("cancel", "retry"):
            assert (await ask(house, "POST", f"/api/v1/jobs/{'x' * 3000}/{path}")).status == 404
        for path in ("events", "log"):
            assert (await ask(house, "GET", f"/api/v1/jobs/unknown/{path}")).status == 404
        assert (await ask(house, "POST", "/api/v1/workers/w9/drain", body=b"{}")).status == 404
        wrong = await ask(house, "DELETE", "/api/v1/jobs")
        assert (wrong.status, wrong.json["code"]) == (405, "method_not_allowed")
        assert set(wrong.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "POST"}
        assert (await ask(house, "GET", "/api/v1/jobs/x/cancel")).status == 405


async def test_workers_and_drain() -> None:
    async with open_house() as house:
        workers = (await ask(house, "GET", "/api/v1/workers")).json["workers"]
        assert [(worker["id"], worker["state"]) for worker in workers] == [("w1", "free")]
        drained = await ask(house, "POST", "/api/v1/workers/w1/drain", headers=JSON, body=b'{"drain": true}')
        assert (drained.status, drained.json["state"]) == (200, "draining")
        undone = await ask(house, "POST", "/api/v1/workers/w1/drain", headers=JSON, body=b'{"drain": false}')
        assert undone.json["state"] == "free"
        wrong = await ask(house, "POST", "/api/v1/workers/w1/drain", headers=JSON, body=b'{"drained": true}')
        assert (wrong.status, wrong.json["path"]) == (422, "body.drained")


async def test_health_readiness_and_metrics() -> None:
    async with open_house() as house:
        assert (await ask(house, "GET", "/healthz", token=False)).json == {"status": "ok"}
        assert (await ask(house, "GET", "/readyz", token=False)).json == {"status": "ready"}
        house.control.state = Readiness(state="degraded", reasons=["the broker is away"])
        bare = await ask(house, "GET", "/readyz", token=False)
        assert (bare.status, bare.json) == (503, {"status": "degraded"})
        told = await ask(house, "GET", "/readyz")
        assert (told.status, told.json["reasons"]) == (503, ["the broker is away"])
        metrics = await ask(house, "GET", "/metrics")
        text = metrics.body.decode()
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'blacktree_jobs{state="queued"} 3.0' in text
        assert 'blacktree_jobs{state="odd\\"one"} 1.0' in text
        assert "# TYPE blacktree_commits_total counter" in text or "# TYPE blacktree_commits counter" in text
        assert "blacktree_door_connections 1.0" in text
        assert 'blacktree_door_requests_total{status="503"} 2.0' in text


async def test_draining_says_when_to_come_again() -> None:
    async with open_house() as house:
        house.control.state = Readiness(state="draining", reasons=[])
        answer = await ask(house, "POST", "/api/v1/jobs", headers=JSON, body=json.dumps(SPEC).encode())
        assert (answer.status, answer.headers["retry-after"], answer.json["code"]) == (503, "7", "draining")


async def test_the_unforeseen_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with open_house() as house:
        house.control.explode = True
        answer = await ask(house, "POST", "/api/v1/jobs", headers=JSON, body=json.dumps(SPEC).encode())
        assert (answer.status, answer.json["code"]) == (500, "internal")
        assert b"foresaw" not in answer.body
        assert (await ask(house, "GET", "/healthz")).status == 200


async def test_the_farms_events_wait_for_the_first() -> None:
    async with open_house() as house:
        assert (await ask(house, "GET", "/api/v1/events")).json == {"events": [], "next_seq": 1}
        await house.control.store.note("started", "the farm has started")
        found = (await ask(house, "GET", "/api/v1/events")).json
        assert [(event["seq"], event["type"]) for event in found["events"]] == [(1, "started")]
        assert found["next_seq"] == 2
        async with trio.open_nursery() as nursery:
            answers = []

            async def wait() -> None:
                answers.append((await ask(house, "GET", "/api/v1/events?from_seq=2&wait=15")).json)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await house.control.store.note("worker_joined", "w1 joined", subject="w1")
            house.control.journal.touch()
        assert [event["type"] for event in answers[0]["events"]] == ["worker_joined"]


async def test_a_connection_is_kept_and_pipelined_requests_keep_their_order() -> None:
    async with open_house() as house:
        async with await connect(house) as stream:
            visitor = Visitor(stream)
            for _ in range(3):
                assert (await visitor.ask("GET", "/healthz")).status == 200
            bad = await visitor.ask("GET", "/api/v1/jobs")
            assert bad.status == 401
            assert (await visitor.ask("GET", "/api/v1/jobs", headers=BEARER)).status == 200
        one = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        last = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        answers = await raw(house, one + one + last)
        assert answers.count(b"HTTP/1.1 200 ") == 3
        assert answers.rstrip().endswith(b'{"status":"ready"}')


async def test_expect_100_continue() -> None:
    async with open_house() as house:
        body = json.dumps(SPEC).encode()
        head = (
            f"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {BEARER['Authorization']}\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        ).encode()
        async with await connect(house) as stream:
            await stream.send_all(head)
            assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 100 ")
            await stream.send_all(body)
            assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 201 ")
        # Refused before the body was asked for.
        answer = await raw(house, head.replace(b"Bearer ", b"Bearer x"))
        assert answer.startswith(b"HTTP/1.1 401 ")

"""Validators, codings, ranges, kinds of content, problems, CORS, cursors and idempotency keys over HTTP."""

import gzip
import json

import pytest

from blacktree.api.cors import Cors
from blacktree.api.negotiation import check_accept, has_tag, takes_gzip
from blacktree.errors import BadRequest
from tests.api.little import SPEC, open_house
from tests.api.talk import Answer, ask

JSON = {"Content-Type": "application/json"}
DASH = "https://dash.example.org"


def is_problem(answer: Answer, status: int, code: str) -> bool:
    value = answer.json
    told = (answer.status, answer.headers["content-type"], value["status"], value["code"])
    assert told == (status, "application/problem+json", status, code)
    return {"type", "title", "detail"} <= value.keys()


async def test_a_log_has_a_strong_tag_that_changes_as_it_grows() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        path = f"/api/v1/jobs/{job_id}/log"
        await house.control.print(job_id, ["one"])
        first = await ask(house, "GET", path)
        tag = first.headers["etag"]
        assert tag.startswith('"')
        for held in (tag, f'"x", {tag}', f"W/{tag}", "*"):
            same = await ask(house, "GET", path, headers={"If-None-Match": held})
            assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
        await house.control.print(job_id, ["two"])
        newer = await ask(house, "GET", path, headers={"If-None-Match": tag})
        assert (newer.status, newer.body) == (200, b"one\ntwo\n")
        assert newer.headers["etag"] != tag
        rest = {"Range": "bytes=4-", "If-Range": newer.headers["etag"]}
        assert (await ask(house, "GET", path, headers=rest)).status == 206
        stale = {"Range": "bytes=4-", "If-Range": tag}
        assert (await ask(house, "GET", path, headers=stale)).body == b"one\ntwo\n"


async def test_a_log_is_compressed_for_who_takes_that() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        path = f"/api/v1/jobs/{job_id}/log"
        lines = [f"line {number} of many" for number in range(50_000)]
        await house.control.print(job_id, lines)
        plain = await ask(house, "GET", path)
        packed = await ask(house, "GET", path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
        assert (packed.status, packed.headers["content-encoding"]) == (200, "gzip")
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < len(plain.body) / 5
        assert packed.headers["etag"] != plain.headers["etag"]
        assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
        known = {"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]}
        assert (await ask(house, "GET", path, headers=known)).status == 304
        part = await ask(house, "GET", path, headers={"Accept-Encoding": "gzip", "Range": "bytes=0-3"})
        assert (part.status, part.body, "content-encoding" in part.headers) == (206, b"line", False)
        refused = await ask(house, "GET", path, headers={"Accept-Encoding": "gzip;q=0"})
        assert "content-encoding" not in refused.headers


async def test_a_page_of_events_has_a_tag_and_is_compressed() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        path = f"/api/v1/jobs/{job_id}/events"
        tag = (await ask(house, "GET", path)).headers["etag"]
        known = await ask(house, "GET", path, headers={"If-None-Match": tag})
        assert (known.status, known.headers["blacktree-end-seq"]) == (304, "1")
        await house.control.print(job_id, ["word " * 20] * 500)
        plain = await ask(house, "GET", path, headers={"If-None-Match": tag})
        assert (plain.status, len(plain.json["events"])) == (200, 501)
        packed = await ask(house, "GET", path, headers={"Accept-Encoding": "gzip"})
        assert json.loads(gzip.decompress(packed.body)) == plain.json
        assert packed.headers["etag"] != plain.headers["etag"]


async def test_every_error_is_a_problem() -> None:
    async with open_house() as house:
        body = json.dumps(SPEC).encode()
        assert is_problem(await ask(house, "GET", "/api/v1/nothing"), 404, "not_found")
        wrong = await ask(house, "DELETE", "/api/v1/jobs")
        assert is_problem(wrong, 405, "method_not_allowed")
        assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
        other = await ask(house, "POST", "/api/v1/jobs", headers={"Content-Type": "text/plain"}, body=body)
        assert is_problem(other, 415, "bad_media_type")
        unacceptable = await ask(house, "GET", "/api/v1/jobs", headers={"Accept": "text/html, image/*"})
        assert is_problem(unacceptable, 406, "bad_accept")
        assert is_problem(await ask(house, "GET", "/api/v1/jobs/none"), 404, "not_found")
        assert is_problem(await ask(house, "GET", "/api/v1/jobs", token=False), 401, "unauthorized")
        assert is_problem(await ask(house, "POST", "/api/v1/jobs", headers=JSON, body=b"{"), 400, "malformed")
        assert is_problem(await ask(house, "POST", "/api/v1/jobs", headers=JSON, body=b"{}"), 422, "invalid")
        taken = await ask(house, "GET", "/api/v1/jobs", headers={"Accept": "text/html, application/*;q=0.1"})
        assert taken.status == 200


async def test_cors_is_off_unless_it_is_configured() -> None:
    asks = {"Origin": DASH, "Access-Control-Request-Method": "POST"}
    async with open_house() as house:
        answer = await ask(house, "GET", "/api/v1/jobs", headers={"Origin": DASH})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert (await ask(house, "OPTIONS", "/api/v1/jobs", headers=asks, token=False)).status == 401


async def test_pages_of_a_configured_origin_may_use_the_api_with_a_token() -> None:
    asks = {"Origin": DASH, "Access-Control-Request-Method": "POST"}
    async with open_house(cors_origins=[DASH]) as house:
        before = await ask(house, "OPTIONS", "/api/v1/jobs", headers=asks, token=False)
        assert (before.status, before.headers["access-control-allow-origin"]) == (204, DASH)
        assert "Authorization" in before.headers["access-control-allow-headers"]
        body = json.dumps(SPEC).encode()
        made = await ask(house, "POST", "/api/v1/jobs", headers=JSON | {"Origin": DASH}, body=body)
        assert (made.status, made.headers["access-control-allow-origin"]) == (201, DASH)
        assert "access-control-allow-credentials" not in made.headers
        unknown = await ask(house, "GET", "/api/v1/jobs", headers={"Origin": DASH}, token=False)
        assert (unknown.status, unknown.headers["access-control-allow-origin"]) == (401, DASH)
        foreign = await ask(house, "POST", "/api/v1/jobs", headers=JSON | {"Origin": "https://else.test"}, body=body)
        assert (foreign.status, foreign.json["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in foreign.headers
        assert (await ask(house, "OPTIONS", "/login", headers=asks, token=False)).status != 204
        session, _ = house.door.auth.new_session(house.door.auth.farm)
        cookie = {"Origin": DASH, "Cookie": f"blacktree_{house.port}={session}"}
        lured = await ask(house, "POST", "/api/v1/jobs", headers=JSON | cookie, body=body, token=False)
        assert (lured.status, lured.json["code"]) == (403, "origin_not_allowed")


def test_every_origin() -> None:
    cors = Cors(["*"])
    assert cors.permits("https://any.test")
    assert not cors.permits(None)
    assert cors.headers("/login", {"origin": DASH}) == []


async def test_a_cursor_stays_valid_while_jobs_are_added() -> None:
    async with open_house() as house:
        ids = [await house.control.new_job() for _ in range(5)]
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = (await ask(house, "GET", f"/api/v1/jobs?limit=2&cursor={cursor}")).json
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["cursor"]
            await house.control.new_job()
        assert seen == ids[::-1]


@pytest.mark.parametrize(
    ("accept", "fits"),
    [
        ("application/json", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("application/json;q=0, text/html", False),
        ("image/*", False),
        ("APPLICATION/*", True),
        ("", False),
    ],
)
def test_accept(accept: str, fits: bool) -> None:
    if fits:
        check_accept(accept, "application/json")
    else:
        with pytest.raises(BadRequest):
            check_accept(accept, "application/json")


def test_small_words_of_http() -> None:
    assert takes_gzip({"accept-encoding": "*"})
    assert not takes_gzip({"accept-encoding": "identity"})
    assert not has_tag('"ab"', '"a"')

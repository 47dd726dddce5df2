"""Jobs straight from RabbitMQ, as a client sends them that knows nothing of Blacktree; and what it gets back."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.cipher import new_key
from blacktree.concurrency.threads import in_thread
from blacktree.job import Failure, Image, Outcome
from blacktree.orchestrator.clonetokens import KIND
from blacktree.storage.sqlite import SqliteStore
from tests.orchestrator.conftest import House, open_house
from tests.orchestrator.test_ticket import BAD, MESSAGE
from tests.parts.rabbit import RabbitNode, shared_node
from tests.parts.stranger import Stranger
from tests.parts.toy_worker import lines
from tests.parts.written import contents

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]

TOKEN = MESSAGE["token"]
KEY = new_key()


@pytest.fixture
async def node() -> RabbitNode:
    node = await in_thread(shared_node)
    await in_thread(node.clear)
    return node


@pytest.fixture
def stranger(node: RabbitNode) -> Stranger:
    return Stranger(node.url)


@asynccontextmanager
async def open_farm(directory: Path, node: RabbitNode, **settings: Any) -> AsyncIterator[House]:
    """An orchestrator that reads from this RabbitMQ, and has a key."""
    settings = {"keys": [KEY], "lease_seconds": 30.0, "broker_url": node.url} | settings
    async with open_house(directory, **settings) as house:
        while house.control.readiness().state != "ready":
            await trio.sleep(0.02)
        yield house


@pytest.fixture
async def house(tmp_path: Path, node: RabbitNode) -> AsyncIterator[House]:
    async with open_farm(tmp_path, node) as house:
        yield house


def message(id: str, **changes: Any) -> dict[str, Any]:
    return MESSAGE | {"deploymentId": id} | changes


def direct(id: str, **spec: Any) -> dict[str, Any]:
    return {"id": id, "spec": {"repository": "https://x/y"} | spec}


def stored(house: House) -> bytes:
    """Every byte that lies in the state directory."""
    return b"".join(contents(house.directory / "state").values())


async def tokens_of(house: House) -> list[str]:
    """The jobs that a sealed token is kept for, as another process would read them."""
    import sqlite3

    def look() -> list[str]:
        with sqlite3.connect(house.directory / "state" / "blacktree.db") as connection:
            return [name for (name,) in connection.execute("SELECT name FROM document WHERE kind = ?", (KIND,))]

    return await in_thread(look)


async def until_no_tokens(house: House) -> None:
    while await tokens_of(house):
        await trio.sleep(0.01)


async def test_the_original_systems_message(house: House, stranger: Stranger) -> None:
    """The token reaches the worker and nobody else, lies sealed while it is needed, and is gone afterwards."""
    worker = await house.worker(slots=1)
    await stranger.publish(MESSAGE)
    assignment = await worker.next_assignment()
    assert assignment.name.job_id == MESSAGE["deploymentId"]
    assert assignment.clone_token == TOKEN
    assert assignment.spec.repository == "https://github.com/owner/repo.git"
    assert await tokens_of(house) == [MESSAGE["deploymentId"]]
    assert TOKEN.encode() not in stored(house)
    await worker.say(assignment, lines("ü" * 20_000, "ü" * 20_000, "the end!"), commit="a" * 40)
    await worker.end(assignment, Outcome(state="succeeded", image=Image(reference="blacktree/x:1", id="sha256:0")))
    [told] = await stranger.take("status.queue")
    assert set(told.value) == {"deploymentId", "success", "imageUrl", "logs", "error", "job"}
    assert told.message_id == told.value["deploymentId"] == told.value["job"]["id"] == MESSAGE["deploymentId"]
    assert (told.value["success"], told.value["imageUrl"], told.value["error"]) == (True, "blacktree/x:1", None)
    # The last 64 KiB, cut between characters.
    assert re.fullmatch("ü+\nü{20000}\nthe end!\n", told.value["logs"])
    assert 65_000 < len(told.value["logs"].encode()) <= 65_536
    assert TOKEN.encode() not in told.body
    await until_no_tokens(house)
    assert TOKEN.encode() not in stored(house)


async def test_a_failed_job_says_why(house: House, stranger: Stranger) -> None:
    worker = await house.worker(slots=1)
    await stranger.publish(direct("a"))
    assignment = await worker.next_assignment()
    assert assignment.clone_token == ""
    await worker.end(assignment, Outcome(state="failed", error=Failure(code="x", message="no such branch")))
    [told] = await stranger.take("status.queue")
    assert told.value | {"job": None} == {
        "deploymentId": "a",
        "success": False,
        "imageUrl": None,
        "logs": "",
        "error": "no such branch",
        "job": None,
    }


@pytest.mark.parametrize("body", [message("again"), direct("again")], ids=["original", "direct"])
async def test_a_redelivery_is_harmless(house: House, stranger: Stranger, body: dict[str, Any]) -> None:
    """Before, during and after the build: one job, one build, one result."""
    await stranger.publish(body, body, body)
    worker = await house.worker(slots=2)
    assignment = await worker.next_assignment()
    await stranger.publish(body)
    await worker.end(assignment)
    await house.until("again", "succeeded")
    await stranger.publish(body, direct("last"))
    last = await worker.next_assignment()
    assert last.name.job_id == "last"
    await worker.end(last)
    assert [each.value["deploymentId"] for each in await stranger.take("status.queue", 2)] == ["again", "last"]
    assert await stranger.rest("execute.dead") == await stranger.rest("execute.queue") == []
    await until_no_tokens(house)


async def test_the_same_id_with_another_spec_is_a_conflict(house: House, stranger: Stranger) -> None:
    worker = await house.worker(slots=2)
    await stranger.publish(message("one"))
    first = await worker.next_assignment()
    # A token that comes with a refused message never serves the job that is there.
    await stranger.publish(message("one", branch="other", token="gho_another"), direct("one"), direct("two"))
    assert (await worker.next_assignment()).name.job_id == "two"
    dead = await stranger.take("execute.dead", 2)
    assert [each.reason.split(":")[0] for each in dead] == ["conflict", "conflict"]
    assert dead[0].value == message("one", branch="other", token="***")
    assert await tokens_of(house) == ["one"]
    await worker.end(first, Outcome(state="failed", error=Failure(code="x", message="again", retryable=True)))
    assert (await worker.next_assignment()).clone_token == TOKEN


async def test_a_conflict_keeps_no_token(house: House, stranger: Stranger) -> None:
    worker = await house.worker(slots=2)
    await stranger.publish(direct("one"), message("one"), direct("two"))
    assert {(await worker.next_assignment()).name.job_id for _ in range(2)} == {"one", "two"}
    await stranger.take("execute.dead", 1)
    assert await tokens_of(house) == []


ODD = [
    b"",
    b"\xff\xfe\x00",
    b"[]",
    b"{" * 5000,
    b'{"id": "a"}',
    b'{"id": "a", "generation": -1}',
    b'{"id": "nobody", "generation": 1}',
    b'{"deploymentId": "cut off", "token": "' + TOKEN.encode(),
    {"id": "a/b", "spec": {"repository": "https://x/y"}},
    {"id": "a", "spec": {"repository": "https://x/y", "nope": 1}},
    {"id": "a", "spec": {"repository": "ext::sh -c id"}},
    {"id": "a", "spec": {"repository": "/etc"}},
    {"id": "a", "spec": {"repository": "https://x/y", "pool": "Not A Pool"}},
    *(message("bad", **changes) for changes, _ in BAD),
]


async def test_bad_bodies_go_aside_and_hold_up_nobody(house: House, stranger: Stranger) -> None:
    await house.worker(slots=2, automatic=True)
    bodies: list[Any] = []
    for number, odd in enumerate(ODD):
        bodies += [odd, direct(f"good-{number}")]
    await stranger.publish(*bodies)
    told = await stranger.take("status.queue", len(ODD))
    assert {each.value["deploymentId"] for each in told} == {f"good-{number}" for number in range(len(ODD))}
    dead = await stranger.take("execute.dead", len(ODD))
    assert await stranger.rest("execute.dead") == []
    for each in dead:
        assert re.match(r"[a-z_]+: \S", each.reason), each
        assert TOKEN not in each.reason
        assert TOKEN.encode() not in each.body
    # Nothing of them is lost but the token.
    assert b"{" * 5000 in [each.body for each in dead]
    assert b'{"deploymentId": "cut off", "token": "***' in [each.body for each in dead]


async def test_huge_bodies_and_odd_properties(house: House, stranger: Stranger) -> None:
    await house.worker(slots=1, automatic=True)
    huge = b'{"id": "huge", "spec": {"repository": "' + b"x" * (10 << 20) + b'"}}'
    secret = b'{"deploymentId": "h", "branch": "' + b"x" * (10 << 20) + b'", "token": "' + TOKEN.encode() + b'"}'
    await stranger.publish(huge, secret, direct("after"))
    await stranger.publish(
        b"odd", priority=255, headers={"big": "x" * 100_000, "number": 7, "table": {"a": [1]}}, expiration=3600
    )
    await stranger.publish(b"odd", headers={"kept": "x"}, message_id="m" * 255, correlation_id="c", reply_to="nobody")
    await stranger.publish(direct("last"))
    assert len(await stranger.take("status.queue", 2)) == 2
    dead = await stranger.take("execute.dead", 4)
    by_size = {len(each.body): each for each in dead}
    assert by_size[len(huge)].body == huge
    assert by_size[len(huge)].reason.startswith("too_large: ")
    assert by_size[len(secret) - len(TOKEN) + 3].reason.startswith("too_large: ")
    assert [each.headers["kept"] for each in dead if each.message_id == "m" * 255] == ["x"]


async def test_properties_that_cannot_be_read_break_no_connection(house: House, stranger: Stranger) -> None:
    """The body counts: what is no job goes aside, and what is one is built."""
    await house.worker(slots=1, automatic=True)
    await stranger.publish_bytes_as_text(b"odd")
    await stranger.publish_bytes_as_text(json.dumps(direct("odd-and-good")).encode())
    await stranger.publish(direct("last"))
    told = await stranger.take("status.queue", 2)
    assert [each.value["deploymentId"] for each in told] == ["odd-and-good", "last"]
    [dead] = await stranger.take("execute.dead")
    assert dead.body == b"odd"
    assert not any(event.type == "broker_lost" for event in await house.control.farm_events(1, 100))


async def test_the_higher_priority_goes_first(house: House, stranger: Stranger) -> None:
    """The priority of the message counts, in both forms; one without counts as 0."""
    worker = await house.worker(slots=1)
    await stranger.publish(direct("first"))
    held = await worker.next_assignment()
    await stranger.publish(message("none"))
    for priority, body in ((2, direct("two")), (9, message("nine")), (5, direct("five"))):
        await stranger.publish(body, priority=priority)
    order = []
    for _ in range(4):
        await worker.end(held)
        held = await worker.next_assignment()
        order.append(held.name.job_id)
    assert order == ["nine", "five", "two", "none"]


async def test_many_at_once(house: House, stranger: Stranger) -> None:
    await house.worker(slots=8, automatic=True)
    wanted = {f"{kind}-{number}" for number in range(150) for kind in ("o", "d")}

    async def send(kind: str) -> None:
        bodies = [message(f"o-{n}") if kind == "o" else direct(f"d-{n}") for n in range(150)]
        await stranger.publish(*bodies)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, "o")
        nursery.start_soon(send, "d")
    told = await stranger.take("status.queue", len(wanted))
    assert {each.value["deploymentId"] for each in told} == wanted
    assert all(each.value["success"] for each in told)
    await until_no_tokens(house)
    assert await stranger.rest("execute.dead") == []


async def test_another_pool(house: House, stranger: Stranger) -> None:
    """On its own queue, or on the wrong one: it gets where its spec says."""
    arm = await house.worker(pool="arm", slots=2)
    await stranger.publish(direct("wrong-queue", pool="arm"))
    # Without a slot in the default pool its queue is not read.
    await house.worker(slots=1)
    assert (await arm.next_assignment()).name.job_id == "wrong-queue"
    await stranger.publish(direct("right-queue", pool="arm"), key="worker.execute.arm")
    assert (await arm.next_assignment()).name.job_id == "right-queue"


async def test_a_token_outlives_a_restart(tmp_path: Path, node: RabbitNode, stranger: Stranger) -> None:
    async with open_farm(tmp_path, node) as house:
        worker = await house.worker(slots=1)
        await stranger.publish(MESSAGE)
        assert (await worker.next_assignment()).clone_token == TOKEN
        house.stop.set()
        await house.ended.wait()
        assert await tokens_of(house) == [MESSAGE["deploymentId"]]
    async with open_farm(tmp_path, node) as house:
        worker = await house.worker(slots=1)
        assignment = await worker.next_assignment()
        assert assignment.clone_token == TOKEN
        await worker.end(assignment)
        await until_no_tokens(house)


async def test_a_token_that_cannot_be_read_any_more_ends_its_job(
    tmp_path: Path, node: RabbitNode, stranger: Stranger
) -> None:
    async with open_farm(tmp_path, node) as house:
        worker = await house.worker(slots=1)
        await stranger.publish(MESSAGE)
        await worker.next_assignment()
    async with open_farm(tmp_path, node, keys=[new_key()]) as house:
        await house.worker(slots=1)
        job = await house.finished(MESSAGE["deploymentId"])
        assert job.state == "failed"
        assert job.error is not None
        assert job.error.code == "clone_token_unreadable"
        assert "publish the job again" in job.error.advice
        await until_no_tokens(house)


async def test_without_a_key_no_token_is_taken(tmp_path: Path, node: RabbitNode, stranger: Stranger) -> None:
    async with open_farm(tmp_path, node, keys=[]) as house:
        await house.worker(slots=1, automatic=True)
        await stranger.publish(MESSAGE, message("public", token=""))
        [dead] = await stranger.take("execute.dead")
        assert dead.reason.startswith("no_secrets_key: ")
        assert "publish" in dead.reason or "secrets_key_file" in dead.reason
        assert dead.value == MESSAGE | {"token": "***"}
        [told] = await stranger.take("status.queue")
        assert told.value["deploymentId"] == "public"


async def test_what_a_crash_left_is_dropped_at_the_start(tmp_path: Path, node: RabbitNode) -> None:
    """Between the token's commit and its job's, or between the job's end and its token's."""
    async with open_farm(tmp_path, node) as house:
        ended = await house.submit()
        await house.control.cancel(ended)
        waiting = await house.submit()
    async with trio.open_nursery() as nursery:
        store = SqliteStore(tmp_path / "state")
        await nursery.start(store.run)
        for name in ("never-came", ended, waiting):
            await store.revise(KIND, name, lambda _: b"sealed")
        nursery.cancel_scope.cancel()
    async with open_farm(tmp_path, node) as house:
        assert await tokens_of(house) == [waiting]

"""Notifications at a receiver on loopback: signed, filtered, repeated, in order, carried over restarts."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.cipher import new_key
from blacktree.errors import BadRequest, Conflict, NotFound
from blacktree.job import Failure, Image, Outcome
from blacktree.notification import DEFAULT_EVENTS, EVENTS, Target, key_of, signed, target_from
from blacktree.orchestrator import rows
from blacktree.orchestrator.lane import Lane, Waiting
from blacktree.orchestrator.sender import is_final, refuses_this_one, trouble
from blacktree.secret import SecretKind
from tests.orchestrator.conftest import House, open_house
from tests.orchestrator.deploying import a_worker, deploy
from tests.orchestrator.deploying import until as until_deployed
from tests.parts.receiver import SECRET, Receiver, open_receiver

KEY = new_key()
SLOW = 40.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as opened:
        yield opened
        assert all(each.genuine for each in opened.all)


def a_target(receiver: Receiver, path: str = "/hook", name: str = "", **more: Any) -> Target:
    name = name or path.strip("/")
    return target_from({"name": name, "url": receiver.url(path), "secret": "hook", **more})


@asynccontextmanager
async def telling(directory: Path, *targets: Target, **settings: Any) -> AsyncIterator[House]:
    async with open_house(directory, keys=[KEY], retry_limit_seconds=0.2, **settings) as house:
        await house.control.secrets.put("hook", SECRET, kind=SecretKind.WEBHOOK)
        for target in targets:
            await house.control.notify.add(target, actor="the test")
        yield house


async def until(done: Callable[[], object]) -> None:
    with trio.fail_after(SLOW):
        while not done():
            await trio.sleep(0.01)


async def built(house: House, **spec: Any) -> str:
    """A job that succeeds on a worker of its own."""
    worker = await house.worker(automatic=True)
    job_id = await house.submit(**spec)
    await house.finished(job_id)
    assert worker.id
    return job_id


async def test_a_build_that_succeeds_is_told_once_signed(tmp_path: Path, receiver: Receiver) -> None:
    async with telling(tmp_path, a_target(receiver), door={"public_url": "https://farm.example.org/"}) as house:
        job_id = await built(house, repository="https://git.example.org/team/app.git", build_args={"TOKEN": "s3cr3t"})
        await until(lambda: receiver.taken())
        (taken,) = receiver.all
        assert taken.value["type"] == "job.succeeded"
        data = taken.value["data"]
        assert (data["id"], data["state"]) == (job_id, "succeeded")
        assert data["repository"] == "https://git.example.org/team/app.git"
        assert data["url"] == f"https://farm.example.org/#/job/{job_id}"
        assert taken.id.startswith("msg_")
        assert taken.headers["content-type"] == "application/json"
        assert b"s3cr3t" not in taken.body
        # The log is there once the answer was seen.
        await until(lambda: house.control.notify.tried("hook"))
        (tried,) = house.control.notify.tried("hook")
        assert (tried.id, tried.result, tried.status, tried.attempt) == (taken.id, "delivered", 204, 1)
        await until(lambda: house.control.notify.get("hook").waiting == 0)
        assert house.control.figures()["notifications_total"] == {("hook", "delivered"): 1}


async def test_every_change_in_order_and_only_what_is_wanted(tmp_path: Path, receiver: Receiver) -> None:
    targets = (
        a_target(receiver, "/all", events=["job.*"]),
        a_target(receiver, "/failed", events=["job.failed"]),
        a_target(receiver, "/others", repositories=["git.example.org/other/**"]),
        a_target(receiver, "/paused", paused=True),
    )
    async with telling(tmp_path, *targets) as house:
        worker = await house.worker()
        url = "https://git.example.org/team/app.git"
        job_id = await house.submit(repository=url)
        first = await worker.next_assignment()
        await worker.end(first, Outcome(state="failed", error=Failure(code="run_failed", message="no " * 5000)))
        await house.finished(job_id)
        other = await house.submit(repository="https://git.example.org/other/app.git")
        second = await worker.next_assignment()
        await worker.end(second, Outcome(state="succeeded", image=Image(reference="a:b", id="sha256:1")))
        await house.finished(other)
        await until(lambda: len(receiver.taken("/all")) == 8 and receiver.taken("/others"))
        changes = ["job.queued", "job.assigned", "job.running"]
        assert receiver.types("/all") == [*changes, "job.failed", *changes, "job.succeeded"]
        assert len({each.id for each in receiver.taken("/all")}) == 8
        await until(lambda: receiver.taken("/failed"))
        assert receiver.types("/failed") == ["job.failed"]
        error = receiver.taken("/failed")[0].value["data"]["error"]
        assert (error["code"], len(error["message"])) == ("run_failed", 2000)
        assert receiver.types("/others") == ["job.succeeded"]
        assert receiver.taken("/paused") == []


async def test_it_is_repeated_with_the_same_id_and_bytes_until_it_is_taken(tmp_path: Path, receiver: Receiver) -> None:
    receiver.script["/hook"] = [503, 302, 429, 404, 500]
    async with telling(tmp_path, a_target(receiver)) as house:
        await built(house)
        await until(lambda: receiver.taken())
        assert [each.status for each in receiver.all] == [503, 302, 429, 404, 500, 204]
        assert len({(each.id, each.body) for each in receiver.all}) == 1
        # A redirect leads nowhere.
        assert {each.path for each in receiver.all} == {"/hook"}
        await until(lambda: len(house.control.notify.tried("hook")) == 6)
        tried = house.control.notify.tried("hook")
        assert [each.result for each in tried] == ["delivered"] + 5 * ["failed"]
        assert [each.attempt for each in tried] == [6, 5, 4, 3, 2, 1]
        assert tried[1].error == "HTTP 500: as the test [31m wants"


async def test_a_target_that_hangs_harms_nobody(tmp_path: Path, receiver: Receiver) -> None:
    receiver.held["/slow"] = threading.Event()
    async with telling(tmp_path, a_target(receiver, "/slow"), a_target(receiver, "/quick")) as house:
        worker = await house.worker(automatic=True)
        for _ in range(5):
            await house.finished(await house.submit())
        await until(lambda: len(receiver.taken("/quick")) == 5)
        assert len(receiver.taken("/slow")) <= 1
        assert house.control.notify.get("slow").waiting == 5
        receiver.held["/slow"].set()
        await until(lambda: len(receiver.taken("/slow")) == 5)
        ids = [each.id for each in receiver.taken("/slow")]
        assert ids == [each.id for each in receiver.taken("/quick")]
        assert worker.id


async def test_what_is_refused_by_itself_lets_the_next_by(tmp_path: Path, receiver: Receiver) -> None:
    receiver.script["/hook"] = [422]
    async with telling(tmp_path, a_target(receiver), retry_first_seconds=0.2) as house:
        worker = await house.worker(automatic=True)
        for _ in range(2):
            await house.finished(await house.submit())
        await until(lambda: len(receiver.taken()) == 2)
        assert sorted(each.status for each in receiver.all) == [204, 204, 422]
        assert worker.id


async def test_what_nobody_wants_is_given_up_and_told(tmp_path: Path, receiver: Receiver) -> None:
    receiver.script["/hook"] = [410]
    async with telling(tmp_path, a_target(receiver)) as house:
        await built(house)
        await until(lambda: house.control.notify.tried("hook"))
        with trio.fail_after(SLOW):
            while "notification_given_up" not in [event.type for event in await house.control.farm_events(1, 1000)]:
                await trio.sleep(0.01)
        assert len(receiver.all) == 1
        await until(lambda: house.control.notify.get("hook").waiting == 0)


async def test_no_more_than_so_many_wait(tmp_path: Path, receiver: Receiver) -> None:
    receiver.held["/hook"] = threading.Event()
    limits = {"maximum_waiting": 2}
    async with telling(tmp_path, a_target(receiver, events=["job.queued"]), notifications=limits) as house:
        ids = [await house.submit() for _ in range(5)]
        types = []
        with trio.fail_after(SLOW):
            while "notification_given_up" not in types:
                await trio.sleep(0.01)
                types = [event.type for event in await house.control.farm_events(1, 1000)]
        await until(lambda: house.control.notify.get("hook").waiting <= 2)
        receiver.held["/hook"].set()
        await until(lambda: receiver.taken() and receiver.taken()[-1].value["data"]["id"] == ids[-1])
        # One word for all that went, not one each.
        assert types.count("notification_given_up") == 1


async def test_what_waits_comes_after_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    receiver.script["/hook"] = 1000 * [503]
    async with telling(tmp_path, a_target(receiver)) as house:
        job_id = await built(house)
        await until(lambda: house.control.notify.tried("hook"))
    first = receiver.all[0]
    receiver.script.clear()
    async with open_house(tmp_path, keys=[KEY]) as house:
        await until(lambda: receiver.taken())
        (taken,) = receiver.taken()
        assert (taken.id, taken.body) == (first.id, first.body)
        assert taken.value["data"]["id"] == job_id
        await until(lambda: any(each.result == "delivered" for each in house.control.notify.tried("hook")))


async def test_rows_beyond_what_memory_holds_come_from_the_store(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_ROWS", 2)
    monkeypatch.setattr(rows, "GROUP", 2)
    async with telling(tmp_path, a_target(receiver, events=["job.*"])) as house:
        ids: list[str] = []

        async def submit() -> None:
            ids.append(await house.submit())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(submit)
        await until(lambda: len(receiver.taken()) >= 20)
        assert {each.value["data"]["id"] for each in receiver.taken()} == set(ids)


async def test_deployments_are_told(tmp_path: Path, receiver: Receiver) -> None:
    async with telling(tmp_path, a_target(receiver, events=["deployment.*"])) as house:
        await a_worker(house)
        await deploy(house)
        await until_deployed(house, lambda view: view.deployment.serving == 1)
        await house.control.deployments.stop("web")
        await until(lambda: len(receiver.taken()) == 4)
        assert receiver.types() == [f"deployment.{state}" for state in ("pending", "built", "running", "stopped")]
        data = receiver.taken()[2].value["data"]
        assert (data["name"], data["version"], data["image"]) == ("web", 1, "registry.example/app:1")


async def test_targets_are_declared_changed_and_removed(tmp_path: Path, receiver: Receiver) -> None:
    configured = {"fixed": a_target(receiver, "/fixed")}
    async with telling(tmp_path, a_target(receiver), notify=configured) as house:
        notify = house.control.notify
        assert [view.target.name for view in notify.all()] == ["fixed", "hook"]
        assert notify.get("fixed").configured
        with pytest.raises(Conflict):
            await notify.add(a_target(receiver))
        with pytest.raises(Conflict, match="configuration") as caught:
            await notify.remove("fixed")
        assert caught.value.code == "target_configured"
        with pytest.raises(NotFound, match="did you mean"):
            notify.get("hok")
        with pytest.raises(BadRequest):
            await notify.edit("hook", {"name": "other"})
        with pytest.raises(BadRequest, match=r"target.events\[0\]"):
            await notify.edit("hook", {"events": ["job.exploded"]})
        tried = await notify.test("hook")
        assert (tried.result, tried.type, tried.status) == ("delivered", "notify.test", 204)
        assert receiver.types() == ["notify.test"]
        await notify.edit("hook", {"url": receiver.url("/moved"), "secret": "missing"})
        tried = await notify.test("hook")
        assert (tried.result, tried.status) == ("failed", 0)
        assert "`missing`" in tried.error
        await built(house)
        await until(lambda: receiver.taken("/fixed"))
        # It cannot be signed yet; once it can, nothing was lost.
        await until(lambda: notify.get("hook").failures)
        await notify.edit("hook", {"secret": "hook"})
        await until(lambda: receiver.taken("/moved"))
        await notify.remove("hook")
        assert [view.target.name for view in notify.all()] == ["fixed"]
        told = [event.type for event in await house.control.farm_events(1, 1000)]
        assert {"target_added", "target_edited"} <= set(told)
    async with open_house(tmp_path, keys=[KEY]) as house:
        assert house.control.notify.all() == []


async def test_nobody_is_told_and_nothing_is_written_without_a_target(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True) as house:
        await built(house)
        assert house.control.notify.all() == []
        assert house.control.figures()["notifications_waiting"] == {}


# The parts that decide


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of Standard Webhooks' own libraries."""
    headers = signed(
        b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_secret_of_another_form_is_its_bytes() -> None:
    assert key_of(b"plain\n") == b"plain"
    assert key_of(b"whsec_AAAA") == b"\0\0\0"
    assert key_of(b"whsec_not base64!") == b"whsec_not base64!"


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("url", "ftp://x/y", "target.url"),
        ("url", "https://", "target.url"),
        ("url", "https://user:password@x/y", "target.url"),
        ("url", "https://x/y#part", "target.url"),
        ("url", "https://x/y\r\nHost: z", "target.url"),
        ("url", "https://x:99999/", "target.url"),
        ("events", ["job.gone"], "target.events[0]"),
        ("repositories", ["no-slash"], "target.repositories"),
        ("evnts", [], "target.evnts"),
    ],
)
def test_what_cannot_work_is_refused_with_its_path(field: str, value: Any, path: str) -> None:
    given = {"name": "x", "url": "https://x/y", "secret": "s", field: value}
    with pytest.raises(BadRequest) as caught:
        target_from(given)
    assert caught.value.path == path
    assert "password" not in caught.value.message or "user" in caught.value.message


def test_which_events_are_wanted() -> None:
    default = Target(name="x", url="https://x", secret="s")
    assert {event for event in EVENTS if default.wants(event, None)} == set(DEFAULT_EVENTS)
    some = Target(name="x", url="https://x", secret="s", events=["deployment.*"], repositories=["x.org/**"])
    assert some.wants("deployment.failed", "https://x.org/a")
    assert not some.wants("deployment.failed", None)
    assert not some.wants("job.failed", "https://x.org/a")


def test_what_answers_mean() -> None:
    assert [status for status in (200, 204, 302, 404, 500) if not trouble(status, "")] == [200, 204]
    assert [status for status in (400, 401, 404, 413, 422, 429, 503) if refuses_this_one(status)] == [400, 413, 422]
    assert is_final(410)


def test_what_a_lane_sends_next() -> None:
    lane = Lane(Target(name="x", url="https://x", secret="s"))
    assert lane.next(0.0) == (None, float("inf"))
    first, second = Waiting("1", "x/1", "job.failed", 0.0), Waiting("2", "x/2", "job.failed", 0.0)
    lane.put(first)
    lane.put(second)
    lane.put(Waiting("1", "x/1", "job.failed", 0.0))
    assert lane.next(0.0) == (first, 0.0)
    first.due = 5.0
    assert lane.next(1.0) == (second, 1.0)
    second.due = 3.0
    assert lane.next(1.0) == (None, 3.0)
    lane.resume = 4.0
    assert lane.next(3.5) == (None, 4.0)
    lane.again()
    assert lane.next(0.0) == (first, 0.0)

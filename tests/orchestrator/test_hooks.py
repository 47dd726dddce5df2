"""Webhooks as the orchestrator takes them: proven, remembered, put on record, made into jobs, superseded."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.cipher import new_key
from blacktree.errors import BadRequest, Conflict, NotAllowed, NotFound
from blacktree.job import Job
from blacktree.orchestrator import hooks
from blacktree.orchestrator.deliveries import Deliveries
from blacktree.orchestrator.forges.base import Pushed
from blacktree.orchestrator.hookcontrol import Delivery, Receipt
from blacktree.orchestrator.vault import Vault
from blacktree.secret import SecretKind
from blacktree.source import source_from
from blacktree.storage.memory import MemoryStore
from tests.orchestrator.conftest import House, open_house
from tests.parts import forge as forges
from tests.parts.forge import SECRET, ZEROS, commit_id, pull_request, push

URL = "https://git.example.org/team/app.git"
KEY = new_key()


def delivery(forge: str, value: Any, *, source: str | None = None, kind: str = "push", **how: Any) -> Delivery:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Delivery(forge=forge, source=source, headers=forges.headers(forge, body, event=kind, **how), body=body)


@asynccontextmanager
async def hooked(directory: Path, *sources: dict[str, Any], **settings: Any) -> AsyncIterator[House]:
    """A house whose vault and sources are set."""
    async with open_house(directory, keys=[KEY], **settings) as house:
        await house.control.secrets.put("hook", SECRET, kind=SecretKind.WEBHOOK)
        for given in sources or ({},):
            base = {"name": "app", "repository": URL, "webhook_secret": "hook"}
            await house.control.sources.add(source_from(base | given))
        yield house


async def all_jobs(house: House, count: int) -> list[Job]:
    """Every job, oldest first, once there are so many."""
    version = 0
    while len(found := (await house.control.jobs([], limit=500)).jobs) < count:
        version = await house.control.farm_changed(version)
    assert len(found) == count
    return [view.job for view in reversed(found)]


async def accepted(house: House, given: Delivery) -> Receipt:
    receipt = await house.control.hooks.receive(given)
    assert receipt.status == "accepted", receipt
    return receipt


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"])
async def test_a_push_becomes_a_job(tmp_path: Path, forge: str) -> None:
    async with hooked(tmp_path, {"forge": forge, "spec": {"pool": "arm", "tags": ["{branch}"]}}) as house:
        receipt = await accepted(house, delivery(forge, push(forge, URL, ref="refs/heads/feature/x"), delivery="d-1"))
        assert receipt.sources == ["app"]
        (job,) = await all_jobs(house, 1)
        assert (job.spec.repository, job.spec.ref, job.spec.pool) == (URL, commit_id(1), "arm")
        assert job.spec.tags == ["feature-x"]
        origin = job.origin
        assert origin is not None
        assert (origin.source, origin.event, origin.branch) == ("app", "push", "feature/x")
        assert (origin.commit, origin.delivery, origin.trusted) == (commit_id(1), "d-1", True)


async def test_gitlab_s_signing_token(tmp_path: Path) -> None:
    import time

    async with hooked(tmp_path, {"forge": "gitlab"}) as house:
        await accepted(house, delivery("gitlab", push("gitlab", URL), now=time.time()))
        late = delivery("gitlab", push("gitlab", URL, after=commit_id(2)), now=time.time() - 3600)
        with pytest.raises(NotAllowed):
            await house.control.hooks.receive(late)
        await all_jobs(house, 1)


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"])
async def test_signatures_wrong_or_missing(tmp_path: Path, forge: str) -> None:
    async with hooked(tmp_path, {"forge": forge}) as house:
        good = delivery(forge, push(forge, URL))
        wrong = delivery(forge, push(forge, URL), secret=b"another")
        bare = Delivery(forge=forge, source=None, headers={"content-type": "application/json"}, body=good.body)
        changed = Delivery(forge=forge, source=None, headers=good.headers, body=good.body + b" ")
        # Never looked at before it is proven: this is no JSON at all.
        garbage = delivery(forge, b"\xff{", secret=b"another")
        for each, code in ((wrong, "signature_wrong"), (bare, "signature_missing"), (garbage, "signature_wrong")):
            with pytest.raises(NotAllowed) as caught:
                await house.control.hooks.receive(each)
            assert caught.value.code == code
        if forge != "gitlab":  # its plain token says nothing about the body
            with pytest.raises(NotAllowed):
                await house.control.hooks.receive(changed)
        nowhere = delivery(forge, push(forge, URL), source="no-such-source")
        with pytest.raises(NotAllowed) as caught:
            await house.control.hooks.receive(nowhere)
        assert caught.value.code == "signature_wrong"
        with pytest.raises(NotFound):
            await house.control.hooks.receive(Delivery(forge="svn", source=None, headers={}, body=b""))
        await all_jobs(house, 0)


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"])
async def test_a_redelivery_changes_nothing(tmp_path: Path, forge: str) -> None:
    async with hooked(tmp_path, {"forge": forge}) as house:
        given = delivery(forge, push(forge, URL), delivery="d-1")
        first = await accepted(house, given)
        again = await house.control.hooks.receive(given)
        assert (again.status, again.delivery) == ("known", first.delivery)
        # The same id with another body; and for signed bodies the same body under another id: a replay.
        other = delivery(forge, push(forge, URL, after=commit_id(2)), delivery="d-1")
        assert (await house.control.hooks.receive(other)).status == "known"
        if forge != "gitlab":
            replayed = delivery(forge, push(forge, URL), delivery="d-2")
            assert (await house.control.hooks.receive(replayed)).status == "known"
        await all_jobs(house, 1)
    # And after a restart.
    async with open_house(tmp_path, keys=[KEY]) as house:
        assert (await house.control.hooks.receive(given)).status == "known"
        await all_jobs(house, 1)


async def test_the_same_delivery_twice_at_once(tmp_path: Path) -> None:
    async with hooked(tmp_path) as house:
        given = delivery("github", push("github", URL))
        found: list[str] = []

        async def send() -> None:
            found.append((await house.control.hooks.receive(given)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(send)
        assert sorted(found) == ["accepted", *["known"] * 7]
        await all_jobs(house, 1)


async def test_what_builds_nothing_says_why(tmp_path: Path) -> None:
    async with hooked(tmp_path, {"branches": ["main", "!main"], "name": "none"}, {"branches": ["main"]}) as house:

        async def reason(value: Any, kind: str = "push") -> str:
            receipt = await house.control.hooks.receive(delivery("github", value, kind=kind))
            assert receipt.status == "ignored", receipt
            return receipt.reason

        assert "was deleted" in await reason(push("github", URL, after=ZEROS))
        assert "builds no branch 'other'" in await reason(push("github", URL, ref="refs/heads/other"))
        assert "builds no tag 'v1'" in await reason(push("github", URL, ref="refs/tags/v1"))
        assert "neither a branch nor a tag" in await reason(push("github", URL, ref="refs/notes/x"))
        assert "no source here" in await reason(push("github", "https://git.example.org/team/other.git"))
        assert "asks not to be built" in await reason(push("github", URL, message="words [Skip CI]\n\nmore"))
        assert "'star'" in await reason({"zen": 1}, "star")
        assert "builds no pull requests" in await reason(pull_request("github", URL), "pull_request")
        ping = await house.control.hooks.receive(delivery("github", {"zen": "x", "hook_id": 1}, kind="ping"))
        assert ping.status == "pong"
        for body in (b"", b"[]", b"{", b'{"ref": 1}', b'{"ref":"refs/heads/main"}', b"[" * 10000):
            with pytest.raises(BadRequest) as caught:
                await house.control.hooks.receive(delivery("github", body))
            assert caught.value.code == "malformed"
        with pytest.raises(BadRequest):
            await house.control.hooks.receive(delivery("github", push("github", URL, after="main")))
        await all_jobs(house, 0)


async def test_github_s_form_is_understood(tmp_path: Path) -> None:
    from urllib.parse import urlencode

    async with hooked(tmp_path) as house:
        body = urlencode({"payload": json.dumps(push("github", URL))}).encode()
        headers = forges.headers("github", body) | {"content-type": "application/x-www-form-urlencoded"}
        await accepted(house, Delivery(forge="github", source="app", headers=headers, body=body))
        await all_jobs(house, 1)


async def test_addresses_are_one_in_all_their_forms(tmp_path: Path) -> None:
    forms = [
        "git@GIT.example.org:team/app.git",
        "ssh://git@git.example.org/Team/app",
        "git://git.example.org/team/app/",
    ]
    sources = [{"name": f"s{number}", "repository": form} for number, form in enumerate(forms)]
    async with hooked(tmp_path, *sources) as house:
        receipt = await accepted(house, delivery("github", push("github", URL)))
        assert receipt.sources == ["s0", "s1", "s2"]
        assert {job.spec.repository for job in await all_jobs(house, 3)} == set(forms)


async def test_a_secret_opens_its_own_sources_only(tmp_path: Path) -> None:
    async with hooked(
        tmp_path, {}, {"name": "theirs", "webhook_secret": "theirs"}, {"name": "none", "webhook_secret": None}
    ) as house:
        await house.control.secrets.put("theirs", b"another secret", kind=SecretKind.WEBHOOK)
        receipt = await accepted(house, delivery("github", push("github", URL), secret=b"another secret"))
        assert receipt.sources == ["theirs"]
        with pytest.raises(NotAllowed):
            await house.control.hooks.receive(delivery("github", push("github", URL), source="theirs"))


async def test_a_secret_is_opened_once_and_only_for_what_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_one = Vault._opened

    def counted(vault: Vault, sealed: Any) -> bytes:
        opened.append(sealed.name)
        return open_one(vault, sealed)

    async with hooked(tmp_path, *({"name": f"s{number}", "push": False} for number in range(5))) as house:
        monkeypatch.setattr(Vault, "_opened", counted)
        good = delivery("github", push("github", URL))
        for name in (None, "s1", "nope"):
            with pytest.raises(NotAllowed) as caught:
                await house.control.hooks.receive(
                    Delivery(forge="github", source=name, headers={"content-type": "application/json"}, body=good.body)
                )
            assert caught.value.code == "signature_missing"
        assert opened == []
        receipt = await accepted(house, good)
        assert receipt.sources == [f"s{number}" for number in range(5)]
        assert opened == ["hook"]


async def test_a_scope_holds_for_each_source_of_a_secret(tmp_path: Path) -> None:
    async with hooked(tmp_path, {"name": "a"}, {"name": "b"}, {"name": "c"}) as house:
        await house.control.secrets.put("hook", SECRET, kind=SecretKind.WEBHOOK, sources=["b", "c"])
        assert (await accepted(house, delivery("github", push("github", URL)))).sources == ["b", "c"]


async def test_a_newer_commit_supersedes(tmp_path: Path) -> None:
    # What was superseded was never handed out, nor is the last one while this is looked at.
    async with hooked(tmp_path, webhooks={"settle_seconds": 60}) as house:
        worker = await house.worker()
        await accepted(house, delivery("github", push("github", URL)))
        running = await worker.next_assignment()
        await accepted(house, delivery("github", push("github", URL, ref="refs/heads/other", after=commit_id(9))))
        await worker.next_assignment()
        await accepted(house, delivery("github", push("github", URL, before=commit_id(1), after=commit_id(2))))
        await accepted(house, delivery("github", push("github", URL, before=commit_id(2), after=commit_id(3))))
        jobs = await all_jobs(house, 4)
        first, other, second, third = jobs
        assert (
            await house.finished(first.id)
        ).cancel_reason == f"superseded by {commit_id(2)[:12]} of branch main (job {second.id})"
        assert (await house.finished(second.id)).state == "canceled"
        assert await house.states(second.id) == ["queued", "canceled"]
        assert running.name.job_id == first.id
        assert (await house.control.job(third.id)).job.state == "queued"
        assert (await house.control.job(other.id)).job.state in ("assigned", "running")


async def test_superseding_can_be_switched_off(tmp_path: Path) -> None:
    async with hooked(tmp_path, {"supersede": False}) as house:
        for number in (1, 2, 3):
            await accepted(house, delivery("github", push("github", URL, after=commit_id(number))))
        assert [job.state for job in await all_jobs(house, 3)] == ["queued"] * 3


async def test_a_late_delivery_of_an_older_commit_changes_nothing(tmp_path: Path) -> None:
    async with hooked(tmp_path) as house:
        newer = push("github", URL, before=commit_id(1), after=commit_id(2))
        older = push("github", URL, before=commit_id(0), after=commit_id(1))
        await accepted(house, delivery("github", newer))
        await all_jobs(house, 1)
        await accepted(house, delivery("github", older))
        by_clock = push("github", URL, ref="refs/heads/b", before=commit_id(7), after=commit_id(8), at=2000)
        await accepted(house, delivery("github", by_clock))
        await all_jobs(house, 2)
        await accepted(house, delivery("github", push("github", URL, ref="refs/heads/b", after=commit_id(6), at=1000)))
        await accepted(house, delivery("github", push("github", URL, ref="refs/heads/c", after=commit_id(5))))
        jobs = await all_jobs(house, 3)
        assert [job.state for job in jobs] == ["queued"] * 3


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"])
async def test_pull_requests(tmp_path: Path, forge: str) -> None:
    async with hooked(tmp_path, {"forge": forge, "pull_requests": True, "branches": ["main"]}) as house:

        async def send(**what: Any) -> Receipt:
            given = delivery(forge, pull_request(forge, URL, **what), kind="pull_request")
            return await house.control.hooks.receive(given)

        assert (await send()).status == "accepted"
        assert (await send(into="other")).status == "ignored"
        assert (await send(action="labeled")).status == "ignored"
        assert (await send(action="synchronize", head=commit_id(2))).status == "accepted"
        first, second = await all_jobs(house, 2)
        assert (await house.finished(first.id)).cancel_reason is not None
        assert second.origin is not None
        assert (second.origin.pull_request, second.origin.event, second.origin.trusted) == (7, "pull_request", True)
        assert (await send(action="closed", head=commit_id(2))).status == "accepted"
        assert (await house.finished(second.id)).cancel_reason == "pull request 7 was closed"


FULL: dict[str, Any] = {
    "pull_requests": True,
    "secrets": ["npm"],
    "spec": {"tags": ["latest"], "cache_from": ["team/app:cache"]},
}


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"])
async def test_forks_get_nothing(tmp_path: Path, forge: str) -> None:
    async with hooked(
        tmp_path, FULL | {"forge": forge, "push": True, "spec": {**FULL["spec"], "image": "r.example/a"}}
    ) as house:
        given = delivery(forge, pull_request(forge, URL, fork=True), kind="pull_request")
        await accepted(house, given)
        (job,) = await all_jobs(house, 1)
        assert job.origin is not None
        assert not job.origin.trusted
        assert (job.spec.secrets, job.spec.push, job.spec.run, job.spec.cache_from) == ([], False, None, [])
        assert job.spec.no_cache
        assert job.spec.tags == [f"fork-7-{commit_id(1)[:12]}"]
        assert job.spec.build_args == {"BUILDKIT_CACHE_MOUNT_NS": "fork-app-7"}
        await house.control.cancel(job.id)
        again = await house.control.retry(job.id)
        assert again.job.origin == job.origin
        assert again.job.spec.secrets == []


async def test_forks_get_what_is_allowed_by_name(tmp_path: Path) -> None:
    async with hooked(tmp_path, FULL | {"allow_forks": ["secrets", "cache"]}) as house:
        await accepted(house, delivery("github", pull_request("github", URL, fork=True), kind="pull_request"))
        (job,) = await all_jobs(house, 1)
        assert (job.spec.secrets, job.spec.cache_from, job.spec.push) == (["npm"], ["team/app:cache"], False)
        assert not job.spec.no_cache


async def test_a_head_repository_that_is_gone_counts_as_a_fork(tmp_path: Path) -> None:
    async with hooked(tmp_path, FULL) as house:
        value = pull_request("github", URL)
        value["pull_request"]["head"]["repo"] = None
        await accepted(house, delivery("github", value, kind="pull_request"))
        (job,) = await all_jobs(house, 1)
        assert job.origin is not None
        assert not job.origin.trusted


async def test_work_that_was_answered_is_done_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter = Deliveries.enter

    async def leaving(deliveries: Deliveries, **what: Any) -> Any:
        entry = await enter(deliveries, **what)
        # The farm leaves at once: the delivery is on record, maybe nothing more.
        house.stop.set()
        return entry

    monkeypatch.setattr(Deliveries, "enter", leaving)
    async with hooked(tmp_path) as house:
        await house.control.hooks.receive(delivery("github", push("github", URL)))
    async with open_house(tmp_path, keys=[KEY]) as house:
        (job,) = await all_jobs(house, 1)
        assert job.origin is not None
    async with open_house(tmp_path, keys=[KEY]) as house:
        await all_jobs(house, 1)


async def test_a_burst_is_two_builds_at_most(tmp_path: Path) -> None:
    async with hooked(tmp_path, memory=True, webhooks={"settle_seconds": 6}) as house:
        worker = await house.worker(slots=4)
        before = commit_id(0)
        for number in range(1, 201):
            value = push("github", URL, before=before, after=commit_id(number))
            await accepted(house, delivery("github", value))
            before = commit_id(number)
        jobs = await all_jobs(house, 200)
        last = await house.until(jobs[-1].id, "assigned", "running")
        assert last.spec.ref == commit_id(200)
        for job in jobs[:-1]:
            assert (await house.finished(job.id)).state == "canceled"
        built = [job.id for job in jobs if (await house.control.job(job.id)).job.attempt]
        assert len(built) <= 2, built
        assert len(worker.held) <= 2


async def test_configured_sources_are_read_only(tmp_path: Path) -> None:
    configured = source_from({"name": "app", "repository": URL, "webhook_secret": "hook"})
    async with open_house(tmp_path, keys=[KEY], memory=True, sources={"app": configured}) as house:
        await house.control.secrets.put("hook", SECRET, kind=SecretKind.WEBHOOK)
        assert [view.configured for view in house.control.sources.all()] == [True]
        for change in (
            house.control.sources.edit("app", {"push": True}),
            house.control.sources.remove("app"),
            house.control.sources.add(configured),
        ):
            with pytest.raises(Conflict):
                await change
        await accepted(house, delivery("github", push("github", URL)))
        await all_jobs(house, 1)


async def test_a_configured_source_that_is_ourselves_is_refused(tmp_path: Path) -> None:
    own = source_from({"name": "app", "repository": "https://farm.example.org/team/app.git"})
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_house(
            tmp_path, memory=True, sources={"app": own}, door={"public_url": "https://farm.example.org"}
        ):
            pass
    assert "this farm itself" in str(leaf(caught.value))


def leaf(error: BaseException) -> BaseException:
    return leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def test_what_is_done_is_forgotten_in_time(tmp_path: Path) -> None:
    store = MemoryStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        deliveries = Deliveries(store, days=7, most=3)
        entries = []
        for number in range(6):
            event = Pushed(repositories=[], branch="main", commit=commit_id(number))
            keys = [f"key {number}"]
            entries.append(
                await deliveries.enter(
                    forge="x", delivery="", identity=keys[0], keys=keys, sources=["app"], event=event
                )
            )
        for entry in entries[1:]:
            await deliveries.done(entry, ["made job x"])
        assert await deliveries.forget() == 3
        # What is not done stays, however old.
        assert [await deliveries.earlier([f"key {number}"]) is not None for number in range(6)] == [
            True, False, False, False, True, True,
        ]  # fmt: skip
        again = Deliveries(store, days=7, most=3)
        assert [entry.name for entry in await again.load()] == [entries[0].name]
        assert len(again) == 3
        nursery.cancel_scope.cancel()


async def test_a_damaged_source_can_be_declared_anew(tmp_path: Path) -> None:
    async with hooked(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "state" / "blacktree.db") as connection:
        connection.execute("UPDATE document SET body = x'22ff22' WHERE kind = 'source'")
    connection.close()
    async with open_house(tmp_path, keys=[KEY]) as house:
        added = await house.control.sources.add(source_from({"name": "app", "repository": URL, "push": False}))
        assert house.control.sources.get("app") == added


async def test_two_sources_of_one_name_at_once(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[KEY]) as house:
        won: list[str] = []

        async def add(branch: str) -> None:
            try:
                await house.control.sources.add(source_from({"name": "app", "repository": URL, "branches": [branch]}))
                won.append(branch)
            except Conflict:
                pass

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(add, f"b{number}")
        assert len(won) == 1
        assert house.control.sources.get("app").source.branches == won
    async with open_house(tmp_path, keys=[KEY]) as house:
        assert house.control.sources.get("app").source.branches == won


async def test_a_source_whose_adding_was_cancelled_is_there_or_not(tmp_path: Path) -> None:
    given = source_from({"name": "app", "repository": URL})
    async with open_house(tmp_path, keys=[KEY]) as house:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.control.sources.add, given)
                await trio.lowlevel.checkpoint()
                scope.cancel()
        with suppress(Conflict):
            await house.control.sources.add(given)
        assert house.control.sources.get("app").source == given


async def test_a_store_that_is_stuck_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = trio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        stuck.set()
        await trio.sleep_forever()

    monkeypatch.setattr(Deliveries, "enter", never)
    monkeypatch.setattr(hooks, "ENTER_SECONDS", 3600.0)
    with trio.fail_after(60):
        async with hooked(tmp_path) as house, trio.open_nursery() as nursery:
            nursery.start_soon(house.control.hooks.receive, delivery("github", push("github", URL)))
            await stuck.wait()
            nursery.cancel_scope.cancel()


async def test_a_forge_that_hangs_up_while_its_delivery_is_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entering, go_on = trio.Event(), trio.Event()
    enter = Deliveries.enter

    async def slowly(deliveries: Deliveries, **what: Any) -> Any:
        entering.set()
        await go_on.wait()
        return await enter(deliveries, **what)

    monkeypatch.setattr(Deliveries, "enter", slowly)
    async with hooked(tmp_path) as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.control.hooks.receive, delivery("github", push("github", URL)))
            await entering.wait()
            nursery.cancel_scope.cancel()
        go_on.set()
        await all_jobs(house, 1)


async def test_damaged_records_do_not_keep_the_farm_from_starting(tmp_path: Path) -> None:
    async with hooked(tmp_path) as house:
        await accepted(house, delivery("github", push("github", URL)))
        await all_jobs(house, 1)
    with sqlite3.connect(tmp_path / "state" / "blacktree.db") as connection:
        kinds = [row[0] for row in connection.execute("SELECT DISTINCT kind FROM document")]
        assert {"source", "delivery"} <= set(kinds)
        connection.execute("UPDATE document SET body = x'00' WHERE kind IN ('source', 'delivery')")
    connection.close()
    async with open_house(tmp_path, keys=[KEY]) as house:
        sources = house.control.sources
        assert sources.all() == []
        with pytest.raises(Conflict) as caught:
            await sources.edit("app", {"push": True})
        assert caught.value.code == "source_damaged"
        assert (await sources.remove("app")).source.name == "app"
        with pytest.raises(NotFound):
            await sources.remove("app")
        await house.control.sources.add(source_from({"name": "app", "repository": URL, "webhook_secret": "hook"}))
        await accepted(house, delivery("github", push("github", URL)))


async def test_whatever_goes_wrong_with_one_delivery_the_farm_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseen(*_: Any) -> Any:
        raise ZeroDivisionError("nobody foresaw this")

    async with hooked(tmp_path) as house:
        with monkeypatch.context() as patch:
            patch.setattr("blacktree.orchestrator.hookwork.origin_of", unforeseen)
            await accepted(house, delivery("github", push("github", URL)))
            with trio.fail_after(40):
                while "webhook_refused" not in [each.type for each in await house.control.farm_events(1, 100)]:
                    await trio.sleep(0.01)
        await accepted(house, delivery("github", push("github", URL, after=commit_id(2))))
        await all_jobs(house, 1)


async def test_a_forge_that_hangs_up_leaves_all_or_nothing(tmp_path: Path) -> None:
    async with hooked(tmp_path) as house:
        for number in range(12):
            value = push("github", URL, ref=f"refs/heads/b{number}", after=commit_id(number + 1))
            with trio.move_on_after(number * 0.0005):
                await house.control.hooks.receive(delivery("github", value, delivery=f"d-{number}"))
            # Whatever became of it: the forge sends it again, and it is done once.
            receipt = await house.control.hooks.receive(delivery("github", value, delivery=f"d-{number}"))
            assert receipt.status in ("accepted", "known")
        jobs = await all_jobs(house, 12)
        assert {job.spec.ref for job in jobs} == {commit_id(number + 1) for number in range(12)}

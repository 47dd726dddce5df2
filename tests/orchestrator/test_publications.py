"""Who may move a name: never the older after the newer, never two at once, and nobody from outside unasked."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from blacktree.clock import now
from blacktree.job import Attempt, Job, JobState, Origin
from blacktree.orchestrator.held import Book, Held
from blacktree.orchestrator.publications import IMAGES, NAMES, Publication, Publications
from blacktree.spec import JobSpec
from blacktree.storage.memory import MemoryStore

T0 = datetime(2026, 3, 4, 12, tzinfo=UTC)
APP = "r.example/team/app"
LATEST = f"{APP}:latest"


def a_job(number: int, **more: Any) -> Job:
    """The number-th that was submitted."""
    time = T0 + timedelta(minutes=number)
    spec = JobSpec(repository=more.pop("repository", "https://x/y"), image=APP, push=True)
    return Job(id=f"job-{number}", state=JobState.RUNNING, spec=spec, created_at=time, queued_at=time, **more)


class Desk:
    """Publications over a store in memory, and the jobs that workers hold."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.book = Book()
        self.publications = Publications(store, self.book)

    async def hold(self, job: Job) -> Held:
        """On record, and on a worker."""
        attempt = Attempt(attempt=1, worker_id="w", assigned_at=T0, token=job.id)
        job = msgspec.structs.replace(job, attempt=1, attempts=[attempt])
        await self.store.create(msgspec.structs.replace(job, state=JobState.QUEUED), [], [])
        [held] = self.book.enter([job])
        return held

    def let_go(self, held: Held) -> None:
        """Its outcome is on record."""
        del self.book._held[held.name.job_id]

    async def ask(self, held: Held, *names: str) -> list[str] | None:
        return await self.publications.ask(held, names or (LATEST,), 10.0)


async def with_desk(test: Callable[[Desk], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        store = MemoryStore()
        await nursery.start(store.run)
        await test(Desk(store))
        nursery.cancel_scope.cancel()


@pytest.fixture
async def desk(nursery: trio.Nursery) -> Desk:
    store = MemoryStore()
    await nursery.start(store.run)
    return Desk(store)


async def test_the_older_gets_what_the_newer_has_not_taken(desk: Desk) -> None:
    old, new = await desk.hold(a_job(1)), await desk.hold(a_job(2))
    assert await desk.ask(new, LATEST, f"{APP}:2") == []
    assert await desk.ask(new, LATEST, f"{APP}:2") == [], "asking again changes nothing"
    desk.let_go(new)
    assert await desk.ask(old, LATEST, f"{APP}:1") == [LATEST]
    assert await desk.ask(old, LATEST, f"{APP}:1") == [LATEST]


async def test_the_newer_waits_while_the_older_may_still_move_it(desk: Desk) -> None:
    old, new = await desk.hold(a_job(1)), await desk.hold(a_job(2))
    assert await desk.ask(old) == []
    assert await desk.ask(new) is None
    assert await desk.ask(new, f"{APP}:2") == [], "other names are free"
    desk.let_go(old)
    assert await desk.ask(new) == []


async def test_a_grant_that_is_over_holds_up_nobody(desk: Desk) -> None:
    """Also one from before a restart, and one that a clock gone wrong has set far ahead."""
    old, new = await desk.hold(a_job(1)), await desk.hold(a_job(2))
    for until in (now() - timedelta(seconds=1), now() + timedelta(days=1)):
        body = msgspec.json.encode(Publication(job_id=old.job.id, since=old.job.created_at, until=until))
        await desk.store.revise(NAMES, LATEST, partial(_as_it_is, body))
        assert await desk.ask(new) == []


def _as_it_is(body: bytes, _: bytes | None) -> bytes:
    return body


async def test_a_retry_is_as_old_as_what_it_repeats(desk: Desk) -> None:
    await desk.hold(a_job(1))
    new, again = await desk.hold(a_job(2)), await desk.hold(a_job(3, retry_of="job-1"))
    assert await desk.ask(new) == []
    desk.let_go(new)
    assert await desk.ask(again) == [LATEST]
    orphan = await desk.hold(a_job(4, retry_of="forgotten"))
    assert await desk.ask(orphan) == []


async def test_who_is_not_trusted_moves_nothing_and_leaves_no_cache(desk: Desk) -> None:
    fork = await desk.hold(a_job(1, origin=Origin(source="s", trusted=False)))
    assert await desk.ask(fork) == [LATEST]
    allowed = await desk.hold(a_job(2, origin=Origin(source="s", trusted=False, allowed=["push"])))
    assert await desk.ask(allowed) == []
    assert await desk.store.document(IMAGES, APP) is None
    assert await desk.publications.cache_for(allowed.job) == []


async def test_what_was_published_last_serves_the_same_repository(desk: Desk) -> None:
    one = await desk.hold(a_job(1))
    assert await desk.publications.cache_for(one.job) == []
    await desk.ask(one, f"{APP}:1", LATEST)
    assert await desk.publications.cache_for(a_job(2)) == [f"{APP}:1"]
    assert await desk.publications.cache_for(a_job(2, repository="https://x/other")) == []
    unpushed = msgspec.structs.replace(a_job(2), spec=JobSpec(repository="https://x/y", image=APP))
    assert await desk.publications.cache_for(unpushed) == []


async def test_names_of_forgotten_jobs_are_forgotten(desk: Desk) -> None:
    one = await desk.hold(a_job(1))
    await desk.ask(one, LATEST)
    gone = msgspec.json.encode(Publication(job_id="gone", since=T0, until=T0))
    for number in range(3):
        await desk.store.revise(NAMES, f"{APP}:{number}", lambda _: gone)
    assert await desk.publications.forget() == 3
    assert [name for name, _ in await desk.store.documents(NAMES)] == [LATEST]


@given(st.permutations(range(5)), st.lists(st.booleans(), min_size=5, max_size=5))
def test_in_whatever_order_they_come_the_name_ends_with_the_newest_that_came(
    order: list[int], ends: list[bool]
) -> None:
    """What is moved under a grant is never moved back by an older job."""

    async def test(desk: Desk) -> None:
        moved: list[int] = []
        waiting = [(number, await desk.hold(a_job(number))) for number in order]
        while waiting:
            number, held = waiting.pop(0)
            answer = await desk.ask(held)
            if answer is None:
                waiting.append((number, held))
                for each in list(desk.book._held.values()):
                    if each is not held and each.job.id in {f"job-{one}" for one in moved}:
                        desk.let_go(each)
                continue
            if answer == []:
                moved.append(number)
            if ends[number]:
                desk.let_go(held)
        assert moved == sorted(moved)
        assert moved[-1] == 4

    trio.run(with_desk, test)

"""The contract of a store: every answer to `blacktree.storage.base` passes all of this."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import trio

from blacktree.errors import BadRequest, Conflict, NotFound, TooLarge
from blacktree.event import Lines, Notice, Progress, Record, StateChanged, StepStarted, span
from blacktree.job import Job, JobState, Stream, move
from blacktree.spec import JobSpec
from blacktree.storage.base import Commit, Decision, Outgoing, QueueItem, Store

T0 = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def a_job(id: str = "job-1", *, after: float = 0, state: JobState = JobState.QUEUED, **spec: Any) -> Job:
    """A job created `after` seconds."""
    moment = T0 + timedelta(seconds=after)
    return Job(
        id=id,
        state=state,
        spec=JobSpec(**{"repository": "https://git.example/app.git", **spec}),
        created_at=moment,
        queued_at=moment,
    )


def queued(attempt: int = 0) -> StateChanged:
    return StateChanged(T0, attempt, "", "queued")


def lines(*text: str, partial: bool = False, step: str = "build") -> Lines:
    return Lines(T0, 1, step, "stdout", "".join(f"{line}\n" for line in text), partial)


def adding(*records: Record, **changes: Any) -> Any:
    """A decision that adds records."""
    return lambda job: Decision(job=msgspec.structs.replace(job, **changes), records=records)


def to(state: JobState, **changes: Any) -> Any:
    """A decision that moves the job, with its record."""
    return lambda job: Decision(
        job=move(job, state, **changes), records=(StateChanged(T0, job.attempt, job.state, state),)
    )


def a_stream(id: str = "run.web") -> Job:
    return msgspec.structs.replace(a_job(id, state=JobState.RUNNING), stream=Stream())


async def ended(store: Store, job: Job, finished: datetime = T0) -> Job:
    """The job, brought to its end."""
    await store.create(job, [queued()], [])
    return (await store.change(job.id, to(JobState.CANCELED, finished_at=finished))).job


async def everything(store: Store, job_id: str, *, limit: int = 1000, max_bytes: int = 256 * 1024) -> list[Any]:
    """All events, one entry a number: `(seq, kind, text)`; asserts that there is no gap."""
    found: list[Any] = []
    position = 1
    while page := await store.read(job_id, position, limit=limit, max_bytes=max_bytes):
        assert sum(span(record) for _, record in page) <= limit
        for seq, record in page:
            assert seq == position
            position += span(record)
            if isinstance(record, Lines):
                found += [(seq + i, "log", line) for i, line in enumerate(record.text.split("\n")[:-1])]
            else:
                found.append((seq, type(record).__name__, getattr(record, "text", "")))
    return found


class StoreContract:
    """Inherit, and give a fixture `store` that runs."""

    # Jobs

    async def test_a_created_job_is_on_record(self, store: Store) -> None:
        job = a_job()
        commit = await store.create(job, [queued()], [Outgoing(kind="ticket", job_id=job.id, generation=1)])
        assert commit.changed
        assert commit.previous is None
        assert commit.first_seq == 1
        assert commit.job == msgspec.structs.replace(job, next_seq=2)
        assert await store.get(job.id) == commit.job
        assert await store.read(job.id, 1) == [(1, queued())]
        assert await store.outgoing() == list(commit.outgoing)
        assert commit.outgoing[0].id > 0

    async def test_an_unknown_job_is_not_found(self, store: Store) -> None:
        for id in ("nothing", "", "../../etc/passwd", "\0", "x" * 5000, "ä"):
            with pytest.raises(NotFound):
                await store.get(id)
            with pytest.raises(NotFound):
                await store.change(id, adding(queued()))
            with pytest.raises(NotFound):
                await store.read(id, 1)
            with pytest.raises(NotFound):
                await store.text_size(id)
            with pytest.raises(NotFound):
                await store.read_text(id, 0, 10)

    async def test_the_same_submission_again_answers_with_the_first(self, store: Store) -> None:
        first = await store.create(a_job("a", idempotency_key="k"), [queued()], [])
        by_id = await store.create(a_job("a"), [queued()], [Outgoing(kind="ticket", job_id="a")])
        by_key = await store.create(a_job("b", idempotency_key="k"), [queued()], [])
        for again in (by_id, by_key):
            assert not again.changed
            assert again.job == first.job
        assert await store.outgoing() == []
        with pytest.raises(NotFound):
            await store.get("b")

    async def test_another_spec_under_the_same_id_or_key_is_a_conflict(self, store: Store) -> None:
        await store.create(a_job("a", idempotency_key="k"), [queued()], [])
        for other in (a_job("a", ref="other"), a_job("b", ref="other", idempotency_key="k")):
            with pytest.raises(Conflict) as caught:
                await store.create(other, [queued()], [])
            assert caught.value.code == "conflict"
        assert len((await store.find([], limit=10)).jobs) == 1

    async def test_a_first_change_goes_with_the_creation(self, store: Store) -> None:
        heard: list[Commit] = []
        store.listen(heard.append)
        commit = await store.create(a_job("a"), [queued()], [], then=to(JobState.ASSIGNED, attempt=1))
        assert (commit.changed, commit.previous, commit.first_seq) == (True, JobState.QUEUED, 2)
        assert [(each.previous, each.job.state) for each in heard] == [
            (None, JobState.QUEUED),
            (JobState.QUEUED, JobState.ASSIGNED),
        ]
        assert await store.get("a") == commit.job == heard[-1].job
        assert [entry[0] for entry in await everything(store, "a")] == [1, 2]
        assert await store.counts() == {JobState.ASSIGNED: 1}
        # Again: the change is asked of the earlier job, found by its key as well, and has nothing to say.
        again = await store.create(a_job("a"), [queued()], [], then=lambda job: None)
        assert (again.changed, again.job) == (False, commit.job)
        await store.create(a_job("b", idempotency_key="k"), [queued()], [])
        other = await store.create(
            a_job("c", idempotency_key="k"), [queued()], [], then=to(JobState.ASSIGNED, attempt=1)
        )
        assert (other.job.id, other.job.state) == ("b", JobState.ASSIGNED)

    async def test_a_conflict_asks_for_no_first_change(self, store: Store) -> None:
        first = await store.create(a_job("a"), [queued()], [])
        with pytest.raises(Conflict):
            await store.create(a_job("a", ref="other"), [queued()], [], then=to(JobState.ASSIGNED, attempt=1))
        assert await store.get("a") == first.job

    async def test_a_creation_stands_when_its_first_change_fails(self, store: Store) -> None:
        heard: list[Commit] = []
        store.listen(heard.append)
        with pytest.raises(Conflict):
            await store.create(a_job("a"), [queued()], [], then=to(JobState.SUCCEEDED))
        assert (await store.get("a")).state is JobState.QUEUED
        assert len(heard) == 1

    async def test_of_two_at_once_one_wins(self, store: Store) -> None:
        commits: list[Commit] = []

        async def submit(id: str) -> None:
            commits.append(await store.create(a_job(id, idempotency_key="k"), [queued()], []))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(submit, f"job-{number}")
        assert sum(commit.changed for commit in commits) == 1
        assert len({commit.job.id for commit in commits}) == 1

    async def test_a_change_gets_the_next_numbers(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        first = await store.change("job-1", adding(lines("a", "b", "c"), StepStarted(T0, 1, "s", "step")))
        second = await store.change("job-1", to(JobState.ASSIGNED, attempt=1))
        assert (first.first_seq, first.job.next_seq) == (2, 6)
        assert (second.first_seq, second.job.next_seq) == (6, 7)
        assert second.previous == JobState.QUEUED
        assert [entry[0] for entry in await everything(store, "job-1")] == [1, 2, 3, 4, 5, 6]

    async def test_next_seq_is_the_stores_business(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        commit = await store.change("job-1", adding(lines("a"), next_seq=99))
        assert commit.job.next_seq == 3

    async def test_no_decision_changes_nothing(self, store: Store) -> None:
        created = await store.create(a_job(), [queued()], [])
        heard: list[Commit] = []
        store.listen(heard.append)
        commit = await store.change("job-1", lambda job: None)
        assert not commit.changed
        assert commit.job == created.job
        assert heard == []

    async def test_what_a_decision_raises_is_its_callers_alone(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        outcomes: list[str] = []

        async def bad() -> None:
            with pytest.raises(Conflict) as caught:
                await store.change("job-1", to(JobState.SUCCEEDED))
            outcomes.append(caught.value.code)

        async def bug() -> None:
            with pytest.raises(ZeroDivisionError):
                await store.change("job-1", lambda job: 1 / 0)
            outcomes.append("bug")

        async def good(number: int) -> None:
            await store.change("job-1", adding(lines(f"line {number}")))
            outcomes.append("good")

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(good, number)
                nursery.start_soon(bad)
                nursery.start_soon(bug)
        assert sorted(outcomes) == ["bug"] * 5 + ["good"] * 5 + ["illegal_move"] * 5
        assert len(await everything(store, "job-1")) == 6

    async def test_the_first_one_committed_wins(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        outcomes: list[str] = []

        async def claim(worker: str) -> None:
            try:
                await store.change("job-1", to(JobState.ASSIGNED, worker_id=worker))
                outcomes.append(worker)
            except Conflict:
                outcomes.append("")

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(claim, f"w{number}")
        assert sum(map(bool, outcomes)) == 1
        assert (await store.get("job-1")).worker_id in outcomes

    async def test_each_decision_sees_the_ones_before(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        seen: list[int] = []

        def count(job: Job) -> Decision:
            seen.append(job.tries)
            return Decision(job=msgspec.structs.replace(job, tries=job.tries + 1))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(store.change, "job-1", count)
        assert (await store.get("job-1")).tries == 50
        assert sorted(set(seen)) == list(range(50))

    async def test_listeners_hear_in_order_before_the_caller(self, store: Store) -> None:
        heard: list[Commit] = []
        store.listen(heard.append)
        answered: list[int] = []

        async def one(number: int) -> None:
            job_id = f"job-{number % 3}"
            commit = await store.change(job_id, adding(lines(str(number))))
            assert any(each is commit or each == commit for each in heard)
            answered.append(number)

        for number in range(3):
            await store.create(a_job(f"job-{number}"), [queued()], [])
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(one, number)
        assert len(answered) == 30
        for number in range(3):
            numbers = [commit.first_seq for commit in heard if commit.job.id == f"job-{number}"]
            assert numbers == list(range(1, 12))

    async def test_a_cancelled_change_is_whole_or_nothing(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        heard: list[Commit] = []
        store.listen(heard.append)
        for turns in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        store.change, "job-1", adding(lines(f"a{turns}"), StepStarted(T0, 1, "s", f"b{turns}"))
                    )
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        last = await store.change("job-1", adding(lines("last")))
        found = await everything(store, "job-1")
        assert [entry[0] for entry in found] == list(range(1, last.job.next_seq))
        assert len(found) == 2 + 2 * (len(heard) - 1)

    async def test_records_that_break_their_promise_are_refused(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        for bad in (Lines(T0, 1, "s", "stdout", "no newline"), Lines(T0, 1, "s", "stdout", "a\nb\n", True)):
            with pytest.raises(BadRequest):
                await store.change("job-1", adding(lines("fine"), bad))
        commit = await store.change("job-1", adding(Lines(T0, 1, "s", "stdout", "")))
        assert commit.job.next_seq == 2
        with pytest.raises(BadRequest):
            await store.create(a_job("other"), [Lines(T0, 1, "s", "stdout", "no newline")], [])
        with pytest.raises(NotFound):
            await store.get("other")

    @pytest.mark.parametrize("id", ["", ".", "..", "a/b", "x" * 65, "ä", "a\n", "a b"])
    async def test_an_id_that_is_no_name_is_refused(self, store: Store, id: str) -> None:
        with pytest.raises(BadRequest):
            await store.create(a_job(id), [queued()], [])

    # Lists

    async def test_find_goes_newest_first_page_by_page(self, store: Store) -> None:
        for number in range(25):
            await store.create(a_job(f"job-{number:02}", after=number // 3), [], [])
        for number in range(0, 25, 2):
            await store.change(f"job-{number:02}", to(JobState.CANCELED, finished_at=T0))
        for states, expected in (
            ([], range(25)),
            ([JobState.CANCELED], range(0, 25, 2)),
            ([JobState.CANCELED, JobState.QUEUED], range(25)),
            ([JobState.RUNNING], range(0)),
        ):
            ids: list[str] = []
            cursor = None
            for _ in range(10):
                page = await store.find(states, limit=4, cursor=cursor)
                ids += [job.id for job in page.jobs]
                cursor = page.cursor
                if cursor is None:
                    break
            assert ids == [f"job-{number:02}" for number in reversed(expected)]

    async def test_a_full_last_page_has_no_cursor(self, store: Store) -> None:
        for number in range(4):
            await store.create(a_job(f"job-{number}", after=number), [], [])
        assert (await store.find([], limit=4)).cursor is None

    @pytest.mark.parametrize("cursor", ["", "x", "!!!", "ä", "AAAA", "OTk5", "MS4", "a" * 10000, "LTEuYQ=="])
    async def test_a_cursor_that_is_not_ours_is_refused(self, store: Store, cursor: str) -> None:
        with pytest.raises(BadRequest):
            await store.find([], limit=4, cursor=cursor)

    async def test_counts_pools_and_places_in_line(self, store: Store) -> None:
        await store.create(a_job("a", priority=5), [], [])
        await store.create(a_job("b", priority=9), [], [])
        third = await store.create(a_job("c", priority=5), [], [])
        await store.create(a_job("d", priority=1), [], [])
        await store.create(a_job("e", pool="arm"), [], [])
        assert await store.counts() == {JobState.QUEUED: 5}
        assert await store.queued_by_pool() == {"default": 4, "arm": 1}
        assert await store.ahead(third.job) == 2
        await store.change("b", to(JobState.ASSIGNED))
        await store.change("e", to(JobState.CANCELED, finished_at=T0))
        assert await store.ahead(third.job) == 1
        assert await store.pools() == ["default"]
        counts = await store.counts()
        assert {state: count for state, count in counts.items() if count} == {
            JobState.QUEUED: 3,
            JobState.ASSIGNED: 1,
            JobState.CANCELED: 1,
        }
        assert await store.queued_by_pool() == {"default": 3}

    async def test_queued_by_id_and_unfinished_by_age(self, store: Store) -> None:
        for number in (3, 1, 4, 2, 5):
            await store.create(a_job(f"job-{number}", after=10 - number), [], [])
        await store.change("job-2", to(JobState.ASSIGNED))
        await store.change("job-4", to(JobState.ASSIGNED))
        assert [job.id for job in await store.queued(limit=2)] == ["job-1", "job-3"]
        assert [job.id for job in await store.queued(after="job-3")] == ["job-5"]
        await store.create(a_job("job-6", pool="arm"), [], [])
        assert [job.id for job in await store.queued(pool="arm")] == ["job-6"]
        assert [job.id for job in await store.queued(after="job-1", pool="default")] == ["job-3", "job-5"]
        assert [job.id for job in await store.unfinished()] == ["job-4", "job-2"]

    async def test_retention_takes_old_ended_jobs(self, store: Store) -> None:
        for number in range(4):
            await ended(store, a_job(f"old-{number}", idempotency_key=f"k{number}"), T0 + timedelta(days=number))
        await store.change("old-1", adding(lines("kept no longer")))
        await store.create(a_job("waits"), [queued()], [])
        await store.change("old-0", lambda job: Decision(job=job, outgoing=(Outgoing(kind="status", job_id="old-0"),)))
        assert await store.forget(T0 + timedelta(days=3), limit=1) == 1
        with pytest.raises(NotFound):
            await store.read("old-1", 1)
        await store.published([row.id for row in await store.outgoing()])
        assert await store.forget(T0 + timedelta(days=3), limit=10) == 2
        assert sorted(job.id for job in (await store.find([], limit=10)).jobs) == ["old-3", "waits"]
        again = await store.create(a_job("old-1", idempotency_key="k1"), [queued()], [])
        assert again.changed
        await store.change("old-1", adding(lines("new")))
        assert await everything(store, "old-1") == [(1, "StateChanged", ""), (2, "log", "new")]

    # Logs

    async def a_log(self, store: Store) -> tuple[list[Any], bytes]:
        """A log of everything, and what must come back: entries and plain text."""
        await store.create(a_job(), [queued()], [])
        expected: list[Any] = [(1, "StateChanged", "")]
        text = b""
        for number in range(40):
            batch = (f"line {number} {'ä' * number}", "", f"\u2028odd\x0b\r{number}")
            await store.change("job-1", adding(lines(*batch), Progress(T0, 1, "s", number, 40, "bytes")))
            expected += [(len(expected) + 1 + i, "log", line) for i, line in enumerate(batch)]
            expected.append((len(expected) + 1, "Progress", ""))
            text += "".join(f"{line}\n" for line in batch).encode()
            await store.change("job-1", adding(lines(f"half {number}", partial=True)))
            await store.change("job-1", adding(lines(f"other half {number}")))
            expected.append((len(expected) + 1, "log", f"half {number}"))
            expected.append((len(expected) + 1, "log", f"other half {number}"))
            text += f"half {number}other half {number}\n".encode()
            if number % 4 == 0:
                await store.change("job-1", adding(Notice(T0, 1, "code", f"notice {number}")))
                expected.append((len(expected) + 1, "Notice", f"notice {number}"))
        return expected, text

    async def test_every_place_can_be_read(self, store: Store) -> None:
        expected, _ = await self.a_log(store)
        assert await everything(store, "job-1") == expected
        assert await everything(store, "job-1", limit=1) == expected
        assert await everything(store, "job-1", limit=7) == expected
        assert await everything(store, "job-1", max_bytes=1) == expected
        for seq in range(1, len(expected) + 1, 5):
            page = await store.read("job-1", seq, limit=1)
            assert len(page) == 1
            assert page[0][0] == seq
            assert span(page[0][1]) == 1
        assert await store.read("job-1", len(expected) + 1) == []
        assert await store.read("job-1", 10**15) == []
        assert (await store.read("job-1", -5, limit=1))[0][0] == 1

    async def test_a_page_is_not_larger_than_asked(self, store: Store) -> None:
        await store.create(a_job(), [queued()], [])
        await store.change("job-1", adding(lines(*["x" * 999] * 300)))
        page = await store.read("job-1", 2, max_bytes=10_000)
        assert sum(span(record) for _, record in page) == 10
        page = await store.read("job-1", 2, limit=3)
        assert sum(span(record) for _, record in page) == 3

    async def test_the_plain_log_is_exact_to_the_byte(self, store: Store) -> None:
        _, text = await self.a_log(store)
        assert await store.text_size("job-1") == len(text)
        assert await store.read_text("job-1", 0, len(text) + 10) == text
        for offset in range(0, len(text), 97):
            assert await store.read_text("job-1", offset, 50) == text[offset : offset + 50]
        assert b"".join([await store.read_text("job-1", at, 1) for at in range(100)]) == text[:100]
        assert await store.read_text("job-1", len(text), 10) == b""
        assert await store.read_text("job-1", 10**12, 10) == b""
        assert await store.read_text("job-1", 3, 0) == b""

    async def test_a_job_without_a_log_has_an_empty_one(self, store: Store) -> None:
        await store.create(a_job(), [], [])
        assert await store.read("job-1", 1) == []
        assert await store.text_size("job-1") == 0
        assert await store.read_text("job-1", 0, 10) == b""

    # Outbox

    async def test_the_outbox_holds_until_published(self, store: Store) -> None:
        await store.create(a_job(), [], [Outgoing(kind="ticket", job_id="job-1", generation=1, priority=7)])
        await store.change(
            "job-1",
            lambda job: Decision(
                job=job,
                outgoing=(Outgoing(kind="event", job_id="job-1", body=b"{}"), Outgoing(kind="status", job_id="job-1")),
            ),
        )
        rows = await store.outgoing()
        assert [row.kind for row in rows] == ["ticket", "event", "status"]
        assert [row.id for row in rows] == sorted({row.id for row in rows})
        assert rows[0].priority == 7
        assert await store.outgoing(after=rows[0].id, limit=1) == rows[1:2]
        await store.published([rows[0].id, rows[2].id, 10**9])
        assert await store.outgoing() == rows[1:2]

    # Queues

    async def test_a_queue_goes_by_priority_then_age(self, store: Store) -> None:
        ids = await store.queue_put("q", [QueueItem(body=bytes([n]), priority=n % 3) for n in range(9)])
        await store.queue_put("other", [QueueItem(body=b"x")])
        taken = await store.queue_take("q", 4, {ids[2]})
        assert [item.body[0] for item in taken] == [5, 8, 1, 4]
        assert await store.queue_depth("q") == 9
        await store.queue_delete([ids[5], ids[8], 10**9])
        assert [item.body[0] for item in await store.queue_take("q", 2, ())] == [2, 1]
        assert await store.queue_purge("q") == 7
        assert await store.queue_take("q", 2, ()) == []
        assert await store.queue_depth("other") == 1

    async def test_a_bounded_queue_drops_its_oldest(self, store: Store) -> None:
        for number in range(6):
            await store.queue_put("q", [QueueItem(body=bytes([number]), priority=9 - number)], maximum=3)
        assert sorted(item.body[0] for item in await store.queue_take("q", 10, ())) == [3, 4, 5]
        assert await store.queue_depth("q") == 3

    async def test_queue_rows_are_returned_and_moved(self, store: Store) -> None:
        item = QueueItem(body=b"b", priority=3, message_id="m", headers={"a": "1"})
        [id] = await store.queue_put("q", [item])
        await store.queue_return([id, 10**9])
        await store.queue_return([id])
        await store.queue_move(id, "dead", {"reason": "conflict"})
        await store.queue_move(10**9, "dead", {})
        assert await store.queue_depth("q") == 0
        [moved] = await store.queue_take("dead", 5, ())
        moved_item = msgspec.structs.replace(item, id=id, deliveries=2, headers={"a": "1", "reason": "conflict"})
        assert moved == moved_item
        await store.queue_move(id, "dead", {}, body=b"other")
        assert await store.queue_take("dead", 5, ()) == [msgspec.structs.replace(moved_item, body=b"other")]

    # The farm

    async def test_the_farm_log_is_one_sequence(self, store: Store) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(lambda n=number: store.note("started", f"n{n}", subject="s", data={"n": n}))
        events = await store.noted(1)
        assert [event.seq for event in events] == list(range(1, 11))
        assert {event.data["n"] for event in events} == set(range(10))
        assert [event.seq for event in await store.noted(4, limit=3)] == [4, 5, 6]
        assert await store.noted(11) == []
        assert (await store.note("x", "y", time=T0)).time == T0

    async def test_settings(self, store: Store) -> None:
        assert await store.meta("farm") is None
        assert await store.meta("farm", "one") == "one"
        assert await store.meta("farm", "two") == "one"
        await store.setting("drain.w1", "yes")
        await store.setting("drain.w2", "yes")
        await store.setting("drain.w1", None)
        await store.setting("drain%", "literal")
        assert await store.settings("drain.") == {"drain.w2": "yes"}
        assert await store.meta("farm") == "one"
        assert "farm" in await store.settings("")

    async def test_documents(self, store: Store) -> None:
        assert await store.document("secret", "a") is None
        assert await store.revise("secret", "a", lambda body: None) is None
        assert await store.revise("secret", "b", lambda body: b"one" if body is None else b"wrong") == b"one"
        assert await store.revise("secret", "a", lambda body: b"first") == b"first"
        assert await store.revise("source", "b", lambda body: b"other") == b"other"
        assert await store.revise("secret", "b", lambda body: (body or b"") + b", two") == b"one, two"
        assert await store.documents("secret") == [("a", b"first"), ("b", b"one, two")]
        assert await store.documents("secret", limit=1) == [("a", b"first")]
        assert await store.documents("secret", after="a") == [("b", b"one, two")]
        assert await store.revise("secret", "b", lambda body: body) == b"one, two"
        assert await store.revise("secret", "b", lambda body: None) is None
        assert await store.document("secret", "b") is None
        assert await store.document("source", "b") == b"other"

    async def test_a_refused_revision_changes_nothing(self, store: Store) -> None:
        def refuse(body: bytes | None) -> bytes | None:
            raise Conflict("no")

        await store.revise("kind", "name", lambda body: b"before")
        with pytest.raises(Conflict):
            await store.revise("kind", "name", refuse)
        with pytest.raises(TooLarge):
            await store.revise("kind", "name", lambda body: bytes((1 << 20) + 1))
        assert await store.document("kind", "name") == b"before"

    async def test_of_many_revisions_none_is_lost(self, store: Store) -> None:
        async def add() -> None:
            await store.revise("count", "x", lambda body: str(int(body or b"0") + 1).encode())

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(add)
        assert await store.document("count", "x") == b"50"

    async def test_a_sound_store_is_healthy(self, store: Store) -> None:
        assert await store.health() == ""

    # Streams

    async def test_a_stream_is_read_like_a_job_and_is_in_no_list(self, store: Store) -> None:
        heard: list[Commit] = []
        jobs: list[Commit] = []
        store.listen(heard.append, streams=True)
        store.listen(jobs.append)
        stream = a_stream()
        assert (await store.create(stream, [], [])).changed
        assert not (await store.create(a_stream(), [], [])).changed

        def written(job: Job) -> Decision:
            assert job.stream is not None
            number = job.stream.written.get("w", 1)
            changed = msgspec.structs.replace(job.stream, written={"w": number + 1})
            row = Outgoing(kind="deployment", job_id=job.id, body=b"{}")
            return Decision(
                job=msgspec.structs.replace(job, stream=changed), records=(lines(f"{number}"),), outgoing=(row,)
            )

        await store.change(stream.id, written)
        await store.change(stream.id, written)
        assert [event[2] for event in await everything(store, stream.id)] == ["1", "2"]
        assert await store.read_text(stream.id, 0, 100) == b"1\n2\n"
        kept = (await store.get(stream.id)).stream
        assert kept is not None
        assert kept.written == {"w": 3}
        assert len(await store.outgoing()) == 2
        assert (await store.find([], limit=10)).jobs == []
        assert (await store.find([JobState.RUNNING], limit=10)).jobs == []
        assert await store.unfinished() == []
        assert await store.counts() == {}
        assert await store.pools() == []
        assert await store.forget(T0 + timedelta(days=999)) == 0
        assert len(heard) == 3
        assert jobs == []

    async def test_a_discarded_stream_is_gone_and_begins_anew(self, store: Store) -> None:
        await store.create(a_stream(), [queued()], [])
        other = a_stream("run.other")
        await store.create(other, [], [])
        row = Outgoing(kind="deployment", job_id="run.web", body=b"{}")
        for number in range(3):
            more = (lines(f"{number} ".ljust(50_000, "x")),)
            await store.change("run.web", lambda job, more=more: Decision(job=job, records=more, outgoing=(row,)))
        await store.change(other.id, adding(lines("stays")))
        job = a_job("app")
        await store.create(job, [queued()], [])
        await store.discard("run.web")
        await store.discard("run.web")
        await store.discard("app")
        for read in (store.get("run.web"), store.read("run.web", 1), store.text_size("run.web")):
            with pytest.raises(NotFound):
                await read
        assert (await store.get("app")).id == "app"
        # What was committed to be said is said.
        assert len(await store.outgoing()) == 3
        assert (await store.create(a_stream(), [], [])).changed
        await store.change("run.web", adding(lines("new")))
        assert await store.read_text("run.web", 0, 100) == b"new\n"
        assert (await store.read("run.web", 1))[0][0] == 1
        assert await store.read_text(other.id, 0, 100) == b"stays\n"

    async def test_no_job_can_be_named_like_a_stream(self, store: Store) -> None:
        with pytest.raises(BadRequest):
            await store.create(a_job("run.web"), [], [])
        with pytest.raises(BadRequest):
            await store.create(a_stream("web"), [], [])

    async def test_a_trimmed_stream_begins_later_and_goes_on_without_a_gap(self, store: Store) -> None:
        stream = a_stream()
        await store.create(stream, [queued()], [])
        assert await store.trim(stream.id, 1000) is False
        for number in range(60):
            text = f"{number} ".ljust(50_000, "x")
            await store.change(stream.id, adding(lines(text)))
            await store.change(stream.id, lambda job: Decision(job=job, records=(Notice(T0, 1, "n", "between"),)))
        size = await store.text_size(stream.id)
        assert await store.trim(stream.id, 500_000) is True
        assert await store.trim(stream.id, 500_000) is False
        assert await store.text_size(stream.id) == size
        job = await store.get(stream.id)
        assert job.stream is not None
        first = job.stream.first_seq
        assert 1 < first < job.next_seq
        position = first
        for from_seq in (1, first):
            page = await store.read(stream.id, from_seq, limit=10_000, max_bytes=10 << 20)
            assert page[0][0] == first
            position = first
            for seq, record in page:
                assert seq == position
                assert getattr(record, "code", "") != "log_damaged"
                position += span(record)
            assert position == job.next_seq
        begins = job.stream.text_first
        text = await store.read_text(stream.id, begins, 10 << 20)
        assert len(text) == size - begins
        assert text.startswith(b"%d " % (begins // 50_001))
        await store.change(stream.id, adding(lines("after")))
        assert (await store.read(stream.id, job.next_seq))[0] == (job.next_seq, lines("after"))
        with pytest.raises(NotFound):
            await store.trim("run.nothing", 1)

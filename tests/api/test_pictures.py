"""What a viewer asks for beyond jobs and events: lists by more than the state, a log's outline, the last hours."""

from datetime import datetime, timedelta

from blacktree.api.history import binned
from blacktree.api.outline import add
from blacktree.clock import now
from blacktree.event import Lines, Notice, Progress, Record, StateChanged, StepFinished, StepStarted
from blacktree.job import Job, JobState
from blacktree.spec import JobSpec
from blacktree.storage.base import Decision
from tests.api.little import House, open_house
from tests.api.talk import ask, talking


async def test_jobs_are_found_by_repository_text_and_pool() -> None:
    async with open_house() as house, talking(house) as talker:
        for number in range(130):
            await house.control.new_job(repository=f"https://example.test/team/other-{number}.git")
        arm = await house.control.new_job(repository="https://example.test/team/Shop.git", pool="arm", ref="release-7")
        for _ in range(130):
            await house.control.new_job()
        for wanted in ({"repository": "team/shop"}, {"text": "RELEASE-7"}, {"pool": "arm"}, {"text": arm.upper()}):
            found = await talker.result("job.list", {**wanted, "state": "queued", "limit": 20})
            assert [job["id"] for job in found["jobs"]] == [arm]
            assert found["cursor"] is None
        seen: list[str] = []
        cursor = None
        while True:
            page = await talker.result("job.list", {"repository": "other", "limit": 60, "cursor": cursor})
            assert len(page["jobs"]) <= 60
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 130
        answer = await ask(house, "GET", "/api/v1/jobs?text=release-7&pool=arm&limit=3")
        assert [job["id"] for job in answer.json["jobs"]] == [arm]
        assert (await ask(house, "GET", "/api/v1/jobs?poll=arm")).json["path"] == "poll"


async def say(house: House, job_id: str, *records: Record) -> None:
    await house.control.store.change(job_id, lambda job: Decision(job=job, records=records))


async def test_the_outline_of_a_log_tells_where_each_step_is() -> None:
    async with open_house() as house, talking(house) as talker:
        job_id = await house.control.new_job()
        time = now()
        for record in (
            StepStarted(time, 1, "a", "A"),  # 2
            Lines(time, 1, "a", "stdout", "1\n2\n3\n"),  # 3 to 5
            StepStarted(time, 1, "b", "B"),  # 6
            Lines(time, 1, "b", "stdout", "1\n"),  # 7
            Lines(time, 1, "a", "stdout", "4\n"),  # 8
            StepFinished(time, 1, "a", "A", False, 1.0, True),  # 9
            Lines(time, 1, "b", "stdout", "2\n3\n"),  # 10, 11
        ):
            await say(house, job_id, record)
        found = await talker.result("job.outline", {"id": job_id})
        assert found == {
            "stretches": [[3, 5, "a", 1], [7, 7, "b", 1], [8, 9, "a", 1], [10, 11, "b", 1]],
            "next_seq": 12,
            "done": True,
        }
        only = (await ask(house, "GET", f"/api/v1/jobs/{job_id}/outline?step=b&from_seq=8")).json
        assert only["stretches"] == [[10, 11, "b", 1]]
        assert (await ask(house, "GET", "/api/v1/jobs/unknown/outline")).status == 404
        assert (await ask(house, "GET", f"/api/v1/jobs/{job_id}/outline?from_seq=99")).json["next_seq"] == 99


def test_stretches_join_only_what_belongs_together() -> None:
    time = now()
    found: list[tuple[int, int, str, int]] = []
    for first, record in (
        (1, StateChanged(time, 0, "", "queued")),
        (2, Notice(time, 1, "odd", "no step")),
        (3, Lines(time, 1, "a", "stdout", "1\n2\n")),
        (5, Progress(time, 1, "a", 1, 2, "bytes")),
        (6, Notice(time, 1, "odd", "with a step", "a")),
        (7, Lines(time, 2, "a", "stdout", "again\n")),
    ):
        add(found, record, first)
    assert found == [(3, 6, "a", 1), (7, 7, "a", 2)]


def test_jobs_are_counted_where_they_ended() -> None:
    begin = now()
    width = timedelta(minutes=1)

    def at(minutes: float) -> datetime:
        return begin + timedelta(minutes=minutes)

    def job(state: JobState, created: float, started: float | None, finished: float | None) -> Job:
        return Job(
            id="x",
            state=state,
            spec=JobSpec(repository="x"),
            created_at=at(created),
            queued_at=at(created),
            started_at=None if started is None else at(started),
            finished_at=None if finished is None else at(finished),
        )

    bins = binned(
        [
            job(JobState.SUCCEEDED, -5, -1, 0.5),
            job(JobState.FAILED, 0, 0.5, 1.5),
            job(JobState.RUNNING, 0, 1.5, None),
            job(JobState.QUEUED, 0, None, None),
            job(JobState.CANCELED, 0, None, 9),
        ],
        begin,
        width,
        2,
    )
    assert [(each["succeeded"], each["failed"], each["started"]) for each in bins] == [(1, 0, 1), (0, 1, 1)]
    assert (bins[0]["wait_p50"], bins[1]["wait_p90"]) == (30.0, 90.0)  # seconds; the first had begun before


async def test_the_last_hours_are_computed_once_for_all() -> None:
    async with open_house() as house, talking(house) as talker:
        await house.control.finish(await house.control.new_job())
        first = await talker.result("farm.history", {"hours": 1, "bins": 4})
        assert first["complete"]
        assert (len(first["bins"]), first["bin_seconds"]) == (4, 900)
        assert await talker.result("farm.history", {"hours": 1, "bins": 4}) == first
        assert len((await talker.result("farm.history", {"hours": 1e9, "bins": 10**9}))["bins"]) == 200
        assert "jobs" in (await talker.result("farm.info"))["figures"]

"""The client for programs without Trio, from a thread of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from blacktree.api import shapes
from blacktree.client.blocking import Client
from blacktree.errors import BadRequest, NotAllowed, NotFound
from blacktree.job import JobState
from tests.api.little import SPEC, TOKEN, House, open_house


async def use(house: House, what: Callable[[Client], Any]) -> Any:
    def work() -> Any:
        with Client(house.address, TOKEN) as client:
            return what(client)

    return await trio.to_thread.run_sync(work)


async def test_a_job_as_a_script_sees_it() -> None:
    async with open_house() as house:

        def work(client: Client) -> None:
            job = client.submit(SPEC, key="k")
            assert (job.state, job.spec.repository) == (JobState.QUEUED, SPEC["repository"])
            assert client.submit(SPEC, key="k").id == job.id
            assert [each.id for each in client.jobs(["queued"]).jobs] == [job.id]
            assert client.workers().workers[0].id == "w1"
            assert client.call("farm.info", {})["status"] == "ready"
            assert client.cancel(job.id, reason="no need").state is JobState.CANCELED
            again = client.retry(job.id)
            assert (again.retry_of, client.job(again.id).state) == (job.id, JobState.QUEUED)
            first = client.events(job.id).events[0]
            assert isinstance(first, shapes.StateEvent)
            assert (first.previous, first.to) == (None, "queued")
            with pytest.raises(NotFound):
                client.job("none")

        await use(house, work)


async def test_a_watch_goes_on_where_it_stopped() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        await house.control.print(job_id, ["one", "two"])

        def begin(client: Client) -> int:
            with client.watch(job_id) as watch:
                for event in watch:
                    if isinstance(event, shapes.LogEvent) and event.line == "one":
                        return watch.next_seq
            raise AssertionError

        place = await use(house, begin)
        await house.control.finish(job_id)

        def rest(client: Client) -> tuple[list[str], JobState]:
            with client.watch(job_id, place) as watch:
                lines = [event.line for event in watch if isinstance(event, shapes.LogEvent)]
                return lines, watch.job.state

        assert await use(house, rest) == (["two"], JobState.SUCCEEDED)


async def test_errors_are_the_same() -> None:
    async with open_house() as house:

        def wrong() -> None:
            with Client(house.address, "wrong") as client:
                client.jobs()

        with pytest.raises(NotAllowed):
            await trio.to_thread.run_sync(wrong)
        with pytest.raises(BadRequest):
            Client("ftp://nowhere", TOKEN)
        with pytest.raises(NotFound):
            await use(house, lambda client: client.watch("none").__enter__())

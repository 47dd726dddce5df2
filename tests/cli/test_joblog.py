"""`logs` against a real door: search there, filters, following, restarts."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from blacktree.cli.joblog import read_job_log
from blacktree.cli.logfilter import Wanted
from blacktree.cli.server import Endpoint
from blacktree.client import Client
from blacktree.client.place import end_of_log, first_seq, search
from blacktree.clock import now
from blacktree.errors import NotFound
from blacktree.event import Lines, Record, StepFinished, StepStarted
from blacktree.job import StepRecord
from blacktree.storage.base import Decision
from tests.api.little import TOKEN, House, Little, open_house
from tests.api.talk import until
from tests.parts.ports import free_port


async def put(control: Little, job_id: str, *records: Record) -> None:
    await control.store.change(job_id, lambda job: Decision(job=job, records=records))


def lines(step: str, *texts: str, minutes: float = 0) -> Lines:
    return Lines(now() - timedelta(minutes=minutes), 1, step, "stdout", "".join(f"{text}\n" for text in texts))


async def a_log(control: Little) -> str:
    """An hour old and of two steps, with a few errors in many lines."""
    job_id = await control.new_job()
    old = now() - timedelta(minutes=60)
    await put(control, job_id, StepStarted(old, 1, "1", "RUN make"), lines("1", "begin", "error: one", minutes=60))
    for part in range(20):
        await put(control, job_id, lines("1", *(f"word {part} {number}" for number in range(100)), minutes=50))
    await put(control, job_id, StepStarted(now(), 1, "2", "RUN test"))
    await put(control, job_id, lines("2", "ERROR: two", "\x1b[1merr\x1b[0mor: three"), lines("1", "error: four"))
    await put(control, job_id, StepFinished(now(), 1, "1", "RUN make", False, 1.5, True))
    return job_id


async def read(house: House, job_id: str, wanted: Wanted, *, from_seq: int = 1, **options: Any) -> int:
    flags = {"following": False, "as_json": False, "timestamps": False} | options
    return await read_job_log(Endpoint(f"http://{house.address}", TOKEN), job_id, wanted, from_seq, **flags)


async def test_grep_is_answered_by_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_house() as house:
        job_id = await a_log(house.control)
        assert await read(house, job_id, Wanted(re.compile("error"))) == 0
        assert capsys.readouterr().out.splitlines() == ["error: one", "\x1b[1merr\x1b[0mor: three", "error: four"]
        assert await read(house, job_id, Wanted(re.compile("^e.*: (two|four)$", re.IGNORECASE))) == 0
        assert capsys.readouterr().out.splitlines() == ["ERROR: two", "error: four"]
        assert await read(house, job_id, Wanted(re.compile("nowhere"))) == 0
        assert capsys.readouterr().out == ""


async def test_options_combine_and_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_house() as house:
        job_id = await a_log(house.control)
        whole = Wanted()
        assert await read(house, job_id, whole, as_json=True) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert await read(house, job_id, Wanted(re.compile("error:"), "make"), as_json=True) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert found == [each for each in events if each.get("line") in ("error: one", "error: four")]
        since = datetime.now(UTC) - timedelta(minutes=5)
        assert await read(house, job_id, Wanted(re.compile("error:"), "make", since), timestamps=True) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z error: four", line)
        assert await read(house, job_id, Wanted(step="make", since=since)) == 0
        assert capsys.readouterr().out.splitlines() == ["==> RUN make", "error: four", "==> RUN make: done in 1.5 s"]


async def test_a_step_that_is_none_is_exit_2_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_house() as house:
        job_id = await a_log(house.control)
        assert await read(house, job_id, Wanted(step="biuld")) == 2
        assert "no step 'biuld'; there are: RUN make · RUN test" in capsys.readouterr().err
        assert await read(house, await house.control.new_job(), Wanted(step="x")) == 2
        assert "nothing of this job has run yet" in capsys.readouterr().err
        with pytest.raises(NotFound):
            await read(house, "unknown", Wanted(re.compile("error")))


async def test_a_step_that_began_before_the_place_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_house() as house:
        job_id = await a_log(house.control)
        step = StepRecord(step="2", name="RUN test", attempt=1)
        await house.control.store.change(
            job_id, lambda job: Decision(job=type(job)(**{**_fields(job), "steps": [step]}))
        )
        async with Client(house.address, TOKEN) as client:
            events = (await client.events(job_id, limit=5000))["events"]
        at = next(event["seq"] for event in events if event.get("step") == "2") + 1
        assert await read(house, job_id, Wanted(step="test"), from_seq=at) == 0
        assert capsys.readouterr().out.splitlines()[:2] == ["==> RUN test", "ERROR: two"]


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


async def test_following_with_grep_goes_on_where_the_search_ended_and_survives_restarts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    control = Little()
    codes: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(control.store.run)
        job_id = await a_log(control)
        wanted = Wanted(re.compile("error|late"), "make")
        # No text that every match holds: everything is read here; and one that the server looks for.
        for pattern in ("error|late", "rro.*"):
            codes.clear()
            wanted = Wanted(re.compile(pattern), "make")
            job_id = await a_log(control)
            address = f"127.0.0.1:{free_port()}"
            for restart in range(3):
                async with open_house(control, listen=address) as house:
                    if restart == 0:

                        async def follow(house: House = house, job_id: str = job_id, wanted: Wanted = wanted) -> None:
                            codes.append(await read(house, job_id, wanted, following=True))

                        nursery.start_soon(follow)
                    await until(lambda house=house: house.door.tally.watches == 1, 40)
                    await put(control, job_id, lines("1", f"error {restart}", "other"), lines("2", "error elsewhere"))
                    if restart == 2:
                        await control.finish(job_id)
                        await until(lambda: bool(codes), 40)
            shown = capsys.readouterr()
            assert shown.out.splitlines() == ["error: one", "error: four", "error 0", "error 1", "error 2"]
            assert codes == [0]
            assert "trying again" in shown.err
        nursery.cancel_scope.cancel()


async def test_a_search_hands_out_long_results_in_stretches() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        job_id = await house.control.new_job()
        for part in range(6):
            await put(house.control, job_id, lines("1", *(f"hit {part}.{n} {'x' * 1000}" for n in range(500))))
        seen: list[str] = []
        at, stretches = 1, 0
        while True:
            found = await search(client, job_id, "HIT", at)
            seen += [event["line"].split()[1] for event in found["events"]]
            stretches += 1
            at = found["seen_seq"]
            if found["next_seq"] is None:
                break
        assert seen == [f"{part}.{n}" for part in range(6) for n in range(500)]
        assert stretches > 3
        assert at == await end_of_log(client, job_id) == 3002


async def test_a_place_is_found_in_few_questions() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        job_id = await house.control.new_job()
        assert await end_of_log(client, job_id) == 2
        await house.control.print(job_id, [str(number) for number in range(2, 1000)])
        assert await end_of_log(client, job_id) == 1000
        for wanted in (2, 3, 511, 512, 513, 999):
            assert await first_seq(client, job_id, lambda event, wanted=wanted: event["seq"] >= wanted) == wanted
        with pytest.raises(NotFound):
            await end_of_log(client, "unknown")

"""Commit statuses at a stand-in forge: right words in order, repeated, given up, carried over restarts."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.job import Failure, Image, Outcome
from blacktree.orchestrator.statuswords import Later, Refused, backoff_seconds, judge, next_state
from blacktree.secret import SecretKind
from tests.orchestrator.conftest import House, open_house
from tests.orchestrator.test_hooks import KEY, URL, accepted, all_jobs, delivery, hooked
from tests.parts.forge import TOKEN, ForgeApi, commit_id, forge_api, pull_request, push
from tests.parts.toy_worker import lines

DOOR = {"public_url": "https://farm.example.org/"}


@pytest.fixture
def api() -> Iterator[ForgeApi]:
    with forge_api() as opened:
        yield opened
        assert opened.wrong == []


@asynccontextmanager
async def telling(directory: Path, api: ForgeApi, **source: Any) -> AsyncIterator[House]:
    given = {"forge_token": "git.example.org", "forge_url": api.url} | source
    async with hooked(directory, given, door=DOOR) as house:
        await house.control.secrets.put("git.example.org", TOKEN.encode() + b"\n", kind=SecretKind.FORGE)
        yield house


async def until(api: ForgeApi, count: int) -> list[dict[str, Any]]:
    """What the forge has taken, once it is so much."""
    with trio.fail_after(40):
        while len(api.taken) < count:
            await trio.sleep(0.01)
    return api.taken


async def event_types(house: House) -> list[str]:
    return [event.type for event in await house.control.farm_events(1, 1000)]


WORDS = {
    "github": ["pending", "pending", "success"],
    "gitea": ["pending", "pending", "success"],
    "gitlab": ["pending", "running", "success"],
}


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"])
async def test_a_build_that_succeeds(tmp_path: Path, api: ForgeApi, forge: str) -> None:
    async with telling(tmp_path, api, forge=forge) as house:
        worker = await house.worker()
        await accepted(house, delivery(forge, push(forge, URL)))
        assignment = await worker.next_assignment()
        (first,) = await until(api, 1)
        await worker.say(assignment, lines("one"))
        await until(api, 2)
        await worker.end(assignment, Outcome(state="succeeded", image=Image(reference="a:b", id="sha256:1")))
        taken = await until(api, 3)
        assert [each["state"] for each in taken] == WORDS[forge]
        job_id = assignment.name.job_id
        for each in taken:
            assert each["target_url"] == f"https://farm.example.org/#/job/{job_id}"
            assert (each["context"], each["commit"], each["project"]) == ("blacktree/app", commit_id(1), "team/app")
        assert first["description"] == "waiting for a worker"
        assert taken[2]["description"].startswith("built in ")


@pytest.mark.parametrize(("forge", "word"), [("github", "failure"), ("gitlab", "failed"), ("gitea", "failure")])
async def test_a_build_that_fails(tmp_path: Path, api: ForgeApi, forge: str, word: str) -> None:
    async with telling(tmp_path, api, forge=forge, pull_requests=True) as house:
        worker = await house.worker()
        await accepted(house, delivery(forge, pull_request(forge, URL), kind="pull_request"))
        assignment = await worker.next_assignment()
        message = "step 3 failed: " + "long words " * 40
        await worker.end(assignment, Outcome(state="failed", error=Failure(code="run_failed", message=message)))
        await house.finished(assignment.name.job_id)
        with trio.fail_after(40):
            while not api.taken or api.taken[-1]["state"] != word:
                await trio.sleep(0.01)
        assert api.taken[0]["state"] == "pending"
        assert api.taken[-1]["context"] == "blacktree/app/pull-request"
        assert len(api.taken[-1]["description"]) <= 140


async def test_it_is_repeated_until_it_is_taken(tmp_path: Path, api: ForgeApi) -> None:
    api.script = [(503, {}), (429, {"retry-after": "0"}), (500, {}), (403, {"x-ratelimit-remaining": "0"})]
    async with telling(tmp_path, api) as house:
        await accepted(house, delivery("github", push("github", URL)))
        (job,) = await all_jobs(house, 1)
        await until(api, 1)
        assert api.asked == 5
        await house.control.cancel(job.id, reason="no need")
        taken = await until(api, 2)
        assert (taken[1]["state"], taken[1]["description"]) == ("error", "canceled: no need")
        assert "status_refused" not in await event_types(house)


async def test_another_4xx_is_final_and_told(tmp_path: Path, api: ForgeApi) -> None:
    api.script = [(422, {})]
    async with telling(tmp_path, api) as house:
        await accepted(house, delivery("github", push("github", URL)))
        with trio.fail_after(40):
            while "status_refused" not in await event_types(house):
                await trio.sleep(0.01)
        assert (api.asked, api.taken) == (1, [])
        told = [event for event in await house.control.farm_events(1, 1000) if event.type == "status_refused"]
        assert "422" in told[0].text
        assert TOKEN not in told[0].text


async def test_a_token_that_the_vault_has_not(tmp_path: Path, api: ForgeApi) -> None:
    async with telling(tmp_path, api, forge_token="other.example.org") as house:
        await accepted(house, delivery("github", push("github", URL)))
        with trio.fail_after(40):
            while "status_refused" not in await event_types(house):
                await trio.sleep(0.01)
        assert api.asked == 0


async def test_a_token_of_two_lines_is_shown_to_nobody(
    tmp_path: Path, api: ForgeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    async with telling(tmp_path, api) as house:
        await house.control.secrets.put("git.example.org", b"first-half\nsecond-half", kind=SecretKind.FORGE)
        await accepted(house, delivery("github", push("github", URL)))
        with trio.fail_after(40):
            while "status_refused" not in await event_types(house):
                await trio.sleep(0.01)
        told = [event.text for event in await house.control.farm_events(1, 1000)]
    said = capsys.readouterr()
    assert not any("half" in text for text in [*told, said.out, said.err])


async def test_what_was_not_taken_is_told_after_a_restart(tmp_path: Path, api: ForgeApi) -> None:
    api.script = [(502, {})] * 1000
    async with telling(tmp_path, api) as house:
        await accepted(house, delivery("github", push("github", URL)))
        (job,) = await all_jobs(house, 1)
        with trio.fail_after(40):
            while not api.asked:
                await trio.sleep(0.01)
        await house.control.cancel(job.id, reason="no need")
    # Asked once, the forge may have taken it, whatever it answered: it hears the end.
    api.script.clear()
    async with open_house(tmp_path, keys=[KEY], door=DOOR) as house:
        await accepted(house, delivery("github", push("github", URL, after=commit_id(2))))
        await until_states(api, commit_id(2), "pending")
        await until_states(api, commit_id(1), "error")
        _, job = await all_jobs(house, 2)
        api.script = [(502, {})] * 1000
        await house.control.cancel(job.id, reason="no need")
    api.script.clear()
    async with open_house(tmp_path, keys=[KEY], door=DOOR):
        await until_states(api, commit_id(2), "pending", "error")
    assert api.states(commit_id(1)) == ["error"]


async def until_states(api: ForgeApi, commit: str, *states: str) -> None:
    with trio.fail_after(40):
        while api.states(commit) != list(states):
            await trio.sleep(0.01)


async def test_ended_between_the_forge_s_taking_it_and_our_knowing(tmp_path: Path, api: ForgeApi) -> None:
    api.answering.clear()
    async with telling(tmp_path, api) as house:
        await accepted(house, delivery("github", push("github", URL)))
        (job,) = await all_jobs(house, 1)
        await until_states(api, commit_id(1), "pending")
        await house.control.cancel(job.id, reason="no need")
    api.answering.set()
    async with open_house(tmp_path, keys=[KEY], door=DOOR):
        await until_states(api, commit_id(1), "pending", "error")


async def test_canceled_in_the_queue_it_is_told_only_if_the_forge_was_asked(tmp_path: Path) -> None:
    async with hooked(tmp_path) as house:
        await accepted(house, delivery("github", push("github", URL)))
        (queued,) = await all_jobs(house, 1)
        await house.control.cancel(queued.id)
        job = await house.finished(queued.id)
    assert [next_state("", queued, begun=begun) for begun in (False, True)] == ["pending", "pending"]
    assert [next_state("", job, begun=begun) for begun in (False, True)] == ["", "canceled"]
    assert next_state("pending", job, begun=True) == "canceled"


async def test_a_retried_job_is_told_after_the_first(tmp_path: Path, api: ForgeApi) -> None:
    async with telling(tmp_path, api) as house:
        await accepted(house, delivery("github", push("github", URL)))
        (job,) = await all_jobs(house, 1)
        await until(api, 1)
        await house.control.cancel(job.id)
        await house.control.retry(job.id)
        await until(api, 3)
        assert api.states(commit_id(1)) == ["pending", "error", "pending"]


async def test_a_forge_that_does_not_answer_holds_up_nothing(tmp_path: Path, api: ForgeApi) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    dead = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    async with listener, telling(tmp_path, api) as house:
        await house.control.sources.edit("app", {"forge_url": dead})
        await accepted(house, delivery("github", push("github", URL)))
        worker = await house.worker()
        assignment = await worker.next_assignment()
        await worker.end(assignment)
        await house.finished(assignment.name.job_id)


def test_answers_are_judged() -> None:
    def verdict(status: int, text: str = "", **headers: str) -> str:
        try:
            judge(status, {name.replace("_", "-"): value for name, value in headers.items()}, text)
        except Later as later:
            return f"later {later.seconds:g}"
        except Refused:
            return "refused"
        return "taken"

    assert verdict(201) == "taken"
    assert verdict(400, '{"message":"Cannot transition status via :enqueue from :pending"}') == "taken"
    assert verdict(503) == "later 0"
    assert verdict(429, retry_after="60") == "later 60"
    assert verdict(429, retry_after="tomorrow") == "later 0"
    assert verdict(403, x_ratelimit_remaining="0") == "later 0"
    assert verdict(403) == "refused"
    assert verdict(302) == "refused"
    assert verdict(404) == "refused"
    for failures in range(1, 50):
        assert 0.5 <= backoff_seconds(failures, 1.0, 300.0) <= 300.0

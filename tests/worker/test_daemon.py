"""The worker as a whole: in this process, over real gRPC, with the scripted provider."""

import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from blacktree.concurrency.island import open_island
from blacktree.config import Config, WorkerConfig
from blacktree.errors import BlacktreeError, EngineLost
from blacktree.event import StepFinished
from blacktree.job import Outcome
from blacktree.providers.scripted import ScriptedProvider
from blacktree.rpc.client import connect_worker
from blacktree.rpc.peer import Assignment, AttemptName, StopOrder, WorkerSide
from blacktree.rpc.server import serve_orchestrator
from blacktree.worker.daemon import serve
from blacktree.worker.identity import open_identity
from blacktree.worker.lease import Lease
from tests.parts.orchestrator_side import OrchestratorPart, an_assignment

TOKEN = "join-token-of-the-test"


@asynccontextmanager
async def a_worker(
    tmp_path: Path, part: OrchestratorPart, *, worker_token: str = TOKEN, **keys: Any
) -> AsyncIterator[tuple[WorkerSide, Callable[[], None]]]:
    """A registered worker; what is given is its door, and what makes it leave. Its guard would kill this process."""
    (tmp_path / "token").write_text(worker_token)
    stop = trio.Event()
    async with open_island(), trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_orchestrator, part, "127.0.0.1:0", join_token=TOKEN))
        settings: dict[str, Any] = {
            "id": "w1",
            "orchestrator": address,
            "listen": "127.0.0.1:0",
            "state_directory": str(tmp_path / "state"),
            "join_token_file": str(tmp_path / "token"),
            "provider": "scripted",
            "steps": ("build", "tag"),
            "minimum_free_disk_bytes": 0,
            "shutdown_grace_seconds": 0.0,
        }
        config = Config(worker=WorkerConfig(**(settings | keys)))
        async with trio.open_nursery() as worker:
            own = await worker.start(
                partial(serve, config, signals=False, guarded=config.worker.provider == "docker", stop=stop)
            )
            await part.until(lambda: bool(part.registrations))
            async with connect_worker(own, join_token=TOKEN) as side:
                try:
                    yield side, stop.set
                finally:
                    stop.set()
        nursery.cancel_scope.cancel()


@pytest.fixture
def quick_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says something several times a second, however long its lease is."""
    monkeypatch.setattr(Lease, "heartbeat_seconds", 0.3)


async def test_a_job_from_registration_to_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blacktree.worker.daemon.FAREWELL_SECONDS", 40.0)
    part = OrchestratorPart()
    script = json.dumps([{"step": "1/1", "name": "RUN true", "lines": 3, "line": "hello {n}"}])
    assignment = an_assignment(script=script, tags=["v1"])
    async with a_worker(tmp_path, part) as (side, _):
        answers = await side.run_jobs([assignment])
        assert [answer.accepted for answer in answers] == [True]
        outcome = await part.outcome(assignment.name)
    assert outcome.state == "succeeded"
    assert outcome.image is not None
    assert outcome.image.references == ["app:v1"]
    assert part.of(assignment.name).text == "hello 1\nhello 2\nhello 3\n"
    assert part.registrations[0].worker_id == "w1"
    assert part.left == [part.registrations[0].incarnation]


def a_script(*actions: dict[str, Any]) -> str:
    return json.dumps(actions)


LONG = a_script({"step": "long", "lines": 1}, {"seconds": 300})


async def _building(side: WorkerSide, part: OrchestratorPart, assignment: Assignment) -> None:
    [answer] = await side.run_jobs([assignment])
    assert answer.accepted, answer
    await part.until(lambda: "line 1\n" in part.of(assignment.name).text)


async def test_an_orchestrator_away_for_less_than_the_lease_misses_nothing(tmp_path: Path) -> None:
    part = OrchestratorPart()
    script = a_script(*[{"step": "s", "seconds": 0.02, "lines": 50, "line": f"{part_}.{{n}}"} for part_ in range(60)])
    assignment = an_assignment(script=script)
    async with a_worker(tmp_path, part) as (side, _):
        await side.run_jobs([assignment])
        await part.until(lambda: part.of(assignment.name).text != "")
        part.away = True
        await part.until(lambda: part.missed > 1)
        part.away = False
        part.lose_answers = 2
        assert (await part.outcome(assignment.name)).state == "succeeded"
    stored = part.of(assignment.name)
    assert stored.text == "".join(f"{part_}.{n}\n" for part_ in range(60) for n in range(1, 51))
    assert stored.repeated > 0
    assert [batch.number for batch in stored.batches] == list(range(1, len(stored.batches) + 1))
    assert len(part.registrations) == 1


async def test_an_orchestrator_away_for_longer_ends_the_builds_before_the_lease_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blacktree.worker.link.LONGEST_PAUSE_SECONDS", 0.1)
    # Three seconds from the end of the builds to that of the lease: so long this process may stand still.
    part = OrchestratorPart(lease_seconds=9.0)
    assignment = an_assignment(script=LONG)
    story = ("no contact, build stops", "build ended", "lease over, attempt dropped")
    with capture_logs() as logs:
        async with a_worker(tmp_path, part) as (side, _):
            await _building(side, part, assignment)
            part.away = True
            # Until the lease itself is over: then the worker gives up what it has of them.
            with trio.fail_after(40):
                while not any(each["event"] == story[-1] for each in logs):
                    await trio.sleep(0.01)
            assert [each["event"] for each in logs if each["event"] in story] == list(story)
            assert not (await side.ping()).status.busy
            part.forget()
            part.away = False
            await part.until(lambda: len(part.registrations) == 2)
            assert part.registrations[1].running == []
            assert part.of(assignment.name).outcome is None


async def test_a_forgotten_worker_registers_again_and_its_builds_go_on(tmp_path: Path, quick_heartbeat: None) -> None:
    part = OrchestratorPart()
    assignment = an_assignment(script=a_script({"step": "s", "lines": 1}, {"seconds": 0.5, "lines": 1, "line": "end"}))
    async with a_worker(tmp_path, part) as (side, _):
        await _building(side, part, assignment)
        part.forget()
        await part.until(lambda: len(part.registrations) == 2)
        assert part.registrations[1].running == [assignment.name]
        assert part.registrations[1].incarnation == part.registrations[0].incarnation
        assert (await part.outcome(assignment.name)).state == "succeeded"
    assert part.of(assignment.name).text == "line 1\nend\n"


async def test_a_refused_worker_is_loud_and_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blacktree.worker.link.REFUSED_PAUSE_SECONDS", 0.05)
    part = OrchestratorPart()
    part.refusal = "wrong secret"

    async def relent() -> None:
        await part.until(lambda: part.refused >= 3)
        part.refusal = ""

    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relent)
            async with a_worker(tmp_path, part):
                pass
    refusals = [entry for entry in logs if entry["event"] == "the orchestrator refuses this worker"]
    assert len(refusals) == 3
    assert refusals[0]["advice"] == "ask the operator"


async def test_a_wrong_join_token_is_refused_and_never_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blacktree.worker.link.REFUSED_PAUSE_SECONDS", 0.05)
    part = OrchestratorPart()

    async def join() -> None:
        async with a_worker(tmp_path, part, worker_token="another-token"):
            pass

    with capture_logs() as logs:
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(join)
                while sum(entry["event"] == "the orchestrator refuses this worker" for entry in logs) < 2:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    assert part.registrations == []
    assert "another-token" not in repr(logs)


async def test_canceled_before_it_came_and_never_started(tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment()
    async with a_worker(tmp_path, part) as (side, _):
        [answer] = await side.stop_jobs([StopOrder(name=assignment.name, why="canceled")])
        assert not answer.known
        [refused] = await side.run_jobs([assignment])
        assert (refused.accepted, refused.code) == (False, "stopped")


async def test_canceled_in_the_same_breath(tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment(script=LONG)
    async with a_worker(tmp_path, part) as (side, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.run_jobs, [assignment])
            nursery.start_soon(side.stop_jobs, [StopOrder(name=assignment.name, why="canceled")])
            await trio.lowlevel.checkpoint()
        [answer] = await side.stop_jobs([StopOrder(name=assignment.name, why="canceled")])
        if answer.known:
            assert (await part.outcome(assignment.name)).state == "canceled"
        else:
            [again] = await side.run_jobs([assignment])
            assert again.code == "stopped" or (await part.outcome(assignment.name)).state == "canceled"


async def test_canceled_while_it_waits_for_the_publish_grant(tmp_path: Path) -> None:
    part = OrchestratorPart(publish_seconds=0.0)
    assignment = an_assignment()
    async with a_worker(tmp_path, part) as (side, _):
        await side.run_jobs([assignment])
        await part.until(lambda: part.of(assignment.name).publish_asked > 0)
        await side.stop_jobs([StopOrder(name=assignment.name, why="canceled")])
        outcome = await part.outcome(assignment.name)
    assert (outcome.state, outcome.image) == ("canceled", None)


async def test_a_grant_that_comes_late_is_asked_for_again(tmp_path: Path) -> None:
    part = OrchestratorPart(publish_seconds=0.0)
    assignment = an_assignment()
    async with a_worker(tmp_path, part) as (side, _):
        await side.run_jobs([assignment])
        await part.until(lambda: part.of(assignment.name).publish_asked > 1)
        part.publish_seconds = 5.0
        assert (await part.outcome(assignment.name)).state == "succeeded"


async def test_canceled_when_the_outcome_is_on_its_way(tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment()
    async with a_worker(tmp_path, part) as (side, _):
        part.stores = False
        await side.run_jobs([assignment])
        await part.until(lambda: any(b.outcome for r in part.reports for a in r.attempts for b in a.batches))
        [answer] = await side.stop_jobs([StopOrder(name=assignment.name, why="canceled")])
        assert answer.known
        part.stores = True
        assert (await part.outcome(assignment.name)).state == "succeeded"


async def test_the_orchestrators_verdict_stops_a_build(tmp_path: Path, quick_heartbeat: None) -> None:
    part = OrchestratorPart()
    one, two = an_assignment("one", script=LONG), an_assignment("two", script=LONG)
    async with a_worker(tmp_path, part) as (side, _):
        await _building(side, part, one)
        await _building(side, part, two)
        part.stops["one", 1] = "canceled"
        part.stops["two", 1] = "fenced"
        assert (await part.outcome(one.name)).state == "canceled"
        await part.until(lambda: part.reports[-1].attempts == [] and part.reports[-1].status.busy == 0)
        assert part.of(two.name).outcome is None


async def test_the_same_job_again_and_a_lying_one(tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment(script=LONG)
    liar = Assignment(name=AttemptName(job_id="job1", attempt=1, token="guessed"), spec=assignment.spec)
    later = Assignment(name=AttemptName(job_id="job1", attempt=2, token="t2"), spec=assignment.spec)
    async with a_worker(tmp_path, part, slots=2) as (side, _):
        first, second = await side.run_jobs([assignment, assignment])
        assert first.accepted
        assert second.accepted
        assert (await side.ping()).status.busy == 1
        answers = await side.run_jobs([liar, later])
        assert [answer.code for answer in answers] == ["attempt_held", "job_held"]
        [answer] = await side.stop_jobs([StopOrder(name=liar.name, why="canceled")])
        assert not answer.known
        full = await side.run_jobs([an_assignment("b", script=LONG), an_assignment("c")])
        assert [answer.code for answer in full] == ["", "busy"]
        assert (await side.ping()).status.busy == 2


async def test_a_drained_worker_tells_it_back_and_leaves_the_choice_to_the_orchestrator(
    tmp_path: Path, quick_heartbeat: None
) -> None:
    part = OrchestratorPart()
    assignment = an_assignment(script=a_script({"step": "s", "lines": 1}, {"seconds": 0.5}))
    async with a_worker(tmp_path, part) as (side, _):
        await _building(side, part, assignment)
        part.drain = True
        await part.until(lambda: part.reports[-1].status.draining)
        assert part.reports[-1].status.refusal == ""
        # Undone since the last report: the hand-off itself says so, a heartbeat before the next answer does.
        [answer] = await side.run_jobs([an_assignment("b")])
        assert answer.accepted
        assert (await part.outcome(assignment.name)).state == "succeeded"
        part.drain = False
        await part.until(lambda: not part.reports[-1].status.draining)


async def test_a_full_disk_is_a_refusal_with_a_reason(tmp_path: Path) -> None:
    part = OrchestratorPart()
    async with a_worker(tmp_path, part, minimum_free_disk_bytes=1 << 60) as (side, _):
        [answer] = await side.run_jobs([an_assignment()])
        assert (answer.accepted, answer.code) == (False, "disk_full")
        assert "minimum_free_disk_bytes" in answer.reason
        assert "minimum_free_disk_bytes" in (await side.ping()).status.refusal


async def test_a_build_that_takes_too_long_is_timed_out(tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment(script=LONG, timeout_seconds=0.2)
    async with a_worker(tmp_path, part) as (side, _):
        await side.run_jobs([assignment])
        outcome = await part.outcome(assignment.name)
    assert (outcome.state, outcome.proven) == ("timed_out", True)
    assert outcome.error is not None
    assert outcome.error.code == "timed_out"


async def test_a_failing_build_says_why_and_masks_its_secrets(tmp_path: Path) -> None:
    part = OrchestratorPart()
    script = a_script({"step": "2/3", "lines": 30}, {"lines": 1, "line": "token is hunter2hunter2"}, {"exit": 7})
    assignment = an_assignment(script=script, secrets={"TOKEN": b"hunter2hunter2"})
    with capture_logs() as logs:
        async with a_worker(tmp_path, part) as (side, _):
            await side.run_jobs([assignment])
            outcome = await part.outcome(assignment.name)
    error = outcome.error
    assert outcome.state == "failed"
    assert error is not None
    assert (error.code, error.step, error.exit_code, error.retryable) == ("build_failed", "2/3", 7, False)
    assert error.last_lines == [*(f"line {n}" for n in range(12, 31)), "token is ***"]
    assert "hunter2" not in part.of(assignment.name).text
    assert "hunter2" not in repr(logs)
    finished = [record for record in part.of(assignment.name).records if isinstance(record, StepFinished)]
    assert [(each.step, each.ok) for each in finished] == [("2/3", False)]


async def test_a_lost_engine_is_worth_another_try(tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment(script=a_script({"error": {"message": "gone", "engine": True}}))
    async with a_worker(tmp_path, part) as (side, _):
        await side.run_jobs([assignment])
        outcome = await part.outcome(assignment.name)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.retryable, outcome.proven) == ("engine_lost", True, True)
        [answer] = await side.run_jobs([an_assignment("next")])
        assert answer.accepted


async def test_without_proof_nothing_is_called_canceled_and_nothing_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blacktree.worker.pipeline.PROOF_SECONDS", 0.3)
    monkeypatch.setattr("blacktree.worker.housekeeping.TICK_SECONDS", 0.1)
    part = OrchestratorPart()
    stuck = {"on": True}
    sweep = ScriptedProvider.sweep
    told: list[Outcome | None] = []

    async def sweeping(self: ScriptedProvider, alive: Collection[str]) -> list[str]:
        if stuck["on"] and self._left:
            told.append(part.of(assignment.name).outcome)
            raise EngineLost("the engine is away")
        return await sweep(self, alive)

    monkeypatch.setattr(ScriptedProvider, "sweep", sweeping)
    assignment = an_assignment(script=a_script({"step": "s", "lines": 1, "unproven": True}, {"seconds": 300}))
    async with a_worker(tmp_path, part) as (side, _):
        await _building(side, part, assignment)
        await side.stop_jobs([StopOrder(name=assignment.name, why="canceled")])
        with trio.fail_after(40):
            while "unproven" not in (await side.ping()).status.refusal:
                await trio.lowlevel.checkpoint()
        # Before anything was called canceled, the proof was tried.
        assert told[0] is None
        [refused] = await side.run_jobs([an_assignment("b")])
        assert refused.code == "unproven"
        outcome = await part.outcome(assignment.name)
        assert (outcome.state, outcome.proven) == ("canceled", False)
        assert "unproven" in (await side.ping()).status.refusal
        stuck["on"] = False
        await part.until(lambda: not part.reports[-1].status.refusal)
        [answer] = await side.run_jobs([an_assignment("c")])
        assert answer.accepted


async def test_two_workers_cannot_share_a_state_directory(tmp_path: Path) -> None:
    part = OrchestratorPart()
    async with a_worker(tmp_path, part):
        with pytest.raises(BlacktreeError) as raised:
            with open_identity("w2", tmp_path / "state"):
                pass
    assert raised.value.code == "state_in_use"


async def test_an_unknown_step_or_provider_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    for keys, code in (({"steps": ("build", "tagg")}, "unknown_step"), ({"provider": "dokcer"}, "unknown_provider")):
        settings: dict[str, Any] = {"id": "w1", "state_directory": str(tmp_path), "steps": ("build",)}
        config = WorkerConfig(**(settings | {"join_token_file": str(tmp_path / "token")} | keys))
        with pytest.raises(BlacktreeError) as raised:
            await serve(Config(worker=config), signals=False)
        assert raised.value.code == code
        assert "did you mean" in raised.value.advice

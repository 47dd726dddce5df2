"""What only a process can show: signals, freezing, dying. Over real gRPC, with the scripted provider."""

import json
import os
import signal
import socket
from pathlib import Path

import trio

from blacktree.rpc.peer import Assignment, StopOrder
from tests.parts.orchestrator_side import OrchestratorPart, an_assignment
from tests.worker.process import WorkerProcess, a_worker_process, alive, until, until_dead

LONG = json.dumps([{"step": "long", "lines": 1}, {"seconds": 300}])


async def _building(worker: WorkerProcess, part: OrchestratorPart, assignment: Assignment) -> None:
    [answer] = await worker.side.run_jobs([assignment])
    assert answer.accepted, answer
    await part.until(lambda: "line 1\n" in part.of(assignment.name).text)


async def test_sigterm_hands_builds_back_and_exits_0(tmp_path: Path) -> None:
    part = OrchestratorPart()
    quick = an_assignment("quick", script=json.dumps([{"step": "s", "lines": 1}, {"seconds": 0.4}]))
    # The grace is the longest that the worker may stand still for while the quick one ends.
    long = an_assignment("long", script=LONG)
    async with a_worker_process(tmp_path, part, shutdown_grace_seconds=6.0) as worker:
        await _building(worker, part, long)
        await _building(worker, part, quick)
        worker.send(signal.SIGTERM)
        await part.until(lambda: part.reports[-1].status.refusal != "")
        [answer] = await worker.side.run_jobs([an_assignment("late")])
        assert (answer.accepted, answer.code) == (False, "leaving")
        assert (await part.outcome(quick.name)).state == "succeeded"
        outcome = await part.outcome(long.name)
        assert (outcome.state, outcome.proven) == ("returned", True)
        assert await worker.ended(40) == 0
    assert part.left == [part.registrations[0].incarnation]
    assert [path.name for path in (tmp_path / "state" / "work").iterdir()] == []


async def test_a_second_sigterm_cuts_the_grace(tmp_path: Path) -> None:
    part = OrchestratorPart()
    long = an_assignment(script=LONG)
    async with a_worker_process(tmp_path, part, shutdown_grace_seconds=300.0) as worker:
        await _building(worker, part, long)
        worker.send(signal.SIGTERM)
        await part.until(lambda: part.reports[-1].status.refusal != "")
        worker.send(signal.SIGTERM)
        assert (await part.outcome(long.name, 40)).state == "returned"
        assert await worker.ended(40) == 0


async def test_a_worker_frozen_beyond_its_lease_is_killed(tmp_path: Path) -> None:
    """By its guard: before the lease ends (see `test_lease.py`)."""
    part = OrchestratorPart(lease_seconds=10.0)
    async with a_worker_process(tmp_path, part) as worker:
        await _building(worker, part, an_assignment(script=LONG))
        [guard] = worker.children()
        worker.send(signal.SIGSTOP)
        assert await worker.ended(40) == -signal.SIGKILL
        await until_dead(guard, 40)


async def test_an_idle_worker_may_be_frozen(tmp_path: Path) -> None:
    part = OrchestratorPart(lease_seconds=1.0)
    async with a_worker_process(tmp_path, part) as worker:
        worker.send(signal.SIGSTOP)
        await trio.sleep(1.5)
        part.forget()
        part.lease_seconds = 30.0
        worker.send(signal.SIGCONT)
        await part.until(lambda: len(part.registrations) > 1)
        [answer] = await worker.side.run_jobs([an_assignment(tags=["v1"])])
        assert answer.accepted
        assert (await part.outcome(an_assignment().name)).state == "succeeded"


async def test_the_guard_ends_with_the_worker(tmp_path: Path) -> None:
    part = OrchestratorPart()
    async with a_worker_process(tmp_path, part) as worker:
        [guard] = worker.children()
        assert alive(guard)
        worker.send(signal.SIGKILL)
        assert await worker.ended(40) == -signal.SIGKILL
        await until_dead(guard, 40)


async def test_a_killed_guard_is_replaced_and_still_kills(tmp_path: Path) -> None:
    part = OrchestratorPart(lease_seconds=10.0)
    async with a_worker_process(tmp_path, part) as worker:
        await _building(worker, part, an_assignment(script=LONG))
        [guard] = worker.children()

        os.kill(guard, signal.SIGKILL)
        await until(lambda: worker.children() not in ([], [guard]), 40)
        worker.send(signal.SIGSTOP)
        assert await worker.ended(40) == -signal.SIGKILL


async def test_a_restart_after_kill_sweeps_and_keeps_its_secret(tmp_path: Path) -> None:
    part = OrchestratorPart()
    async with a_worker_process(tmp_path, part) as worker:
        await _building(worker, part, an_assignment(script=LONG))
        worker.send(signal.SIGKILL)
        await worker.ended(40)
    assert [path.name for path in (tmp_path / "state" / "work").iterdir()] == ["job1-1"]
    again = OrchestratorPart()
    async with a_worker_process(tmp_path, again):
        assert [path.name for path in (tmp_path / "state" / "work").iterdir()] == []
    [before], [after] = part.registrations, again.registrations
    assert before.secret == after.secret
    assert before.incarnation != after.incarnation
    assert after.running == []
    assert (tmp_path / "state" / "secret").stat().st_mode & 0o777 == 0o600


async def test_a_canceled_build_reports_its_proof(tmp_path: Path) -> None:
    part = OrchestratorPart()
    script = json.dumps([{"step": "s", "lines": 1, "cancel_seconds": 4}, {"seconds": 300}])
    assignment = an_assignment(script=script)
    async with a_worker_process(tmp_path, part) as worker:
        await _building(worker, part, assignment)
        [answer] = await worker.side.stop_jobs([StopOrder(name=assignment.name, why="canceled")])
        assert answer.known
        assert part.of(assignment.name).outcome is None
        outcome = await part.outcome(assignment.name)
        assert (outcome.state, outcome.proven) == ("canceled", True)


async def test_systemd_hears_ready_watchdog_and_stopping(tmp_path: Path) -> None:
    part = OrchestratorPart()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        listening = trio.socket.from_stdlib_socket(ear)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        heard: list[str] = []
        async with a_worker_process(tmp_path, part, environ=environ) as worker:
            with trio.fail_after(40):
                while not {"READY=1", "WATCHDOG=1\nSTATUS=0 of 2 slots busy"} <= set(heard):
                    heard.append((await listening.recv(4096)).decode())
            worker.send(signal.SIGTERM)
            with trio.fail_after(40):
                while "STOPPING=1" not in heard:
                    heard.append((await listening.recv(4096)).decode())
            assert await worker.ended(40) == 0
    assert heard[0] == "READY=1"

"""The orchestrator as its workers and doors meet it: hand-off, cancel, losses, leases, restarts."""

from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from blacktree.broker.base import execute_queue
from blacktree.errors import Conflict, NotAllowed, Unavailable
from blacktree.job import Outcome
from blacktree.orchestrator import jobs
from blacktree.orchestrator.intake import Intake, Lane
from blacktree.rpc.peer import Answer, AttemptReport, Batch
from blacktree.spec import JobSpec
from tests.orchestrator.conftest import SHORT_LEASE, House, open_house
from tests.parts.toy_worker import ToyWorker, failed, lines


async def test_a_job_goes_its_way(house: House) -> None:
    worker = await house.worker()
    job_id = await house.submit()
    assignment = await worker.next_assignment()
    await worker.say(assignment, lines("one", "two"), commit="c" * 40)
    await worker.end(assignment)
    job = await house.finished(job_id)
    assert (job.state, job.attempt, job.commit) == ("succeeded", 1, "c" * 40)
    assert await house.states(job_id) == ["queued", "assigned", "running", "succeeded"]
    assert [event["line"] for event in await house.events(job_id) if event["type"] == "log"] == ["one", "two"]
    assert await house.control.read_text(job_id, 0, 100) == b"one\ntwo\n"


async def test_jobs_wait_and_say_why(house: House) -> None:
    first = await house.submit()
    assert "no worker in pool `default`" in str((await house.control.job(first)).waiting)
    worker = await house.worker(slots=1)
    await worker.next_assignment()
    second, third = await house.submit(), await house.submit()
    assert (await house.control.job(first)).waiting is None
    assert (await house.control.job(second)).waiting == "the only slot is busy, 1st in line"
    assert (await house.control.job(third)).waiting == "the only slot is busy, 2nd in line"


async def test_priority_goes_first(house: House) -> None:
    worker = await house.worker(slots=1)
    low = [await house.submit(priority=1) for _ in range(3)]
    running = await worker.next_assignment()
    # What waits lies in the queue, none of it in hand; so do those that come late, before a slot is free.
    await until_queued(house, 2)
    high = [await house.submit(priority=priority) for priority in (8, 9)]
    await until_queued(house, 4)
    order = []
    for _ in range(4):
        await worker.end(running)
        running = await worker.next_assignment()
        order.append(running.name.job_id)
    assert order == [high[1], high[0], *low[1:]]


async def until_queued(house: House, count: int) -> None:
    """Until so many deliveries lie in the queue."""
    while (await house.control._broker.depth(execute_queue("default")) or 0) != count:
        await trio.sleep(0.01)


async def test_whose_slot_was_drained_away_does_not_go_ahead_of_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes: list[Lane] = []
    monkeypatch.setattr(Intake, "_dispatch", _seeing(lanes, Intake._dispatch))
    async with open_house(tmp_path, memory=True, lease_seconds=60.0) as house:
        worker = await house.worker(slots=1)
        while not lanes or lanes[0].idle_since is None:
            await trio.sleep(0.005)
        # The dispatcher has a slot in view and waits for a delivery: the next one is asked for, whatever it is.
        await house.control.drain(worker.id, True)
        low = await house.submit(priority=1)
        while lanes[0].idle_since is not None or lanes[0].wanted.is_set():
            await trio.sleep(0.005)
        high = await house.submit(priority=9)
        await until_queued(house, 2)
        await house.control.drain(worker.id, False)
        first = await worker.next_assignment()
        await worker.end(first)
        assert [first.name.job_id, (await worker.next_assignment()).name.job_id] == [high, low]


def _seeing(lanes: list[Lane], method: Any) -> Any:
    async def seen(intake: Intake, lane: Lane, *rest: Any) -> None:
        lanes.append(lane)
        await method(intake, lane, *rest)

    return seen


async def test_a_pool_without_workers_holds_up_nobody(house: House) -> None:
    await house.submit(pool="arm")
    worker = await house.worker()
    job_id = await house.submit()
    assert (await worker.next_assignment()).name.job_id == job_id


async def test_warm_workers_are_chosen(house: House) -> None:
    await house.worker(slots=4)
    warm = await house.worker(slots=4, warm=["https://x/y"])
    await house.worker(slots=4)
    await house.submit()
    await house.submit()
    for _ in range(2):
        await warm.next_assignment()


async def test_cancel_of_a_queued_job(house: House) -> None:
    job_id = await house.submit()
    view = await house.control.cancel(job_id, reason="not needed")
    assert view.job.state == "canceled"
    assert await house.states(job_id) == ["queued", "canceled"]
    worker = await house.worker()
    other = await house.submit()
    assert (await worker.next_assignment()).name.job_id == other


async def test_cancel_waits_for_the_proof(house: House) -> None:
    worker = await house.worker(honest_stop=False)
    job_id = await house.submit()
    assignment = await worker.next_assignment()
    answers = []

    async def cancel() -> None:
        answers.append(await house.control.cancel(job_id, reason="enough"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        order = await worker.orders.receive()
        assert (order.why, order.reason) == ("canceled", "enough")
        assert (await house.control.job(job_id)).job.state == "canceling"
        await worker.say(assignment, lines("still here"))
        assert answers == []
        await worker.end(assignment, Outcome(state="canceled"))
    assert answers[0].job.state == "canceled"
    assert (await house.control.cancel(job_id)).job.state == "canceled"


async def test_a_worker_that_knows_nothing_of_it_proves_the_cancel(house: House) -> None:
    worker = await house.worker()
    job_id = await house.submit()
    await worker.next_assignment()
    worker.held.clear()
    assert (await house.control.cancel(job_id)).job.state == "canceled"


async def test_cancel_without_proof_waits_for_the_lease(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        worker = await house.worker(honest_stop=False)
        job_id = await house.submit()
        assignment = await worker.next_assignment()
        worker.silent = True
        assert (await house.control.cancel(job_id)).job.state == "canceled"
        # Not before its lease had run out: it is not known any more. Woken up after all that, it changes nothing.
        answer = await worker.say(assignment, lines("too late"))
        assert not answer.known
        await worker.register()
        answer = await worker.say(assignment, lines("too late"))
        assert answer.verdicts[0].stop == "fenced"
        assert not [event for event in await house.events(job_id) if event["type"] == "log"]


async def test_a_lost_worker_gives_its_job_to_another(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        frozen = await house.worker()
        job_id = await house.submit()
        await frozen.next_assignment()
        frozen.silent = True
        other = await house.worker()
        assignment = await other.next_assignment()
        assert assignment.name.attempt == 2
        await other.end(assignment)
        job = await house.finished(job_id)
        assert (job.state, job.attempt, job.tries) == ("succeeded", 2, 1)
        assert [a.outcome for a in job.attempts] == ["lost", "succeeded"]
        codes = [event["code"] for event in await house.events(job_id) if event["type"] == "notice"]
        assert codes == ["worker_lost", "tail_lost"]


async def test_a_restarted_worker_loses_at_once_what_it_does_not_name(house: House) -> None:
    first = await house.worker("w", secret="s")
    job_id = await house.submit()
    await first.next_assignment()
    # As one that is gone: told that it is not known, it would register again, and drive the other out.
    first.silent = True
    again = await house.worker("w", secret="s")
    assignment = await again.next_assignment()
    assert assignment.name.attempt == 2
    await again.end(assignment)
    assert (await house.finished(job_id)).tries == 1


async def test_another_secret_under_the_same_id_is_refused(house: House) -> None:
    await house.worker("w", secret="mine")
    with pytest.raises(BaseExceptionGroup) as caught:
        await house.worker("w", secret="yours")
    assert caught.group_contains(NotAllowed, match="in use by another worker")


async def test_a_refused_hand_off_goes_elsewhere_and_is_no_attempt(house: House) -> None:
    full = await house.worker("a")
    full.refuse_with = Answer(accepted=False, code="disk_full", reason="disk nearly full")
    job_id = await house.submit()
    while (await house.states(job_id)).count("queued") < 2:
        await trio.sleep(0.01)
    other = await house.worker("b")
    assignment = await other.next_assignment()
    assert assignment.name.attempt == 1
    await other.end(assignment)
    assert (await house.finished(job_id)).tries == 0


async def test_a_retryable_failure_is_tried_again_with_back_off(house: House) -> None:
    worker = await house.worker()
    job_id = await house.submit(max_attempts=2)
    await worker.end(await worker.next_assignment(), failed(retryable=True))
    await worker.end(await worker.next_assignment(), failed(retryable=True))
    job = await house.finished(job_id)
    assert (job.state, job.tries, job.attempt) == ("failed", 2, 2)


async def test_a_timeout_is_ordered_and_ends_the_job(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True) as house:
        worker = await house.worker()
        job_id = await house.submit(timeout_seconds=0.1)
        assignment = await worker.next_assignment()
        await worker.say(assignment, lines("begun"))
        assert (await worker.orders.receive()).why == "timed_out"
        job = await house.finished(job_id)
        assert job.state == "timed_out"
        assert job.error is not None


async def test_batches_that_come_twice_or_early_are_taken_once(house: House) -> None:
    worker = await house.worker()
    job_id = await house.submit()
    assignment = await worker.next_assignment()
    name = assignment.name
    one, two = Batch(number=1, records=[lines("1")]), Batch(number=2, records=[lines("2")])
    answer = await worker.report(AttemptReport(name=name, batches=[two]))
    assert answer.verdicts[0].next_batch == 1
    for batches in ([one], [one, two], [two]):
        answer = await worker.report(AttemptReport(name=name, batches=batches))
    assert answer.verdicts[0].next_batch == 3
    assert await house.control.read_text(job_id, 0, 100) == b"1\n2\n"


async def test_an_idempotency_key(house: House) -> None:
    spec = JobSpec(repository="https://x/y", idempotency_key="k")
    first, new = await house.control.submit(spec)
    again, second_new = await house.control.submit(JobSpec(repository="https://x/y"), key="k")
    assert (new, second_new, first.job.id) == (True, False, again.job.id)
    with pytest.raises(Conflict):
        await house.control.submit(JobSpec(repository="https://x/other", idempotency_key="k"))


async def test_retry_keeps_spec_and_commit(house: House) -> None:
    worker = await house.worker()
    job_id = await house.submit()
    with pytest.raises(Conflict):
        await house.control.retry(job_id)
    assignment = await worker.next_assignment()
    await worker.say(assignment, commit="d" * 40)
    await worker.end(assignment, failed())
    await house.finished(job_id)
    view = await house.control.retry(job_id, actor="ann")
    assert view.job.submitted_by == "ann"
    assert (view.job.retry_of, view.job.commit) == (job_id, "d" * 40)
    assert (await worker.next_assignment()).commit == "d" * 40


async def test_who_ends_a_farm_that_builds_is_told_how_long_it_takes_and_how_to_cut_it(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with open_house(tmp_path, memory=True, shutdown_grace_seconds=0.0) as house:
            worker = await house.worker(slots=1)
            await house.submit()
            await worker.next_assignment()
            while not house.control.workers()[0].busy:
                await trio.sleep(0.01)
    [said] = [entry for entry in logs if entry["event"] == "shutting down"]
    assert (said["running"], said["grace_seconds"], said["cut_by"]) == (1, 0.0, "a second signal")


async def test_drain_and_undo(house: House) -> None:
    worker = await house.worker(slots=1)
    assert (await house.control.drain(worker.id, True)).state == "draining"
    job_id = await house.submit()
    assert "draining" in str((await house.control.job(job_id)).waiting)
    assert (await worker.report()).drain
    # What it tells back is older than the undoing, and does not hold that up.
    assert (await worker.report()).drain
    await house.control.drain(worker.id, False)
    assert [view.state for view in house.control.workers()] == ["free"]
    assert (await worker.next_assignment()).name.job_id == job_id
    events = await house.control.farm_events(1, 100)
    types = [event.type for event in events]
    assert [event.text for event in events if event.type == "worker_joined"] == [
        f"worker {worker.id} joined pool default with 1 slot"
    ]
    assert "worker_drained" in types


async def test_a_reader_gets_everything_once_and_in_order(house: House) -> None:
    worker = await house.worker()
    job_id = await house.submit()
    assignment = await worker.next_assignment()
    await worker.say(assignment, lines("0"))
    seen: list[tuple[int, int]] = []

    async def read(from_seq: int) -> None:
        async with house.control.follow(job_id, from_seq) as follow:
            expected = from_seq
            async for piece in follow:
                assert piece.first_seq == expected
                expected = piece.next_seq
            assert follow.job.state == "succeeded"
            seen.append((from_seq, expected))

    async with trio.open_nursery() as nursery:
        for from_seq in (1, 1, 3, 5):
            nursery.start_soon(read, from_seq)
        for number in range(1, 50):
            await worker.say(assignment, lines(f"{number}", "and more"))
        await worker.end(assignment)
    total = (await house.control.job(job_id)).job.next_seq
    assert sorted(seen) == [(1, total), (1, total), (3, total), (5, total)]


async def test_shutdown_hands_builds_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "STOP_PROOF_SECONDS", 40.0)
    async with open_house(tmp_path) as house:
        worker = await house.worker()
        running = await house.submit()
        waiting = [await house.submit(pool="arm") for _ in range(3)]
        assignment = await worker.next_assignment()
        await worker.say(assignment, lines("begun"))
        house.stop.set()
        assert (await worker.orders.receive()).why == "shutdown"
        with pytest.raises(Unavailable):
            await house.submit()
    async with open_house(tmp_path) as house:
        job = (await house.control.job(running)).job
        assert (job.state, job.tries) == ("queued", 0)
        worker = await house.worker()
        assignment = await worker.next_assignment()
        assert (assignment.name.job_id, assignment.name.attempt) == (running, 2)
        await worker.end(assignment)
        arm = await house.worker(pool="arm", slots=3)
        assert {(await arm.next_assignment()).name.job_id for _ in range(3)} == set(waiting)


async def test_unfinished_attempts_are_adopted_after_a_restart(tmp_path: Path) -> None:
    worker = ToyWorker("w", honest_stop=False)
    async with open_house(tmp_path) as house:
        from tests.orchestrator.conftest import TOKEN
        from tests.parts.toy_worker import open_worker

        async with open_worker(worker, house.address, TOKEN, tmp_path):
            job_id = await house.submit()
            assignment = await worker.next_assignment()
            await worker.say(assignment, lines("before"))
            house.stop.set()
            await worker.orders.receive()
            await house.ended.wait()
    async with open_house(tmp_path) as house:
        assert (await house.control.job(job_id)).job.state == "running"
        async with open_worker(worker, house.address, TOKEN, tmp_path):
            # It was told to stop when the house shut down, and is told so again.
            assert worker.admission is not None
            assert worker.admission.verdicts[0].stop == "shutdown"
            await worker.end(assignment, None, lines("after"))
            job = await house.finished(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)


async def test_a_full_store_delays_and_loses_nothing(house: House) -> None:
    types = {event.type for event in await house.control.farm_events(1, 10)}
    assert "started" in types
    assert house.control.readiness().state == "ready"
    assert house.control.figures()["ready"] == 1

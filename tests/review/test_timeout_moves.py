"""The time limit ends the job: whatever the stopped attempt says afterwards, it is not built again."""

from datetime import timedelta

import pytest
import trio
import trio.testing

from blacktree.clock import now
from blacktree.job import Attempt, Failure, Job, JobState, Outcome
from blacktree.orchestrator import moves
from blacktree.orchestrator.held import Book
from blacktree.rpc.peer import AttemptName, Batch
from blacktree.spec import JobSpec

RULES = moves.Rules()


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(state="returned"),
        Outcome(state="failed", error=Failure(code="engine_lost", message="gone", retryable=True)),
    ],
)
def test_an_attempt_that_was_out_of_time_is_not_tried_again(outcome: Outcome) -> None:
    time = now()
    job = Job(id="j", state=JobState.QUEUED, spec=JobSpec(repository="x"), created_at=time, queued_at=time)
    name = AttemptName(job_id="j", attempt=1, token="t")
    for decide in (
        moves.assign(1, "w", "i", "t", RULES),
        moves.report(name, [Batch(number=1)], RULES),
        moves.order_stop(name, "timed_out"),
        moves.report(name, [Batch(number=2, outcome=outcome)], RULES),
    ):
        decision = decide(job)
        assert decision is not None
        job = decision.job
    assert job.state is JobState.TIMED_OUT
    assert job.error is not None
    assert job.error.code == "timed_out"


async def test_a_clock_that_was_set_back_over_a_restart_gives_no_more_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    later = now() + timedelta(days=300)
    attempt = Attempt(attempt=1, worker_id="w", assigned_at=later, started_at=later, token="t", incarnation="i")
    spec = JobSpec(repository="x", timeout_seconds=60)
    job = Job(
        id="j",
        state=JobState.RUNNING,
        spec=spec,
        created_at=later,
        queued_at=later,
        attempt=1,
        attempts=[attempt],
    )
    [held] = Book(timeout_margin_seconds=2.0).enter([job])
    began = trio.current_time()
    with held.scope:
        await trio.sleep_forever()
    assert 60 <= trio.current_time() - began <= 62.1

"""The decisions about one job: every path through the table, and what a fenced attempt may do (nothing)."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.clock import now
from blacktree.event import Lines, StateChanged, StepFinished, StepStarted
from blacktree.job import ENDED, MOVES, Failure, Image, Job, JobState, Outcome
from blacktree.orchestrator import moves
from blacktree.rpc.peer import AttemptName, Batch
from blacktree.spec import JobSpec
from blacktree.storage.base import Decide
from blacktree.told import told

RULES = moves.Rules(status=True, events=True)
S = JobState


def a_job(**spec: object) -> Job:
    time = now()
    return Job(id="j1", state=S.QUEUED, spec=JobSpec(repository="https://x/y", **spec), created_at=time, queued_at=time)


def name_of(job: Job) -> AttemptName:
    attempt = job.attempts[-1]
    return AttemptName(job_id=job.id, attempt=attempt.attempt, token=attempt.token)


def after(job: Job, decide: Decide) -> Job:
    decision = decide(job)
    assert decision is not None
    return decision.job


def assigned(job: Job, token: str = "t1") -> Job:
    return after(job, moves.assign(job.generation, "w1", "i1", token, RULES))


def running(job: Job) -> Job:
    held = assigned(job)
    return after(held, moves.report(name_of(held), [Batch(number=1)], RULES))


def outcome(state: str, **more: object) -> Outcome:
    return Outcome(state=state, **more)


def ended_with(job: Job, result: Outcome) -> Job:
    number = job.attempts[-1].next_batch
    return after(job, moves.report(name_of(job), [Batch(number=number, outcome=result)], RULES))


def test_a_ticket_of_another_generation_is_obsolete() -> None:
    job = a_job()
    assert moves.assign(2, "w1", "i1", "t", RULES)(job) is None
    assert moves.assign(1, "w1", "i1", "t", RULES)(assigned(job)) is None


def test_the_whole_way() -> None:
    job = running(a_job())
    assert job.state is S.RUNNING
    assert job.attempt == 1
    image = Image(reference="app:1", id="sha256:1")
    done = ended_with(job, outcome("succeeded", image=image))
    assert done.state is S.SUCCEEDED
    assert done.image == image
    assert done.tries == 0


def test_an_attempt_that_starts_and_ends_in_one_batch_is_seen_running() -> None:
    held = assigned(a_job())
    decision = moves.report(name_of(held), [Batch(number=1, outcome=outcome("succeeded"))], RULES)(held)
    assert decision is not None
    states = [record.to for record in decision.records if isinstance(record, StateChanged)]
    assert states == ["running", "succeeded"]
    assert [row.kind for row in decision.outgoing] == ["event", "event", "status"]


def test_batches_are_taken_once_and_in_order() -> None:
    job = running(a_job())
    line = Lines(now(), 1, "s", "stdout", "hello\n")
    two, three = Batch(number=2, records=[line]), Batch(number=3, records=[line])
    assert moves.report(name_of(job), [three], RULES)(job) is None
    once = moves.report(name_of(job), [two], RULES)(job)
    assert once is not None
    assert once.records == (line,)
    again = moves.report(name_of(job), [two, three], RULES)(once.job)
    assert again is not None
    assert again.records == (line,)
    assert again.job.attempts[-1].next_batch == 4


def test_a_fenced_attempt_changes_nothing() -> None:
    job = running(a_job())
    lost = after(job, moves.lose(name_of(job), "gone", RULES))
    assert lost.state is S.QUEUED
    for state in (lost, assigned(lost, "t2")):
        with pytest.raises(moves.Fenced):
            moves.report(name_of(job), [Batch(number=2, outcome=outcome("succeeded"))], RULES)(state)
        assert moves.lose(name_of(job), "gone", RULES)(state) is None
    with pytest.raises(moves.Fenced):
        moves.report(AttemptName(job_id="j1", attempt=1, token="guess"), [Batch(number=2)], RULES)(job)


def test_a_lost_worker_uses_up_tries_until_the_job_is_lost() -> None:
    job = a_job(max_attempts=2)
    held = assigned(job)
    again = after(held, moves.lose(name_of(held), "gone", RULES))
    assert (again.state, again.tries, again.generation, again.attempt) == (S.QUEUED, 1, 2, 1)
    held = assigned(again, "t2")
    assert held.attempt == 2
    lost = after(held, moves.lose(name_of(held), "gone", RULES))
    assert (lost.state, lost.tries) == (S.LOST, 2)
    assert lost.error is not None
    assert lost.error.advice


def test_handing_back_is_no_try() -> None:
    job = running(a_job(max_attempts=1))
    back = ended_with(job, outcome("returned"))
    assert (back.state, back.tries, back.generation) == (S.QUEUED, 0, 2)
    ordered = after(job, moves.order_stop(name_of(job), "shutdown"))
    lost = after(ordered, moves.lose(name_of(job), "gone", RULES))
    assert (lost.state, lost.tries) == (S.QUEUED, 0)


def test_a_refused_hand_off_is_no_attempt() -> None:
    held = assigned(a_job())
    back = after(held, moves.refuse(name_of(held), "disk full", RULES))
    assert (back.state, back.attempt, back.attempts, back.generation) == (S.QUEUED, 0, [], 1)


def test_a_cancel_during_a_refused_hand_off_ends_the_job() -> None:
    held = after(assigned(a_job()), moves.cancel("enough", RULES))
    back = after(held, moves.refuse(name_of(held), "busy", RULES))
    assert back.state is S.CANCELED


def test_failures() -> None:
    job = running(a_job(max_attempts=2))
    final = ended_with(job, outcome("failed", error=Failure(code="run_failed", message="no")))
    assert (final.state, final.tries) == (S.FAILED, 0)
    again = ended_with(job, outcome("failed", error=Failure(code="net", message="no", retryable=True)))
    assert (again.state, again.tries) == (S.QUEUED, 1)
    assert again.not_before is not None
    held = assigned(again, "t2")
    last = ended_with(held, outcome("failed", error=Failure(code="net", message="no", retryable=True)))
    assert (last.state, last.tries) == (S.FAILED, 2)


@pytest.mark.parametrize(
    ("state", "to"),
    [
        ("succeeded", S.SUCCEEDED),
        ("failed", S.FAILED),
        ("timed_out", S.TIMED_OUT),
        ("canceled", S.CANCELED),
        ("returned", S.CANCELED),
    ],
)
def test_canceling_ends_with_the_end_that_came_first_and_never_queues(state: str, to: JobState) -> None:
    job = after(running(a_job()), moves.cancel("enough", RULES))
    assert job.state is S.CANCELING
    error = Failure(code="net", message="no", retryable=True) if state == "failed" else None
    assert ended_with(job, outcome(state, error=error)).state is to


def test_canceling_without_proof_goes_on() -> None:
    job = after(running(a_job()), moves.cancel("enough", RULES))
    unproven = ended_with(job, outcome("canceled", proven=False))
    assert unproven.state is S.CANCELING
    assert after(unproven, moves.lose(name_of(job), "lease over", RULES)).state is S.CANCELED


def test_cancel_of_a_queued_and_of_an_ended_job() -> None:
    job = after(a_job(), moves.cancel("enough", RULES))
    assert job.state is S.CANCELED
    assert moves.cancel("again", RULES)(job) is None


def test_the_first_resolved_commit_counts() -> None:
    job = running(a_job())
    first = after(job, moves.report(name_of(job), [Batch(number=2, commit="a" * 40)], RULES))
    second = after(first, moves.report(name_of(job), [Batch(number=3, commit="b" * 40)], RULES))
    assert second.commit == "a" * 40


def test_steps_are_those_of_the_current_attempt() -> None:
    job = running(a_job())
    records = [StepStarted(now(), 1, "s1", "one"), StepFinished(now(), 1, "s1", "one", False, 1.5, True)]
    job = after(job, moves.report(name_of(job), [Batch(number=2, records=list(records))], RULES))
    assert [(step.name, step.ok) for step in job.steps] == [("one", True)]
    lost = after(job, moves.lose(name_of(job), "gone", RULES))
    held = assigned(lost, "t2")
    again = after(held, moves.report(name_of(held), [Batch(number=1)], RULES))
    assert again.steps == []


def test_what_is_public_bears_no_token() -> None:
    text = msgspec.json.encode(told(running(a_job())))
    assert b"t1" not in text
    assert b"token" not in text


ACTIONS = ["assign", "refuse", "report", "succeed", "fail", "retry", "return", "cancel", "lose", "stop", "time_out"]


@given(st.lists(st.sampled_from(ACTIONS), max_size=30), st.integers(1, 4))
def test_any_order_of_events_keeps_the_rules(actions: list[str], most: int) -> None:
    """Only legal moves, attempts never reused, tries never above the limit, an ended job never changes."""
    job = a_job(max_attempts=most)
    seen: set[str] = set()
    for number, action in enumerate(actions):
        name = name_of(job) if job.attempts else AttemptName(job_id="j1", attempt=1, token="none")
        batch = job.attempts[-1].next_batch if job.attempts else 1
        results = {
            "succeed": outcome("succeeded"),
            "fail": outcome("failed", error=Failure(code="x", message="x")),
            "retry": outcome("failed", error=Failure(code="x", message="x", retryable=True)),
            "return": outcome("returned"),
            "time_out": outcome("timed_out"),
            "report": None,
        }
        decide: Decide
        match action:
            case "assign":
                decide = moves.assign(job.generation, "w", "i", f"token-{number}", RULES)
            case "refuse":
                decide = moves.refuse(name, "no", RULES)
            case "cancel":
                decide = moves.cancel("enough", RULES)
            case "lose":
                decide = moves.lose(name, "gone", RULES)
            case "stop":
                decide = moves.order_stop(name, "shutdown")
            case _:
                decide = moves.report(name, [Batch(number=batch, outcome=results[action])], RULES)
        try:
            decision = decide(job)
        except moves.Fenced:
            continue
        if decision is None:
            continue
        assert job.state not in ENDED
        states = [record for record in decision.records if isinstance(record, StateChanged)]
        state = job.state
        for change in states:
            assert change.previous == state
            assert JobState(change.to) in MOVES[state]
            state = JobState(change.to)
        assert state is decision.job.state
        if state is S.ASSIGNED and job.state is S.QUEUED:
            assert decision.job.attempts[-1].token not in seen
            seen.add(decision.job.attempts[-1].token)
        assert decision.job.tries <= most
        assert decision.job.generation >= job.generation
        if decision.job.state is S.QUEUED and job.state is not S.QUEUED and decision.job.generation != job.generation:
            delayed = decision.job.not_before is not None
            assert delayed != any(row.kind == "ticket" for row in decision.outgoing)
        job = decision.job

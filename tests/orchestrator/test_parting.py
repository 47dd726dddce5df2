"""A job in parts, as the pure decisions see it: whatever comes in between, it ends once, and as its parts did."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from blacktree.clock import now
from blacktree.event import StateChanged, StepFinished, StepStarted
from blacktree.job import Failure, Image, Job, JobState, Part
from blacktree.orchestrator import moves, parting
from blacktree.spec import JobSpec
from blacktree.storage.base import Decision

RULES = moves.Rules()
S = JobState
PLATFORMS = ["linux/amd64", "linux/arm64", "linux/s390x"]
ENDS = [S.SUCCEEDED, S.SUCCEEDED, S.SUCCEEDED, S.FAILED, S.TIMED_OUT, S.LOST]


def a_whole(parts: int = 2, **changes: object) -> Job:
    spec = JobSpec(
        repository="https://x/y", image="h.example/app", platforms=PLATFORMS[:parts], push=True, tags=["1", "latest"]
    )
    whole = Job(id="whole", state=S.QUEUED, spec=spec, created_at=now(), queued_at=now())
    named = [Part(platform=platform, job_id=f"part{number}") for number, platform in enumerate(spec.platforms)]
    decision = parting.split(1, named, RULES)(whole)
    assert decision is not None
    return msgspec.structs.replace(decision.job, **changes)


def ended(job: Job, state: JobState) -> Job:
    """The part, as it stands at its end."""
    error = Failure(code="boom", message="it broke") if state is not S.SUCCEEDED else None
    image = Image(reference="r", id="i", digest=f"sha256:{job.id}") if state is S.SUCCEEDED else None
    return msgspec.structs.replace(job, state=state, started_at=now(), finished_at=now(), error=error, image=image)


def test_splitting_is_under_way_without_a_worker() -> None:
    whole = a_whole()
    assert (whole.state, whole.gathers, whole.current, whole.attempt) == (S.RUNNING, True, None, 0)
    assert parting.split(1, whole.parts, RULES)(whole) is None
    part = parting.part_job(whole, whole.parts[1])
    assert (part.spec.platform, part.spec.platforms, part.spec.push) == ("linux/arm64", [], True)
    assert (part.spec.tags, part.part_of) == (["bt-part1-part"], "whole")
    assert part.spec.same_as(parting.part_job(whole, whole.parts[1]).spec)


class Record:
    """What is on record, changed as the store would change it."""

    def __init__(self, parts: int) -> None:
        self.whole = a_whole(parts)
        self.parts: dict[str, Job] = {}
        self.told: list[object] = []
        self.tickets = 0

    def known(self) -> dict[str, Job | None]:
        return {part.job_id: self.parts.get(part.job_id) for part in self.whole.parts}

    def take(self, decision: Decision | None) -> None:
        if decision is not None:
            self.whole = decision.job
            self.told += decision.records
            self.tickets += sum(each.kind == "ticket" for each in decision.outgoing)

    def step(self, seen: dict[str, Job | None], *, die_after: int = 9) -> None:
        """One step of who sees it through, who may die in it, and may have looked a while ago."""
        todo = parting.errands(self.whole, seen)
        for number, part in enumerate(todo.create):
            if number < die_after:
                self.parts.setdefault(part.job_id, parting.part_job(self.whole, part))
        for id in todo.cancel:
            decision = moves.cancel("no more", RULES)(self.parts[id])
            if decision is not None:
                self.parts[id] = decision.job
        if not todo.create:
            self.take(parting.advance(seen, RULES)(self.whole))


@given(
    st.integers(2, 3),
    st.lists(
        st.one_of(
            st.tuples(st.just("step"), st.integers(0, 3)),
            st.tuples(st.just("end"), st.integers(0, 2), st.sampled_from(ENDS)),
            st.tuples(st.just("begin"), st.integers(0, 2)),
            st.just(("cancel",)),
        ),
        max_size=25,
    ),
)
def test_it_ends_once_and_as_its_parts_did(number: int, story: list[tuple[object, ...]]) -> None:
    record = Record(number)
    canceled = False
    # Whatever the story was, in the end every part that was begun ends, and somebody sees to it.
    for event in [*story, *[event for _ in range(8) for event in (("step", 9), *(("end", n) for n in range(3)))]]:
        id = f"part{event[1]}" if event[0] in ("end", "begin") else ""
        part = record.parts.get(id)
        match event[0]:
            case "step":
                if record.whole.gathers:
                    record.step(record.known(), die_after=event[1])
            case "begin" if part is not None and part.state is S.QUEUED:
                record.parts[id] = msgspec.structs.replace(part, state=S.RUNNING, started_at=now(), commit="c" * 40)
            case "end" if part is not None and not part.ended:
                state = event[2] if len(event) > 2 else S.SUCCEEDED
                assert isinstance(state, JobState)
                part = msgspec.structs.replace(part, commit="c" * 40)
                record.parts[id] = ended(part, S.CANCELED if part.state is S.CANCELING else state)
            case "cancel" if record.whole.gathers and not canceled:
                canceled = True
                record.take(moves.cancel("enough", RULES)(record.whole))
    whole, parts = record.whole, list(record.parts.values())
    assert not whole.gathers
    assert all(part.ended for part in parts)
    broken = {part.state for part in parts} - {S.SUCCEEDED, S.CANCELED}
    if canceled:
        assert whole.state is S.CANCELED
    elif broken:
        assert whole.state in broken
        assert whole.error is not None
        assert whole.error.message.endswith(": it broke")
    else:
        assert (whole.state, whole.generation, record.tickets) == (S.QUEUED, 2, 1)
        assert [part.digest for part in whole.parts] == [f"sha256:part{n}" for n in range(number)]
    assert record.tickets == (whole.state is S.QUEUED)
    states = [(each.previous, each.to) for each in record.told if isinstance(each, StateChanged)]
    assert len(states) == len(set(states))
    for kind in (StepStarted, StepFinished):
        steps = [each.step for each in record.told if isinstance(each, kind)]
        assert len(steps) == len(set(steps))
        assert len(steps) == len(parts)


@given(st.lists(st.sampled_from(ENDS), min_size=2, max_size=2), st.sampled_from([None, "c" * 40]))
def test_all_parts_build_the_commit_that_the_first_one_found(ends: list[JobState], commit: str | None) -> None:
    record = Record(2)
    record.whole = msgspec.structs.replace(record.whole, commit=commit)
    record.step(record.known())
    assert len(record.parts) == (1 if commit is None else 2)
    if commit is None:
        record.parts["part0"] = msgspec.structs.replace(record.parts["part0"], state=S.RUNNING, commit="d" * 40)
        record.step(record.known())
        record.step(record.known())
    assert {part.commit for part in record.parts.values()} == {commit or "d" * 40}


def test_a_part_that_somebody_canceled_and_one_that_pushed_nothing_fail_the_whole() -> None:
    for state, code in ((S.CANCELED, "part_canceled"), (S.SUCCEEDED, "part_not_pushed")):
        record = Record(2)
        record.whole = msgspec.structs.replace(record.whole, commit="c" * 40)
        record.step(record.known())
        record.parts["part0"] = msgspec.structs.replace(ended(record.parts["part0"], state), image=None, error=None)
        record.step(record.known())
        assert record.parts["part1"].state is S.CANCELED
        record.step(record.known())
        assert record.whole.state is S.FAILED
        assert record.whole.error is not None
        assert record.whole.error.code == code

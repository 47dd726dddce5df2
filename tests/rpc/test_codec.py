"""Every message survives the wire; whatever else arrives is a `BadRequest` and nothing worse."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.errors import BadRequest, TooLarge
from blacktree.event import (
    CommitResolved,
    Lines,
    Notice,
    Progress,
    Record,
    StateChanged,
    StepFinished,
    StepStarted,
)
from blacktree.job import Failure, Image, JobState, Outcome
from blacktree.rpc import codec, records
from blacktree.rpc.checks import MAX_ITEMS
from blacktree.rpc.generated.v1 import job_pb2, orchestrator_pb2, worker_pb2
from blacktree.rpc.peer import (
    MAX_MESSAGE_BYTES,
    Admission,
    Answer,
    Assignment,
    AttemptName,
    AttemptReport,
    Batch,
    PartImage,
    PingAnswer,
    Registration,
    Report,
    ReportAnswer,
    StopAnswer,
    StopOrder,
    Verdict,
    WorkerStatus,
)
from blacktree.spec import JobSpec
from tests.contracts import peer

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
worker_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
commits = st.from_regex(r"[0-9a-f]{40}", fullmatch=True)
counts = st.integers(0, 2**62)
numbers = st.integers(1, 2**62)
durations = st.floats(0, 1e9)
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
states = st.sampled_from([str(state) for state in JobState])
names = st.builds(AttemptName, job_id=ids, attempt=numbers, token=words)
lines = st.lists(texts.map(lambda text: text.replace("\n", "") + "\n"), min_size=1, max_size=5).map("".join)
stops = st.sampled_from(sorted(codec.STOP_WORDS))


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=3)


record_kinds: st.SearchStrategy[Record] = st.one_of(
    st.builds(StateChanged, times, counts, states | st.just(""), states, texts),
    st.builds(StepStarted, times, counts, words, texts),
    st.builds(StepFinished, times, counts, words, texts, st.booleans(), durations, st.booleans()),
    st.builds(Lines, times, counts, texts, words, lines),
    st.builds(Lines, times, counts, texts, words, texts.map(lambda t: t.replace("\n", "") + "\n"), st.just(True)),
    st.builds(Progress, times, counts, texts, counts, counts, texts),
    st.builds(Notice, times, counts, words, texts, texts),
    st.builds(CommitResolved, times, counts, commits),
)
images = st.builds(Image, reference=texts, id=texts, digest=st.none() | texts, references=some(texts))
failures = st.builds(
    Failure,
    code=words,
    message=texts,
    advice=texts,
    step=st.none() | texts,
    retryable=st.booleans(),
    exit_code=st.none() | st.integers(-(2**63), 2**63 - 1),
    last_lines=some(texts),
)
outcomes = st.builds(
    Outcome,
    state=st.sampled_from(sorted(records.ENDS)),
    image=st.none() | images,
    error=st.none() | failures,
    proven=st.booleans(),
)
statuses = st.builds(
    WorkerStatus,
    slots=counts,
    busy=counts,
    refusal=texts,
    draining=st.booleans(),
    free_disk_bytes=counts,
    engine=texts,
    warm=some(texts),
    platforms=some(texts),
    emulated=some(texts),
)
specs = st.builds(
    JobSpec,
    repository=st.just("https://example.org/a.git"),
    build_args=st.dictionaries(words.map(lambda key: key.replace("=", "_").replace("\0", "_")), texts, max_size=3),
    no_cache=st.booleans(),
    priority=st.integers(0, 9),
    timeout_seconds=st.floats(0.1, 1000),
    idempotency_key=st.none() | words,
)
assignments = st.builds(
    Assignment,
    name=names,
    spec=specs,
    commit=st.none() | commits,
    allow_local_sources=st.booleans(),
    secrets=st.dictionaries(texts, st.binary(max_size=20), max_size=3),
    part=st.booleans(),
    parts=some(st.builds(PartImage, platform=words, digest=words, tag=words)),
)
registrations = st.builds(
    Registration,
    worker_id=worker_ids,
    incarnation=words,
    secret=words,
    protocol=counts,
    version=texts,
    address=words,
    pool=words,
    labels=st.dictionaries(texts, texts, max_size=3),
    platform=texts,
    status=statuses,
    running=some(names),
    capabilities=some(words),
)
verdicts = st.builds(Verdict, name=names, next_batch=numbers, stop=stops | st.just(""), publish_seconds=durations)
admissions = st.builds(
    Admission, farm_id=words, lease_seconds=st.floats(0.1, 1e6), verdicts=some(verdicts), drain=st.booleans()
)
batches = st.builds(
    Batch, number=numbers, records=some(record_kinds), commit=st.none() | commits, outcome=st.none() | outcomes
)
reports = st.builds(
    Report,
    worker_id=worker_ids,
    incarnation=words,
    status=statuses,
    attempts=some(st.builds(AttemptReport, name=names, batches=some(batches), publish=st.booleans())),
)
report_answers = st.builds(ReportAnswer, known=st.booleans(), verdicts=some(verdicts), drain=st.booleans())


def across(message: Any) -> Any:
    """Through its bytes, as on the wire."""
    return type(message).FromString(message.SerializeToString())


@given(some(assignments))
def test_assignments_cross(given_ones: list[Assignment]) -> None:
    back = [each for request in codec.run_requests(given_ones) for each in codec.assignments_from_wire(across(request))]
    assert back == given_ones


@given(some(st.builds(Answer, accepted=st.booleans(), code=texts, reason=texts)))
def test_answers_cross(answers: list[Answer]) -> None:
    assert codec.answers_from_wire(across(codec.answers_to_wire(answers)), len(answers)) == answers


@given(some(st.builds(StopOrder, name=names, why=stops, reason=texts)))
def test_orders_cross(orders: list[StopOrder]) -> None:
    assert codec.orders_from_wire(across(codec.orders_to_wire(orders))) == orders


@given(some(st.builds(StopAnswer, known=st.booleans())))
def test_stop_answers_cross(answers: list[StopAnswer]) -> None:
    assert codec.stop_answers_from_wire(across(codec.stop_answers_to_wire(answers)), len(answers)) == answers


@given(st.builds(PingAnswer, worker_id=worker_ids, incarnation=words, status=statuses))
def test_ping_crosses(answer: PingAnswer) -> None:
    assert codec.ping_from_wire(across(codec.ping_to_wire(answer))) == answer


@given(registrations)
def test_registration_crosses(registration: Registration) -> None:
    assert codec.registration_from_wire(across(codec.registration_to_wire(registration))) == registration


@given(admissions)
def test_admission_crosses(admission: Admission) -> None:
    assert codec.admission_from_wire(across(codec.admission_to_wire(admission))) == admission


@given(reports)
def test_report_crosses(report: Report) -> None:
    assert codec.report_from_wire(across(codec.report_to_wire(report))) == report


@given(report_answers)
def test_report_answer_crosses(answer: ReportAnswer) -> None:
    assert codec.report_answer_from_wire(across(codec.report_answer_to_wire(answer))) == answer


@given(worker_ids, words)
def test_leave_crosses(worker_id: str, incarnation: str) -> None:
    assert codec.leave_from_wire(across(codec.leave_to_wire(worker_id, incarnation))) == (worker_id, incarnation)


READERS: list[tuple[Any, Callable[[Any], Any]]] = [
    (worker_pb2.RunJobRequest, codec.assignments_from_wire),
    (worker_pb2.RunJobReply, lambda wire: codec.answers_from_wire(wire, 1)),
    (worker_pb2.StopJobRequest, codec.orders_from_wire),
    (worker_pb2.StopJobReply, lambda wire: codec.stop_answers_from_wire(wire, 1)),
    (worker_pb2.PingReply, codec.ping_from_wire),
    (orchestrator_pb2.RegisterRequest, codec.registration_from_wire),
    (orchestrator_pb2.RegisterReply, codec.admission_from_wire),
    (orchestrator_pb2.ReportRequest, codec.report_from_wire),
    (orchestrator_pb2.ReportReply, codec.report_answer_from_wire),
    (orchestrator_pb2.LeaveRequest, codec.leave_from_wire),
]
GOOD = codec.report_to_wire(peer.a_report()).SerializeToString()


@settings(max_examples=200)
@given(st.sampled_from(READERS), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(reader: tuple[Any, Callable[[Any], Any]], body: bytes) -> None:
    kind, read = reader
    try:
        read(kind.FromString(body))
    except (DecodeError, BadRequest):
        pass


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_a_report_with_bytes_changed_is_read_or_refused(at: int, change: bytes) -> None:
    try:
        codec.report_from_wire(orchestrator_pb2.ReportRequest.FromString(GOOD[:at] + change + GOOD[at + 1 :]))
    except (DecodeError, BadRequest):
        pass


def a_line_record(text: str, *, partial: bool = False) -> job_pb2.Record:
    return job_pb2.Record(
        time_us=1, attempt=1, lines=job_pb2.Lines(step="s", stream="stdout", text=text, partial=partial)
    )


@pytest.mark.parametrize(
    "record",
    [
        a_line_record(""),
        a_line_record("no newline"),
        a_line_record("one\ntwo"),
        a_line_record("a" * 65_537 + "\n"),
        a_line_record("short\n" + "a" * 65_537 + "\nshort\n"),
        a_line_record("ü" * 32_769 + "\n"),
        a_line_record("one\ntwo\n", partial=True),
        job_pb2.Record(time_us=1, attempt=1),
        job_pb2.Record(time_us=-1, attempt=1, notice=job_pb2.Notice(code="a")),
        job_pb2.Record(time_us=2**62, attempt=1, notice=job_pb2.Notice(code="a")),
        job_pb2.Record(time_us=1, attempt=-1, notice=job_pb2.Notice(code="a")),
        job_pb2.Record(time_us=1, attempt=1, notice=job_pb2.Notice()),
        job_pb2.Record(time_us=1, attempt=1, commit=job_pb2.CommitResolved(commit="HEAD")),
        job_pb2.Record(time_us=1, attempt=1, state=job_pb2.StateChanged(to="flying")),
        job_pb2.Record(time_us=1, attempt=1, state=job_pb2.StateChanged(to="running", previous="flying")),
        job_pb2.Record(time_us=1, attempt=1, progress=job_pb2.Progress(current=-1)),
        job_pb2.Record(time_us=1, attempt=1, step_finished=job_pb2.StepFinished(step="s", seconds=float("nan"))),
        job_pb2.Record(time_us=1, attempt=1, step_finished=job_pb2.StepFinished(step="s", seconds=-1)),
    ],
)
def test_a_malformed_record_is_refused(record: job_pb2.Record) -> None:
    with pytest.raises(BadRequest):
        records.record_from_wire(across(record))


@pytest.mark.parametrize("text", ["a" * 65_536 + "\n", "ü" * 32_768 + "\n", "\n" * 70_000, ("a" * 65_536 + "\n") * 5])
def test_lines_at_the_limit_pass(text: str) -> None:
    record = records.record_from_wire(across(a_line_record(text)))
    assert isinstance(record, Lines)
    assert record.text == text


def a_wire_report(**changes: Any) -> orchestrator_pb2.ReportRequest:
    whole = codec.report_to_wire(peer.a_report())
    for field, value in changes.items():
        whole.ClearField(field)
        whole.MergeFrom(orchestrator_pb2.ReportRequest(**{field: value}))
    return whole


def a_wire_attempt(*batches: orchestrator_pb2.Batch) -> orchestrator_pb2.AttemptReport:
    return orchestrator_pb2.AttemptReport(name=codec.name_to_wire(peer.a_name()), batches=batches)


@pytest.mark.parametrize(
    "changes",
    [
        {"worker_id": ""},
        {"worker_id": "../w"},
        {"incarnation": ""},
        {"status": worker_pb2.WorkerStatus(slots=-1)},
        {"attempts": [orchestrator_pb2.AttemptReport()]},
        {"attempts": [orchestrator_pb2.AttemptReport(name=job_pb2.AttemptName(job_id="a", attempt=0, token="t"))]},
        {"attempts": [orchestrator_pb2.AttemptReport(name=job_pb2.AttemptName(job_id="a/b", attempt=1, token="t"))]},
        {"attempts": [orchestrator_pb2.AttemptReport(name=job_pb2.AttemptName(job_id="a", attempt=1))]},
        {"attempts": [a_wire_attempt(orchestrator_pb2.Batch(number=0))]},
        {"attempts": [a_wire_attempt(orchestrator_pb2.Batch(number=1, commit="HEAD"))]},
        {"attempts": [a_wire_attempt(orchestrator_pb2.Batch(number=1, outcome=job_pb2.Outcome(state="running")))]},
    ],
)
def test_a_malformed_report_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        codec.report_from_wire(across(a_wire_report(**changes)))


def test_a_report_without_status_is_refused() -> None:
    wire = codec.report_to_wire(peer.a_report())
    wire.ClearField("status")
    with pytest.raises(BadRequest):
        codec.report_from_wire(across(wire))


def test_huge_counts_are_refused_before_anything_is_built() -> None:
    many = orchestrator_pb2.Batch(number=1, records=[job_pb2.Record()] * (codec.MAX_RECORDS + 1))
    with pytest.raises(TooLarge):
        codec.report_from_wire(across(a_wire_report(attempts=[a_wire_attempt(many)])))
    with pytest.raises(TooLarge):
        codec.report_from_wire(across(a_wire_report(attempts=[a_wire_attempt()] * (MAX_ITEMS + 1))))
    with pytest.raises(TooLarge):
        codec.orders_from_wire(worker_pb2.StopJobRequest(orders=[worker_pb2.StopOrder()] * (MAX_ITEMS + 1)))


def test_one_bad_assignment_is_no_reason_to_refuse_the_others() -> None:
    good = codec.assignment_to_wire(peer.an_assignment())
    bad = codec.assignment_to_wire(peer.an_assignment(2))
    bad.spec_json = b'{"repository": "a", "flavour": 1}'
    read = codec.assignments_from_wire(across(worker_pb2.RunJobRequest(assignments=[bad, good])))
    assert isinstance(read[0], BadRequest)
    assert "flavour" in read[0].message
    assert read[1] == peer.an_assignment()


def test_an_answer_too_few_is_refused() -> None:
    with pytest.raises(BadRequest):
        codec.answers_from_wire(worker_pb2.RunJobReply(), 1)
    with pytest.raises(BadRequest):
        codec.stop_answers_from_wire(worker_pb2.StopJobReply(), 1)


def test_a_spec_at_the_submission_limit_still_crosses() -> None:
    """All defaults are written out on the way, so it is longer here than it was as submitted."""
    spec = JobSpec(repository="https://a/b", build_args={"A": "x" * ((1 << 20) - 50)})
    assignment = Assignment(name=peer.a_name(), spec=spec)
    assert codec.assignment_from_wire(across(codec.assignment_to_wire(assignment))) == assignment


def test_assignments_are_spread_over_messages_that_are_small_enough() -> None:
    spec = JobSpec(repository="https://a/b", build_args={"A": "x" * (1 << 20)})
    many = [Assignment(name=peer.a_name(number), spec=spec) for number in range(1, 11)]
    requests = list(codec.run_requests(many))
    assert sum(len(request.assignments) for request in requests) == 10
    assert len(requests) == 4
    assert all(request.ByteSize() <= MAX_MESSAGE_BYTES for request in requests)


def test_repeated_secrets_never_show() -> None:
    assert "secret" not in repr(peer.an_assignment())

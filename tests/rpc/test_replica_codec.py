"""The words about replicas survive the wire; whatever else arrives is a `BadRequest` and nothing worse."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.errors import BadRequest, NotAllowed, TooLarge
from blacktree.rpc import handlers
from blacktree.rpc import replica_codec as codec
from blacktree.rpc.client import connect_worker
from blacktree.rpc.generated.v1 import replica_pb2
from blacktree.rpc.replica import (
    MAX_LOG_RECORDS,
    MAX_REPLICAS,
    MAX_SECRET_BYTES,
    PHASES,
    RegistryLogin,
    ReplicaAck,
    ReplicaAnswer,
    ReplicaLog,
    ReplicaName,
    ReplicaOrder,
    ReplicaOrders,
    ReplicaReport,
    ReplicaState,
    ReplicaStored,
)
from blacktree.runspec import Health, Port, RunSpec, TcpCheck
from tests.contracts import peer
from tests.rpc.house import TOKEN, house
from tests.rpc.test_codec import across, counts, numbers, record_kinds, some, texts, times, words, worker_ids

names = st.builds(
    ReplicaName,
    deployment=st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    version=numbers,
    index=counts,
)
runs = st.builds(
    RunSpec,
    name=st.just("shop"),
    ports=st.sampled_from([[], [Port(container=80, host=8080)]]),
    env=st.dictionaries(st.sampled_from(["A", "B"]), texts.map(lambda text: text.replace("\0", "")), max_size=2),
    health=st.sampled_from([Health(), Health(tcp=TcpCheck(port=5))]),
)
orders = st.builds(
    ReplicaOrders,
    worker_id=worker_ids,
    revision=numbers,
    orders=st.lists(
        st.builds(
            ReplicaOrder,
            name=names,
            generation=counts,
            image=words,
            run=runs,
            pull=st.booleans(),
            serve=st.booleans(),
            logins=st.dictionaries(words, st.builds(RegistryLogin, username=texts, password=texts), max_size=2),
            secrets=st.dictionaries(st.sampled_from(["key", "a.b-c"]), st.binary(max_size=20), max_size=2),
        ),
        max_size=4,
        unique_by=lambda order: order.name,
    ),
)
states = st.builds(
    ReplicaState,
    name=names,
    generation=counts,
    state=st.sampled_from(sorted(PHASES)),
    since=times,
    serving=st.booleans(),
    container=texts,
    exit_code=st.none() | st.integers(-(2**63), 2**63 - 1),
    oom_killed=st.booleans(),
    restarts=counts,
    code=texts,
    reason=texts,
    last_lines=some(texts),
    address=texts,
)
reports = st.builds(
    ReplicaReport,
    worker_id=worker_ids,
    incarnation=words,
    revision=counts,
    states=some(states),
    logs=some(st.builds(ReplicaLog, name=names, generation=counts, number=numbers, records=some(record_kinds))),
)
answers = st.builds(
    ReplicaAnswer,
    known=st.booleans(),
    stored=some(st.builds(ReplicaStored, name=names, generation=counts, next_number=numbers)),
)


@given(orders)
def test_orders_cross(sent: ReplicaOrders) -> None:
    assert codec.orders_from_wire(across(codec.orders_to_wire(sent))) == sent


@given(reports)
def test_a_report_crosses(sent: ReplicaReport) -> None:
    assert codec.report_from_wire(across(codec.report_to_wire(sent))) == sent


@given(answers)
def test_an_answer_crosses(sent: ReplicaAnswer) -> None:
    assert codec.answer_from_wire(across(codec.answer_to_wire(sent))) == sent


def test_an_ack_crosses() -> None:
    assert codec.ack_from_wire(across(codec.ack_to_wire(ReplicaAck(revision=3)))) == ReplicaAck(revision=3)


def test_replicas_of_a_version_share_one_plan() -> None:
    wire = codec.orders_to_wire(peer.some_replica_orders())
    assert [order.plan for order in wire.orders] == [0, 0, 1, 1]
    assert len(wire.plans) == 2


READERS: list[tuple[Any, Callable[[Any], Any]]] = [
    (replica_pb2.ReplicaOrdersRequest, codec.orders_from_wire),
    (replica_pb2.ReplicaOrdersReply, codec.ack_from_wire),
    (replica_pb2.ReplicaReportRequest, codec.report_from_wire),
    (replica_pb2.ReplicaReportReply, codec.answer_from_wire),
]
GOOD = {
    replica_pb2.ReplicaOrdersRequest: codec.orders_to_wire(peer.some_replica_orders()).SerializeToString(),
    replica_pb2.ReplicaReportRequest: codec.report_to_wire(peer.a_replica_report()).SerializeToString(),
}


@settings(max_examples=200)
@given(st.sampled_from(READERS), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(reader: tuple[Any, Callable[[Any], Any]], body: bytes) -> None:
    kind, read = reader
    try:
        read(kind.FromString(body))
    except (DecodeError, BadRequest):
        pass


@settings(max_examples=300)
@given(st.sampled_from([READERS[0], READERS[2]]), st.data(), st.binary(min_size=1, max_size=4))
def test_changed_bytes_are_read_or_refused(
    reader: tuple[Any, Callable[[Any], Any]], data: st.DataObject, change: bytes
) -> None:
    kind, read = reader
    good = GOOD[kind]
    at = data.draw(st.integers(0, len(good) - 1))
    try:
        read(kind.FromString(good[:at] + change + good[at + 1 :]))
    except (DecodeError, BadRequest):
        pass


def spoiled(change: Callable[[Any], None]) -> replica_pb2.ReplicaOrdersRequest:
    wire = codec.orders_to_wire(peer.some_replica_orders())
    change(wire)
    return across(wire)


def _twice(wire: Any) -> None:
    wire.orders.append(wire.orders[0])


def _foreign_plan(wire: Any) -> None:
    wire.orders[0].plan = 9


def _bad_run(wire: Any) -> None:
    wire.plans[0].run_json = b'{"name": "shop", "flavour": 1}'


def _bad_env(wire: Any) -> None:
    wire.plans[0].run_json = b'{"name": "shop", "env": {"A-B": ""}}'


def _path_as_secret(wire: Any) -> None:
    wire.plans[0].secrets["../key"] = b""


def _parent_as_secret(wire: Any) -> None:
    wire.plans[0].secrets[".."] = b""


def _no_image(wire: Any) -> None:
    wire.plans[0].image = ""


def _bad_name(wire: Any) -> None:
    wire.orders[0].name.deployment = "../x"


def _version_zero(wire: Any) -> None:
    wire.orders[0].name.version = 0


def _no_worker(wire: Any) -> None:
    wire.worker_id = ""


def _no_revision(wire: Any) -> None:
    wire.revision = 0


@pytest.mark.parametrize(
    "change",
    [
        _twice,
        _foreign_plan,
        _bad_run,
        _bad_env,
        _path_as_secret,
        _parent_as_secret,
        _no_image,
        _bad_name,
        _version_zero,
        _no_worker,
        _no_revision,
    ],
)
def test_malformed_orders_are_refused(change: Callable[[Any], None]) -> None:
    with pytest.raises(BadRequest):
        codec.orders_from_wire(spoiled(change))


def test_a_state_of_unknown_word_is_refused() -> None:
    wire = codec.report_to_wire(peer.a_replica_report())
    wire.states[0].state = "flying"
    with pytest.raises(BadRequest):
        codec.report_from_wire(across(wire))


def test_huge_counts_are_refused_before_anything_is_built() -> None:
    with pytest.raises(TooLarge):
        codec.orders_from_wire(
            replica_pb2.ReplicaOrdersRequest(orders=[replica_pb2.ReplicaOrder()] * (MAX_REPLICAS + 1))
        )
    with pytest.raises(TooLarge):
        codec.orders_from_wire(replica_pb2.ReplicaOrdersRequest(plans=[replica_pb2.ReplicaPlan()] * (MAX_REPLICAS + 1)))
    records = codec.report_to_wire(peer.a_replica_report()).logs[0]
    for _ in range(MAX_LOG_RECORDS):
        records.records.add()
    with pytest.raises(TooLarge):
        codec.report_from_wire(replica_pb2.ReplicaReportRequest(logs=[records]))
    with pytest.raises(TooLarge):
        codec.report_from_wire(
            replica_pb2.ReplicaReportRequest(
                worker_id="w", incarnation="i", states=[replica_pb2.ReplicaState()] * (2 * MAX_REPLICAS + 1)
            )
        )
    wire = codec.orders_to_wire(peer.some_replica_orders())
    wire.plans[0].secrets["key"] = bytes(MAX_SECRET_BYTES + 1)
    with pytest.raises(TooLarge):
        codec.orders_from_wire(wire)


def test_logins_and_secrets_never_show() -> None:
    shown = repr(peer.some_replica_orders())
    assert "secret" not in shown
    assert "password" not in shown
    assert repr(RegistryLogin(username="u", password="p")) == "RegistryLogin(***)"


async def test_a_worker_that_lacks_the_call_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = handlers.worker_calls

    def older(side: Any) -> Any:
        return {path: call for path, call in calls(side).items() if "Replicas" not in path}

    monkeypatch.setattr("blacktree.rpc.server.worker_calls", older)
    async with house() as home:
        address = await home.serve_worker()
        async with connect_worker(address, join_token=TOKEN) as side:
            with pytest.raises(NotAllowed) as caught:
                await side.apply_replicas(peer.some_replica_orders())
            assert caught.value.code == "not_blacktree"
            assert (await side.ping()).worker_id == "w1"


def test_a_number_that_cannot_be_counted_on_from_is_refused() -> None:
    """Whoever takes it would send the next one: it must fit in the field."""
    wire = codec.report_to_wire(ReplicaReport(worker_id="w", incarnation="i", revision=2**63 - 1))
    with pytest.raises(BadRequest, match="revision"):
        codec.report_from_wire(wire)

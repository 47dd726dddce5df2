"""protobuf ⇄ the words of `blacktree.rpc.replica`, as `codec` does it for the other calls.

The replicas of one version share almost everything: on the wire that travels once, as a plan.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from blacktree.errors import TooLarge
from blacktree.rpc.checks import MAX_TEXT, count, few, given, refused, text, word, worker_id
from blacktree.rpc.generated.v1 import replica_pb2
from blacktree.rpc.records import from_us, record_from_wire, record_to_wire, to_us
from blacktree.rpc.replica import (
    MAX_LAST_LINES,
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
from blacktree.runspec import RunSpec, check_run
from blacktree.strict import decode_json

MAX_LOGINS = 64
MAX_KEPT = 4096
MAX_SECRETS = 64

_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[A-Za-z0-9._-]{1,256}")
_encode_run = msgspec.json.Encoder().encode


def name_to_wire(name: ReplicaName) -> replica_pb2.ReplicaName:
    return replica_pb2.ReplicaName(deployment=name.deployment, version=name.version, index=name.index)


def name_from_wire(wire: replica_pb2.ReplicaName) -> ReplicaName:
    if not _DEPLOYMENT.fullmatch(wire.deployment):
        raise refused("name.deployment", "must be 1 to 63 small letters, digits or inner `-`")
    return ReplicaName(
        deployment=wire.deployment,
        version=count(wire.version, "name.version", 1),
        index=count(wire.index, "name.index"),
    )


def orders_to_wire(orders: ReplicaOrders) -> replica_pb2.ReplicaOrdersRequest:
    wire = replica_pb2.ReplicaOrdersRequest(worker_id=orders.worker_id, revision=orders.revision, kept=orders.kept)
    planned: list[ReplicaOrder] = []
    for order in orders.orders:
        plan = next((at for at, other in enumerate(planned) if _same_plan(order, other)), len(planned))
        if plan == len(planned):
            planned.append(order)
            wire.plans.append(_plan_to_wire(order))
        wire.orders.append(
            replica_pb2.ReplicaOrder(
                name=name_to_wire(order.name), generation=order.generation, plan=plan, serve=order.serve
            )
        )
    return wire


def _same_plan(one: ReplicaOrder, other: ReplicaOrder) -> bool:
    return (one.image, one.pull, one.run, one.logins, one.secrets) == (
        other.image,
        other.pull,
        other.run,
        other.logins,
        other.secrets,
    )


def _plan_to_wire(order: ReplicaOrder) -> replica_pb2.ReplicaPlan:
    return replica_pb2.ReplicaPlan(
        image=order.image,
        pull=order.pull,
        run_json=_encode_run(order.run),
        logins=logins_to_wire(order.logins),
        secrets=order.secrets,
    )


def logins_to_wire(logins: Mapping[str, RegistryLogin]) -> dict[str, replica_pb2.RegistryLogin]:
    return {
        host: replica_pb2.RegistryLogin(username=login.username, password=login.password)
        for host, login in logins.items()
    }


def logins_from_wire(wire: Mapping[str, replica_pb2.RegistryLogin]) -> dict[str, RegistryLogin]:
    logins = {host: wire[host] for host in few(list(wire), "logins", MAX_LOGINS)}
    return {
        given(host, "logins"): RegistryLogin(
            username=text(login.username, "login.username", 4096),
            password=text(login.password, "login.password", 64 << 10),
        )
        for host, login in logins.items()
    }


def _plan_from_wire(wire: replica_pb2.ReplicaPlan) -> ReplicaOrder:
    """As an order of nobody's."""
    return ReplicaOrder(
        name=ReplicaName(deployment="a", version=1, index=0),
        generation=0,
        image=given(wire.image, "image", 1024),
        pull=wire.pull,
        run=check_run(decode_json(wire.run_json, RunSpec, where="run"), "run"),
        logins=logins_from_wire(wire.logins),
        secrets={
            _secret_name(name): _secret(wire.secrets[name]) for name in few(list(wire.secrets), "secrets", MAX_SECRETS)
        },
    )


def _secret_name(name: str) -> str:
    # It becomes the name of a file.
    if not _SECRET.fullmatch(name) or name in (".", ".."):
        raise refused("secrets", "a name must be 1 to 256 letters, digits, `.`, `_` or `-`")
    return name


def _secret(value: bytes) -> bytes:
    if len(value) > MAX_SECRET_BYTES:
        raise TooLarge(f"secrets: {len(value)} bytes, the limit is {MAX_SECRET_BYTES}", path="secrets")
    return value


def orders_from_wire(wire: replica_pb2.ReplicaOrdersRequest) -> ReplicaOrders:
    plans = [_plan_from_wire(each) for each in few(wire.plans, "plans", MAX_REPLICAS)]
    orders = []
    for each in few(wire.orders, "orders", MAX_REPLICAS):
        if not 0 <= each.plan < len(plans):
            raise refused("order.plan", f"{each.plan} is not one of {len(plans)} plans")
        orders.append(
            msgspec.structs.replace(
                plans[each.plan],
                name=name_from_wire(each.name),
                generation=count(each.generation, "order.generation"),
                serve=each.serve,
            )
        )
    if len({order.name for order in orders}) != len(orders):
        raise refused("orders", "name a replica twice")
    return ReplicaOrders(
        worker_id=worker_id(wire.worker_id),
        revision=count(wire.revision, "revision", 1),
        orders=orders,
        kept=list(few(wire.kept, "kept", MAX_KEPT)),
    )


def ack_to_wire(ack: ReplicaAck) -> replica_pb2.ReplicaOrdersReply:
    return replica_pb2.ReplicaOrdersReply(revision=ack.revision)


def ack_from_wire(wire: replica_pb2.ReplicaOrdersReply) -> ReplicaAck:
    return ReplicaAck(revision=count(wire.revision, "revision"))


def report_to_wire(report: ReplicaReport) -> replica_pb2.ReplicaReportRequest:
    return replica_pb2.ReplicaReportRequest(
        worker_id=report.worker_id,
        incarnation=report.incarnation,
        revision=report.revision,
        states=[_state_to_wire(each) for each in report.states],
        logs=[
            replica_pb2.ReplicaLog(
                name=name_to_wire(each.name),
                generation=each.generation,
                number=each.number,
                records=[record_to_wire(record) for record in each.records],
            )
            for each in report.logs
        ],
    )


def report_from_wire(wire: replica_pb2.ReplicaReportRequest) -> ReplicaReport:
    records = sum(len(each.records) for each in few(wire.logs, "logs"))
    if records > MAX_LOG_RECORDS:
        raise TooLarge(f"records: {records} in one report, the limit is {MAX_LOG_RECORDS}", path="records")
    return ReplicaReport(
        worker_id=worker_id(wire.worker_id),
        incarnation=given(wire.incarnation, "incarnation", 256),
        revision=count(wire.revision, "revision"),
        # Twice as many as ordered: what is being stopped is told beside what takes its place.
        states=[_state_from_wire(each) for each in few(wire.states, "states", 2 * MAX_REPLICAS)],
        logs=[
            ReplicaLog(
                name=name_from_wire(each.name),
                generation=count(each.generation, "log.generation"),
                number=count(each.number, "log.number", 1),
                records=[record_from_wire(record) for record in each.records],
            )
            for each in wire.logs
        ],
    )


def _state_to_wire(state: ReplicaState) -> replica_pb2.ReplicaState:
    return replica_pb2.ReplicaState(
        name=name_to_wire(state.name),
        generation=state.generation,
        state=state.state,
        since_us=to_us(state.since),
        serving=state.serving,
        container=state.container,
        exit_code=state.exit_code,
        oom_killed=state.oom_killed,
        restarts=state.restarts,
        code=state.code,
        reason=state.reason,
        last_lines=state.last_lines,
        address=state.address,
    )


def _state_from_wire(wire: replica_pb2.ReplicaState) -> ReplicaState:
    return ReplicaState(
        name=name_from_wire(wire.name),
        generation=count(wire.generation, "state.generation"),
        state=word(wire.state, "state.state", PHASES),  # type: ignore[arg-type]  # one of these words, just checked
        since=from_us(wire.since_us),
        serving=wire.serving,
        container=text(wire.container, "state.container", 256),
        exit_code=wire.exit_code if wire.HasField("exit_code") else None,
        oom_killed=wire.oom_killed,
        restarts=count(wire.restarts, "state.restarts"),
        code=text(wire.code, "state.code", 64),
        reason=text(wire.reason, "state.reason", 4096),
        last_lines=[
            text(each, "state.last_lines", MAX_TEXT)
            for each in few(wire.last_lines, "state.last_lines", MAX_LAST_LINES)
        ],
        address=text(wire.address, "state.address", 256),
    )


def answer_to_wire(answer: ReplicaAnswer) -> replica_pb2.ReplicaReportReply:
    return replica_pb2.ReplicaReportReply(known=answer.known, stored=_stored_to_wire(answer.stored))


def _stored_to_wire(stored: Sequence[ReplicaStored]) -> list[replica_pb2.ReplicaStored]:
    return [
        replica_pb2.ReplicaStored(
            name=name_to_wire(each.name), generation=each.generation, next_number=each.next_number
        )
        for each in stored
    ]


def answer_from_wire(wire: replica_pb2.ReplicaReportReply) -> ReplicaAnswer:
    return ReplicaAnswer(
        known=wire.known,
        stored=[
            ReplicaStored(
                name=name_from_wire(each.name),
                generation=count(each.generation, "stored.generation"),
                next_number=count(each.next_number, "stored.next_number", 1),
            )
            for each in few(wire.stored, "stored")
        ],
    )

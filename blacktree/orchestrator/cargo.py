"""What of a worker's list goes with which message: what is held stays on it, what cannot be had or carried waits."""

from collections.abc import Mapping, Sequence

import msgspec

from blacktree.orchestrator.orders import Plan, order
from blacktree.rpc.peer import MAX_MESSAGE_BYTES
from blacktree.rpc.replica import ReplicaName, ReplicaOrder, ReplicaOrders
from blacktree.rpc.replica_codec import orders_to_wire

FRAME_BYTES = 256
"""The message around the list."""
_ENTRY_BYTES = 256
"""An order whose plan is in the message already, at most."""

TOO_LARGE = "room in its worker's list: all orders there, secrets included, are larger than one message may be"

Held = Mapping[ReplicaName, int]
"""The replicas that a worker has, and the generation of each."""


class Cargo(msgspec.Struct, frozen=True, kw_only=True):
    """`orders` go, what is in `waiting` does not (or without news of its secrets), each with what it waits for."""

    orders: list[ReplicaOrder]
    waiting: dict[ReplicaName, str]


def bare(plan: Plan, held: Held) -> ReplicaOrder | None:
    """The order that leaves a held replica as it is; None for one that is not held."""
    generation = held.get(plan.name)
    if generation is None:
        return None
    # A later generation would be a start, for which its secrets are needed.
    return order(msgspec.structs.replace(plan, generation=generation), {}, {})


def load(found: Sequence[tuple[Plan, ReplicaOrder | str]], held: Held) -> Cargo:
    """The list of one message. `found`: each plan's order, or why its secrets cannot be read."""
    orders: dict[ReplicaName, ReplicaOrder] = {}
    waiting: dict[ReplicaName, str] = {}
    for plan, made in found:
        if isinstance(made, ReplicaOrder):
            orders[plan.name] = made
            continue
        waiting[plan.name] = made
        if (kept := bare(plan, held)) is not None:
            orders[plan.name] = kept
    if size(list(orders.values())) > MAX_MESSAGE_BYTES:
        orders = _fitting(found, orders, waiting, held)
    return Cargo(orders=list(orders.values()), waiting=waiting)


def _fitting(
    found: Sequence[tuple[Plan, ReplicaOrder | str]],
    orders: dict[ReplicaName, ReplicaOrder],
    waiting: dict[ReplicaName, str],
    held: Held,
) -> dict[ReplicaName, ReplicaOrder]:
    """Those that fit: first all that are held, as they are, then their news and what is new, in the list's order."""
    chosen = {plan.name: kept for plan, _ in found if (kept := bare(plan, held)) is not None}
    total = size(list(chosen.values()))
    carried: set[tuple[str, int]] = set()
    for plan, _ in sorted(found, key=lambda each: each[0].name not in held):
        made = orders.get(plan.name)
        if made is None or made == chosen.get(plan.name):
            continue
        version = plan.name.deployment, plan.name.version
        more = _ENTRY_BYTES if version in carried else size([made])
        if total + more > MAX_MESSAGE_BYTES:
            waiting[plan.name] = TOO_LARGE
            continue
        total += more
        carried.add(version)
        chosen[plan.name] = made
    return {plan.name: chosen[plan.name] for plan, _ in found if plan.name in chosen}


def size(orders: list[ReplicaOrder]) -> int:
    """The bytes of a message with these, at most."""
    return orders_to_wire(ReplicaOrders(worker_id="", revision=0, orders=orders)).ByteSize() + FRAME_BYTES

"""What goes with a worker's list when not everything can."""

from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.orchestrator.cargo import TOO_LARGE, load, size
from blacktree.orchestrator.orders import Plan, order
from blacktree.rpc.peer import MAX_MESSAGE_BYTES
from blacktree.rpc.replica import ReplicaName, ReplicaOrder
from blacktree.runspec import RunSpec

VALUE = b"x" * (900 << 10)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["small", "large", "unread"]), st.booleans()), max_size=8))
def test_it_always_fits_and_what_is_held_is_always_on_it(wanted: list[tuple[str, bool]]) -> None:
    found: list[tuple[Plan, ReplicaOrder | str]] = []
    held = {}
    for number, (kind, has) in enumerate(wanted):
        name = ReplicaName(deployment=f"web-{number}", version=1, index=0)
        run = RunSpec(name=name.deployment, secrets=["key"])
        plan = Plan(name=name, generation=2, image="app", pull=False, serve=True, run=run)
        made = order(plan, {"key": VALUE if kind == "large" else b"x"}, {})
        found.append((plan, "locked" if kind == "unread" else made))
        if has:
            held[name] = 1
    cargo = load(found, held)
    assert size(cargo.orders) <= MAX_MESSAGE_BYTES
    orders = {each.name: each for each in cargo.orders}
    for plan, made in found:
        if isinstance(made, ReplicaOrder) and plan.name not in cargo.waiting:
            assert orders[plan.name] == made
        elif plan.name in held:
            assert (orders[plan.name].generation, orders[plan.name].secrets) == (1, {})
        else:
            assert plan.name not in orders
    large = sum(kind == "large" for kind, _ in wanted)
    assert (TOO_LARGE in cargo.waiting.values()) == (large > 4)

"""The pure decision of the scaler: bounds, cool-downs, and that nobody is removed who builds."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from blacktree.config import ScaledPool
from blacktree.orchestrator.sizing import Hand, Plan, Situation, decide

RULES = ScaledPool(minimum=0, maximum=4, slots=2, wait_seconds=5, idle_seconds=60, up_cooldown_seconds=5)


def a_hand(id: str, state: str = "working", **keys: object) -> Hand:
    return msgspec.convert({"id": id, "state": state, "slots": 2} | keys, Hand)


def test_an_empty_pool_grows_at_once() -> None:
    assert decide(RULES, Situation(time=100, queued=3)).start == 2
    assert decide(RULES, Situation(time=100, queued=30)).start == 4
    assert decide(RULES, Situation(time=100)) == Plan(keep=[], drain=[])


def test_depth_alone_is_not_enough_where_somebody_works() -> None:
    hands = [a_hand("a", busy=2)]
    assert decide(RULES, Situation(time=100, queued=2, oldest_seconds=4.9, hands=hands)).start == 0
    assert decide(RULES, Situation(time=100, queued=2, oldest_seconds=5, hands=hands)).start == 1


def test_what_is_starting_counts_as_free() -> None:
    hands = [a_hand("a", busy=2), a_hand("b", "starting", since=99)]
    assert decide(RULES, Situation(time=100, queued=2, oldest_seconds=50, hands=hands)).start == 0


def test_workers_of_others_are_used_first() -> None:
    situation = Situation(time=100, queued=2, oldest_seconds=50, others_free=2, has_others=True)
    assert decide(RULES, situation).start == 0
    assert decide(RULES, msgspec.structs.replace(situation, others_free=0)).start == 1


def test_a_worker_that_takes_nothing_is_no_help() -> None:
    assert decide(RULES, Situation(time=100, queued=2, oldest_seconds=50, hands=[a_hand("a", slots=0)])).start == 1


def test_a_draining_worker_is_kept_rather_than_another_started() -> None:
    hands = [a_hand("a", "draining", busy=1, ours=True), a_hand("b", "draining", busy=1)]
    plan = decide(RULES, Situation(time=100, queued=2, hands=hands))
    assert (plan.keep, plan.start, plan.remove) == (["a"], 0, {})


def test_idle_workers_are_drained_and_only_then_removed() -> None:
    idle = Situation(time=100, hands=[a_hand("a", since=40), a_hand("b", since=50), a_hand("c", since=10, busy=1)])
    plan = decide(RULES, idle)
    assert (plan.drain, plan.remove) == (["a"], {})
    drained = Situation(time=100, hands=[a_hand("a", "draining", ours=True), a_hand("b", "draining", busy=1)])
    assert list(decide(RULES, drained).remove) == ["a"]


def test_a_lowered_maximum_is_kept_to_without_ending_a_build() -> None:
    hands = [a_hand(str(number), busy=1, since=90) for number in range(6)]
    plan = decide(RULES, Situation(time=100, queued=9, oldest_seconds=99, hands=hands, last_change=99))
    assert (len(plan.drain), plan.remove, plan.start) == (2, {}, 0)


def test_who_never_joins_or_stays_silent_is_removed() -> None:
    hands = [a_hand("a", "starting", since=40), a_hand("b", "lost", since=40), a_hand("c", "ended", since=100)]
    assert sorted(decide(RULES, Situation(time=100, hands=hands)).remove) == ["a", "b", "c"]


times = st.floats(0, 1000)
hands = st.lists(
    st.builds(
        Hand,
        id=st.uuids().map(str),
        state=st.sampled_from(["starting", "working", "draining", "lost", "ended"]),
        busy=st.integers(0, 3),
        slots=st.integers(0, 3),
        since=times,
        ours=st.booleans(),
    ),
    max_size=8,
)
rules = st.builds(
    lambda minimum, more, **keys: ScaledPool(minimum=minimum, maximum=minimum + more, **keys),
    st.integers(0, 4),
    st.integers(0, 4),
    slots=st.integers(1, 3),
    wait_seconds=st.sampled_from([0.0, 5.0]),
    idle_seconds=st.sampled_from([0.0, 60.0]),
    up_cooldown_seconds=st.sampled_from([0.0, 10.0]),
    down_cooldown_seconds=st.sampled_from([0.0, 100.0]),
)
situations = st.builds(
    Situation,
    time=st.just(1000.0),
    queued=st.integers(0, 20),
    oldest_seconds=st.floats(0, 100),
    others_free=st.integers(0, 3),
    has_others=st.booleans(),
    hands=hands,
    last_change=times,
)


@given(rules, situations)
def test_rules_that_always_hold(rules: ScaledPool, now: Situation) -> None:
    plan = decide(rules, now)
    by_id = {hand.id: hand for hand in now.hands}
    active = [hand for hand in now.hands if hand.state in ("starting", "working") and hand.id not in plan.remove]
    # Bounds: nothing is begun beyond the maximum, whatever is still there; the minimum is aimed at.
    assert plan.start == 0 or len(now.hands) + plan.start <= rules.maximum
    assert plan.wanted <= rules.maximum
    assert plan.wanted >= rules.minimum or len(now.hands) + plan.start >= rules.maximum
    # Drained before removal: what is removed does not build, or is not reached any more.
    for each in plan.remove:
        hand = by_id[each]
        assert hand.state in ("ended", "lost", "starting") or (hand.state == "draining" and hand.busy == 0)
    # Each worker is told one thing.
    told = [*plan.keep, *plan.drain, *plan.remove]
    assert len(told) == len(set(told))
    assert all(by_id[each].state == "draining" and by_id[each].ours for each in plan.keep)
    assert not (plan.drain and (plan.start or plan.keep))
    # No flapping: within its cool-down only the bounds themselves change the size.
    if now.time - now.last_change < rules.up_cooldown_seconds:
        assert plan.start + len(plan.keep) <= max(0, rules.minimum - len(active))
    if now.time - now.last_change < rules.down_cooldown_seconds or now.queued:
        assert len(plan.drain) <= max(0, len(active) - rules.maximum)


class Simulation:
    """A pool whose provider does what it is told, one decision a second."""

    def __init__(self, rules: ScaledPool) -> None:
        self.rules = rules
        self.time = 0.0
        self.queued = 0
        self.queued_since = 0.0
        self.last_change = -1e9
        self.hands: dict[str, Hand] = {}
        self.changes: list[tuple[float, int]] = []

    def step(self, arriving: int, ending: int) -> None:
        self.time += 1
        if arriving and not self.queued:
            self.queued_since = self.time
        self.queued += arriving
        for id, hand in list(self.hands.items()):
            busy = max(0, hand.busy - ending)
            state = "working" if hand.state == "starting" else hand.state
            taken = min(self.queued, hand.slots - busy) if state == "working" else 0
            self.queued -= taken
            since = self.time if busy + taken or state != hand.state else hand.since
            self.hands[id] = msgspec.structs.replace(hand, state=state, busy=busy + taken, since=since)
        plan = decide(
            self.rules,
            Situation(
                time=self.time,
                queued=self.queued,
                oldest_seconds=self.time - self.queued_since if self.queued else 0,
                hands=list(self.hands.values()),
                last_change=self.last_change,
            ),
        )
        if plan.start or plan.keep or plan.drain:
            self.last_change = self.time
            self.changes.append((self.time, plan.start + len(plan.keep) - len(plan.drain)))
        for id in plan.remove:
            assert self.hands[id].busy == 0
            assert self.hands[id].state == "draining"
            del self.hands[id]
        for id in plan.keep:
            self.hands[id] = msgspec.structs.replace(self.hands[id], state="working", ours=False)
        for id in plan.drain:
            self.hands[id] = msgspec.structs.replace(self.hands[id], state="draining", ours=True)
        for number in range(plan.start):
            id = f"{self.time}-{number}"
            self.hands[id] = Hand(id=id, state="starting", slots=self.rules.slots, since=self.time)
        assert len(self.hands) <= self.rules.maximum


@given(
    st.integers(0, 2),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=50, max_size=150),
)
def test_a_pool_over_time(minimum: int, more: int, load: list[tuple[int, int]]) -> None:
    """Bounds at every moment, no shrinking within the cool-down, and in the end no more workers than needed."""
    rules = ScaledPool(
        minimum=minimum, maximum=minimum + more, idle_seconds=5, up_cooldown_seconds=3, down_cooldown_seconds=10
    )
    pool = Simulation(rules)
    for arriving, ending in load:
        pool.step(arriving, ending)
    for (before, _), (after, change) in zip(pool.changes, pool.changes[1:], strict=False):
        assert after - before >= (3 if change > 0 else 10)
    for _ in range(400):
        pool.step(0, 1)
    assert pool.queued == 0
    assert len(pool.hands) == minimum
    assert all(hand.state == "working" for hand in pool.hands.values())

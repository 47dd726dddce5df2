"""Which delivery tags one acknowledgement covers: never one that is still in someone's hands."""

from hypothesis import given
from hypothesis import strategies as st

from blacktree.broker.backoff import Backoff
from blacktree.broker.frames import plan_acks

tags = st.sets(st.integers(1, 60))


@given(tags, st.data())
def test_exactly_the_asked_tags_are_acknowledged(outstanding: set[int], data: st.DataObject) -> None:
    acks = data.draw(st.sets(st.sampled_from(sorted(outstanding)))) if outstanding else set()
    upto, single = plan_acks(sorted(outstanding), acks)
    covered = {tag for tag in outstanding if upto is not None and tag <= upto} | set(single)
    assert covered == acks
    assert len(single) == len(set(single))


def test_all_at_once_is_one_frame() -> None:
    assert plan_acks([4, 5, 6, 9], {4, 5, 6, 9}) == (9, [])
    assert plan_acks([4, 5, 6, 9], {4, 6}) == (4, [6])
    assert plan_acks([4, 5], {5}) == (None, [5])


def test_backoff_doubles_up_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(0.1, 1.0, chance=lambda: 0.0)
    assert [round(backoff.next(), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next() == 0.1
    assert Backoff(0.1, 1.0, chance=lambda: 1.0).next() == 0.05

"""Choosing among workers, and saying why nobody is chosen."""

from hypothesis import given
from hypothesis import strategies as st

from blacktree.orchestrator.census import Candidate, Census, ordinal


def a_worker(id: str, *, busy: int = 0, slots: int = 2, warm: tuple[str, ...] = (), **more: object) -> Candidate:
    return Candidate(id=id, pool=str(more.pop("pool", "default")), slots=slots, busy=busy, warm=warm, **more)


def a_census(*workers: Candidate) -> Census:
    census = Census()
    for worker in workers:
        census.put(worker)
    return census


def test_warm_wins_over_idle_and_idle_over_loaded() -> None:
    census = a_census(a_worker("a", busy=1), a_worker("b"), a_worker("c", busy=1, warm=("r",)))
    assert census.choose("default", "r") == a_worker("c", busy=1, warm=("r",))
    assert census.choose("default", "other") == a_worker("b")


def test_a_full_warm_worker_is_not_waited_for() -> None:
    census = a_census(a_worker("a", busy=2, warm=("r",)), a_worker("b", busy=1))
    chosen = census.choose("default", "r")
    assert chosen is not None
    assert chosen.id == "b"


def test_reasons_to_wait() -> None:
    assert "no worker in pool `arm`" in a_census(a_worker("a")).why_waiting("arm")
    assert a_census(a_worker("a", busy=2), a_worker("b", busy=2)).why_waiting("default") == "all 4 slots busy"
    assert "disk" in a_census(a_worker("a", refusal="disk nearly full")).why_waiting("default")
    assert "draining" in a_census(a_worker("a", draining=True)).why_waiting("default")
    assert a_census(a_worker("a")).why_waiting("default") == ""


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th",
    ]  # fmt: skip


candidates = st.builds(
    a_worker,
    st.sampled_from("abcdef"),
    slots=st.integers(1, 3),
    busy=st.integers(0, 3),
    warm=st.sampled_from([(), ("r",), ("q", "r"), ("q",)]),
    pool=st.sampled_from(["default", "arm"]),
    refusal=st.sampled_from(["", "", "", "no"]),
    draining=st.booleans(),
)


@given(st.lists(st.one_of(candidates, st.sampled_from("abcdef")), max_size=60))
def test_the_heap_tells_what_a_look_at_everybody_would(changes: list[Candidate | str]) -> None:
    census, known = Census(), dict[str, Candidate]()
    for change in changes:
        if isinstance(change, str):
            census.remove(change)
            known.pop(change, None)
        else:
            census.put(change)
            known[change.id] = change
        for pool in ("default", "arm"):
            for repository in ("r", "nowhere"):
                free = [each for each in known.values() if each.pool == pool and each.free]
                warm = [each for each in free if repository in each.warm]
                chosen = census.choose(pool, repository)
                if warm:
                    assert chosen in warm
                elif free:
                    assert chosen is not None
                    assert chosen.busy / chosen.slots == min(each.busy / each.slots for each in free)
                else:
                    assert chosen is None

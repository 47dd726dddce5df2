"""What becomes of a replica, decided without a clock; and where fronts lead."""

from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.rpc.replica import ReplicaName, ReplicaOrder
from blacktree.runspec import Health, Port, Restart, RunSpec
from blacktree.worker import replica_machine as machine
from blacktree.worker.fence import cut_off_at
from blacktree.worker.front import Place
from blacktree.worker.fronts import Candidate, Route, routes
from blacktree.worker.replica_machine import Ended, Progress

DIED = Ended(code="exited", reason="it exited", exit_code=1)
steps = st.lists(
    st.tuples(st.sampled_from(["well", "ill", "died", "clean", "free"]), st.floats(0, 100), st.floats(0, 0.99)),
    max_size=60,
)
restarts = st.builds(
    Restart,
    on_exit=st.sampled_from(["always", "on-failure", "never"]),
    first_seconds=st.floats(0.1, 10),
    limit_seconds=st.floats(0.1, 60),
    most=st.integers(0, 5),
    window_seconds=st.floats(1, 1000),
)


@settings(max_examples=300)
@given(restarts, steps, st.integers(1, 4))
def test_whatever_happens_the_budget_holds(
    restart: Restart, some: list[tuple[str, float, float]], retries: int
) -> None:
    health = Health(retries=retries, start_seconds=5)
    now, progress, begun = 0.0, machine.started(Progress(), 0.0), []
    failed_in_a_row = 0
    for what, passed, jitter in some:
        now += passed
        end = None
        if what in ("well", "ill"):
            before = progress
            progress, end = machine.checked(progress, now, health, ok=what == "well", why="ill")
            failed_in_a_row = 0 if what == "well" else failed_in_a_row + 1
            if end is not None:
                assert progress.phase == "unhealthy"
                assert failed_in_a_row >= retries if before.was_healthy else now - before.began >= 5
            else:
                assert progress.phase in ("starting", "healthy")
                assert (progress.phase == "healthy") == progress.was_healthy
        else:
            end = {
                "died": DIED,
                "clean": Ended(code="exited", reason="it ended", exit_code=0),
                "free": Ended(code="engine_lost", reason="the engine", free=True),
            }[what]
        if end is None:
            continue
        progress = machine.ended(progress, now, restart, end, jitter)
        if progress.phase == "failed":
            assert progress.code
            assert progress.reason
            if not end.free and restart.on_exit == "always":
                within = [each for each in begun if each > now - restart.window_seconds]
                assert len(within) >= restart.most
            return
        assert progress.phase == "backing_off"
        assert end.free or restart.on_exit != "never"
        assert now < progress.next_at <= now + max(restart.limit_seconds, restart.first_seconds)
        if not end.free:
            begun.append(now)
            assert len([each for each in begun if each > now - restart.window_seconds]) <= restart.most
        now = progress.next_at
        progress = machine.started(progress, now)
        failed_in_a_row = 0


def test_the_pauses_double_up_to_the_limit_and_a_good_time_begins_anew() -> None:
    restart = Restart(first_seconds=1, limit_seconds=8, most=100, window_seconds=3600)
    now, progress, waits = 0.0, machine.started(Progress(), 0.0), []
    for _ in range(5):
        progress = machine.ended(progress, now, restart, DIED, 0.0)
        waits.append(progress.next_at - now)
        now = progress.next_at
        progress = machine.started(progress, now)
    assert waits == [1, 2, 4, 8, 8]
    progress, _ = machine.checked(progress, now, Health(), ok=True)
    now += 20
    progress = machine.ended(progress, now, restart, DIED, 0.0)
    assert progress.next_at - now == 1


def test_what_cannot_help_is_not_tried_again() -> None:
    fatal = Ended(code="volume_refused", reason="no", fatal=True)
    assert machine.ended(Progress(), 0, Restart(), fatal, 0.5).phase == "failed"
    clean = Ended(code="exited", reason="done", exit_code=0)
    assert machine.ended(Progress(), 0, Restart(on_exit="on-failure"), clean, 0.5).phase == "failed"
    assert machine.ended(Progress(), 0, Restart(on_exit="on-failure"), DIED, 0.5).phase == "backing_off"


@given(st.floats(10, 86400), st.floats(0, 1e6))
def test_cut_off_comes_before_the_successor(seconds: float, sent: float) -> None:
    at = cut_off_at(sent, seconds)
    assert sent + seconds / 2 - 1e-6 < at < sent + seconds - 5.0 + 1e-6


def an_order(
    version: int, index: int = 0, *, serve: bool = True, deployment: str = "shop", port: int = 1
) -> ReplicaOrder:
    return ReplicaOrder(
        name=ReplicaName(deployment=deployment, version=version, index=index),
        generation=1,
        image="a",
        run=RunSpec(name=deployment, ports=[Port(container=80, host=port)]),
        serve=serve,
    )


def well(order: ReplicaOrder) -> Candidate:
    return Candidate(order, {80: ("127.0.0.1", 1000 + 10 * order.name.version + order.name.index)})


def ill(order: ReplicaOrder) -> Candidate:
    return Candidate(order, {})


FRONT = ("127.0.0.1", 1)


def ports(found: dict[tuple[str, int], Route]) -> list[int]:
    return [place.port for place in found[FRONT].places]


def test_fronts_lead_to_all_that_serve_and_are_well() -> None:
    found, refused = routes([well(an_order(1, 0)), well(an_order(1, 1)), ill(an_order(1, 2))], {})
    assert ports(found) == [1010, 1011]
    assert not refused
    assert routes([well(an_order(1, serve=False))], {}) == ({}, set())


def test_a_switch_is_one_step_and_falls_back_while_the_new_one_is_ill() -> None:
    old, new = an_order(1, serve=False), an_order(2)
    before, _ = routes([well(an_order(1))], {})
    assert ports(routes([well(old), well(new)], before)[0]) == [1020]
    fallen, _ = routes([well(old), ill(new)], before)
    assert ports(fallen) == [1010]
    assert ports(routes([well(old), well(new)], fallen)[0]) == [1020]
    assert ports(routes([ill(old), ill(new)], before)[0]) == []
    # The port stays open and waits, as long as somebody should serve.
    assert ports(routes([ill(new)], before)[0]) == []


def test_a_port_belongs_to_who_has_it() -> None:
    first, _ = routes([well(an_order(1, deployment="b"))], {})
    both = [well(an_order(1, deployment="a")), well(an_order(1, deployment="b"))]
    found, refused = routes(both, first)
    assert found[FRONT].deployment == "b"
    assert refused == {"a"}
    assert routes(both, {})[0][FRONT].deployment == "a"


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.booleans(), st.booleans()), max_size=12))
def test_fronts_never_lead_to_who_cannot_take_connections(some: list[tuple[int, int, bool, bool]]) -> None:
    before: dict[tuple[str, int], Route] = {}
    for at in range(len(some)):
        candidates = {
            (version, index): (well if healthy else ill)(an_order(version, index, serve=serve))
            for version, index, serve, healthy in some[: at + 1]
        }
        before, _ = routes(candidates.values(), before)
        living = {place for each in candidates.values() for place in _places(each)}
        for route in before.values():
            assert set(route.places) <= living
        if any(each.order.serve and each.ports for each in candidates.values()):
            serving = {place for each in candidates.values() if each.order.serve for place in _places(each)}
            assert set(before[FRONT].places) == serving


def _places(candidate: Candidate) -> list[Place]:
    return [Place((candidate.order.name, 1), *place) for place in candidate.ports.values()]

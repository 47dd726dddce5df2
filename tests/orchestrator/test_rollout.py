"""The pure machine of deployments, by examples and by random histories."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.deployment import MOVES, Deployment, Version, VersionState
from blacktree.errors import Conflict, NotFound
from blacktree.event import Notice, StateChanged
from blacktree.orchestrator import releases
from blacktree.orchestrator.evacuation import outlook
from blacktree.orchestrator.orders import plans
from blacktree.orchestrator.placement import Land, WorkerFact, survey
from blacktree.orchestrator.rollout import advance
from blacktree.rpc.replica import ReplicaName, ReplicaState
from blacktree.runspec import Port, RunSpec, Strategy, Volume

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """Workers that do at once what they are ordered, as far as the test lets them, and a clock."""

    def __init__(self, *workers: str, **run: Any) -> None:
        self.now = T0
        self.workers = list(workers or ("w1",))
        self.silent: dict[str, float] = {}
        self.states: dict[str, dict[ReplicaName, ReplicaState]] = {each: {} for each in self.workers}
        self.stale: set[str] = set()
        self.draining: set[str] = set()
        self.behaviour: dict[int, dict[str, Any]] = {}
        self.deployments: dict[str, Deployment] = {}
        self.run = run

    def spec(self, name: str = "web", **changes: Any) -> RunSpec:
        given = {"strategy": Strategy(drain_seconds=5), **self.run, **changes}
        return RunSpec(name=name, **given)

    @property
    def web(self) -> Deployment:
        return self.deployments["web"]

    def deploy(self, name: str = "web", *, image: str = "app", pull: bool = True, **changes: Any) -> int:
        worker_id = None if pull else changes.pop("worker_id", "w1")
        version = Version(
            number=0,
            run=self.spec(name, **changes),
            created_at=self.now,
            image=image,
            pull=pull,
            worker_id=worker_id,
        )
        before = self.deployments.get(name) or releases.new(name, self.now)
        self.deployments[name] = releases.add(before, version, self.now)
        return self.deployments[name].next_version - 1

    def facts(self) -> dict[str, WorkerFact]:
        return {
            each: WorkerFact(
                id=each,
                alive=each not in self.silent,
                draining=each in self.draining and each not in self.silent,
                silent_seconds=self.silent.get(each, 0.0),
                current=each not in self.stale,
                states=self.states[each] if each not in self.silent else {},
            )
            for each in self.workers
        }

    def decide(self) -> None:
        for name in list(self.deployments):
            for _ in range(20):
                land = survey(self.deployments.values(), name)
                before = self.deployments[name]
                after = advance(before, self.facts(), land, self.now)
                self.deployments[name] = after
                if after is before:
                    break
                check(before, after)
            else:
                raise AssertionError("it does not come to rest")

    def obey(self) -> None:
        """Every worker that is here does what it is told."""
        wanted = plans(self.deployments.values())
        for worker_id in self.workers:
            if worker_id in self.silent:
                continue
            told: dict[ReplicaName, ReplicaState] = {}
            for plan in wanted.get(worker_id, []):
                before = self.states[worker_id].get(plan.name)
                how = self.behaviour.get(plan.name.version, {"state": "healthy"})
                fresh = before is None or before.generation != plan.generation
                told[plan.name] = ReplicaState(
                    name=plan.name,
                    generation=plan.generation,
                    since=self.now if fresh or before is None else before.since,
                    serving=plan.serve,
                    **how,
                )
            self.states[worker_id] = told

    def settle(self, seconds: float = 0.0) -> None:
        """Let everything that follows happen, and then so many seconds pass, and what follows from that."""
        for _ in range(12):
            self.decide()
            self.obey()
        if seconds:
            self.now += timedelta(seconds=seconds)
            self.settle()

    def state(self, number: int) -> str:
        version = self.web.version(number)
        assert version is not None
        return version.state

    def reason(self, number: int) -> str:
        version = self.web.version(number)
        assert version is not None
        return version.reason


def check(before: Deployment, after: Deployment) -> None:
    """What holds at every step."""
    for version in after.versions:
        earlier = before.version(version.number)
        if earlier is not None and earlier.state is not version.state:
            assert version.state in MOVES[earlier.state], (earlier.state, version.state)
    for number in (after.serving, after.target):
        assert number is None or after.version(number) is not None
    assert after.serving is None or after.version(after.serving).state is VersionState.RUNNING
    assert after.target is None or after.version(after.target).state is VersionState.BUILT
    served = {plan.name.version for some in plans([after]).values() for plan in some if plan.serve}
    assert len(served) <= 1
    for incoming in (False, True):
        rows = [each for each in after.placements if not each.stopping and each.incoming is incoming]
        live = [(each.version, each.index) for each in rows]
        assert len(live) == len(set(live)), "one replica in two places"
    where = [(each.version, each.index, each.worker_id) for each in after.placements if not each.stopping]
    assert len(where) == len(set(where)), "one replica twice on a worker"
    numbers = [each.number for each in after.happenings]
    assert numbers == sorted(set(numbers))


def test_a_first_version_comes_up_and_serves() -> None:
    world = World()
    assert world.deploy() == 1
    world.settle()
    assert (world.web.serving, world.web.target, world.state(1)) == (1, None, "running")
    moves = [each.record.to for each in world.web.happenings if isinstance(each.record, StateChanged)]
    assert moves == ["pending", "built", "running"]


def test_the_old_version_serves_until_the_new_one_is_healthy_and_then_drains() -> None:
    world = World()
    world.deploy()
    world.settle()
    world.behaviour[2] = {"state": "starting"}
    world.deploy()
    world.settle()
    assert (world.web.serving, world.web.target) == (1, 2)
    world.behaviour[2] = {"state": "healthy"}
    world.settle()
    assert (world.web.serving, world.web.target) == (2, None)
    assert {plan.name.version: plan.serve for plan in plans([world.web])["w1"]} == {1: False, 2: True}
    assert world.state(1) == "running"
    world.settle(6)
    assert world.state(1) == "stopped"
    assert world.reason(1) == "replaced by version 2"
    assert [plan.name.version for plan in plans([world.web])["w1"]] == [2]


def test_it_must_stay_healthy_to_take_over() -> None:
    world = World(strategy=Strategy(settle_seconds=10))
    world.deploy()
    world.settle()
    assert world.web.serving is None
    world.settle(11)
    assert world.web.serving == 1


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"state": "failed", "code": "image_missing", "reason": "no such image"}, "image_missing"),
        ({"state": "unhealthy", "reason": "GET / answered 500"}, "unhealthy"),
        ({"state": "backing_off", "restarts": 2, "exit_code": 3}, "exited"),
        ({"state": "backing_off", "oom_killed": True, "exit_code": 137}, "oom_killed"),
    ],
)
def test_a_version_that_breaks_while_it_starts_fails_and_the_old_one_serves_on(how: dict[str, Any], code: str) -> None:
    world = World()
    world.deploy()
    world.settle()
    world.behaviour[2] = {**how, "last_lines": ["first", "last words"]}
    world.deploy()
    world.settle()
    assert (world.web.serving, world.web.target, world.state(2)) == (1, None, "failed")
    version = world.web.version(2)
    assert version is not None
    assert version.last_lines[-1] == "last words"
    assert version.code == code
    assert [plan.name.version for plan in plans([world.web])["w1"]] == [1]


def test_a_first_crash_is_forgiven() -> None:
    world = World()
    world.behaviour[1] = {"state": "backing_off", "restarts": 0, "exit_code": 1}
    world.deploy()
    world.settle()
    assert world.state(1) == "built"
    world.behaviour[1] = {"state": "healthy", "restarts": 1, "exit_code": 1}
    world.settle()
    assert world.state(1) == "running"


@pytest.mark.parametrize("how", [{"state": "unhealthy"}, {"state": "backing_off"}, {"state": "healthy", "restarts": 1}])
def test_one_that_breaks_after_the_switch_gives_back_while_the_old_one_is_there(how: dict[str, Any]) -> None:
    world = World()
    world.deploy()
    world.settle()
    world.deploy()
    world.settle()
    assert world.web.serving == 2
    world.behaviour[2] = how
    world.settle()
    assert (world.web.serving, world.state(2), world.state(1)) == (1, "failed", "running")
    world.settle(60)
    assert (world.web.serving, world.state(1)) == (1, "running")


def test_one_that_uses_up_its_restarts_later_fails_and_nothing_old_is_started() -> None:
    world = World()
    world.deploy()
    world.settle()
    world.deploy()
    world.settle(10)
    world.behaviour[2] = {"state": "backing_off", "restarts": 4}
    world.settle()
    assert (world.web.serving, world.state(2)) == (2, "running")
    world.behaviour[2] = {"state": "failed", "code": "budget_used_up", "reason": "10 restarts", "last_lines": ["bye"]}
    world.settle()
    assert (world.web.serving, world.state(2), world.state(1)) == (None, "failed", "stopped")
    assert world.web.state == "failed"


def test_one_of_two_replicas_may_fail() -> None:
    world = World("w1", "w2", replicas=2)
    world.deploy()
    world.settle()
    assert {each.worker_id for each in world.web.placements} == {"w1", "w2"}
    name = ReplicaName(deployment="web", version=1, index=0)
    where = next(each.worker_id for each in world.web.placements if each.index == 0)
    world.states[where][name] = msgspec.structs.replace(world.states[where][name], state="failed")
    world.decide()
    assert (world.web.serving, world.state(1)) == (1, "running")


def test_recreate_stops_the_old_one_first() -> None:
    world = World(strategy=Strategy(kind="recreate"))
    world.deploy()
    world.settle()
    world.deploy()
    world.decide()
    assert world.web.serving is None
    assert plans([world.web]) == {}
    world.settle()
    assert (world.web.serving, world.state(1)) == (2, "stopped")


@pytest.mark.parametrize(("failover", "serving"), [(None, None), (100.0, 2)])
def test_recreate_starts_no_second_copy_beside_one_on_a_silent_worker(
    failover: float | None, serving: int | None
) -> None:
    """Only a worker that has to stop it by itself, for want of contact, may be taken to have done so."""
    world = World("w1", "w2", strategy=Strategy(kind="recreate"), failover_seconds=failover)
    world.deploy()
    world.settle()
    world.silent[world.web.placements[0].worker_id] = 99
    world.deploy()
    world.settle()
    assert (world.web.serving, len(world.web.placements)) == (None, 1)
    world.silent = dict.fromkeys(world.silent, 1e6)
    world.settle()
    assert world.web.serving == serving


def test_recreate_stops_nothing_for_a_version_that_fits_nowhere() -> None:
    world = World(strategy=Strategy(kind="recreate"))
    world.deploy()
    world.deploy("other", ports=[Port(container=80, host=8080)])
    world.settle()
    world.deploy(ports=[Port(container=80, host=8080)])
    world.settle()
    assert (world.web.serving, world.state(2)) == (1, "failed")
    assert world.reason(2) == "port 127.0.0.1:8080 on worker w1 belongs to deployment other"


def test_a_taken_port_fails_the_version_and_one_that_is_given_up_is_waited_for() -> None:
    world = World()
    port = [Port(container=80, host=8080)]
    world.deploy("other", ports=port)
    world.settle()
    world.deploy(ports=[Port(container=81, host=8080, address="0.0.0.0")])
    world.settle()
    assert world.state(1) == "failed"
    world.deployments["other"] = releases.stop(world.deployments["other"], world.now)
    world.stale.add("w1")
    world.decide()
    world.deploy(ports=port)
    world.decide()
    assert world.state(2) == "built"
    world.stale.clear()
    world.obey()
    world.settle()
    assert world.state(2) == "running"


def test_an_image_that_was_not_pushed_runs_where_it_was_built_or_waits() -> None:
    world = World("w1", "w2", "w3")
    world.deploy(pull=False, worker_id="w3", replicas=3)
    world.settle()
    assert {each.worker_id for each in world.web.placements} == {"w3"}
    world.silent["w3"] = 1e6
    world.deploy(pull=False, worker_id="w3", failover_seconds=10)
    world.settle()
    assert (world.web.serving, world.state(2)) == (1, "built")


def test_a_silent_worker_loses_its_replicas_only_where_that_is_asked_for() -> None:
    for patience, moved in ((30.0, True), (None, False)):
        world = World("w1", "w2", failover_seconds=patience)
        world.deploy()
        world.settle()
        first = world.web.placements[0]
        world.silent[first.worker_id] = 29
        world.settle()
        assert world.web.placements[0].worker_id == first.worker_id
        world.silent[first.worker_id] = 31
        world.settle()
        place = world.web.placements[0]
        assert (place.worker_id != first.worker_id) is moved
        assert (place.generation > first.generation) is moved
        # It comes back: what it is told is the complete list, and that names the replica once.
        world.silent.clear()
        world.settle()
        assert sum(len(some) for some in world.states.values()) == 1
        assert world.web.serving == 1


def places(world: World) -> list[tuple[str, bool, bool]]:
    return [(each.worker_id, each.incoming, each.stopping) for each in world.web.placements]


def test_what_a_drained_worker_runs_moves_beside_then_instead() -> None:
    world = World("w1", "w2", strategy=Strategy(drain_seconds=5, settle_seconds=3))
    world.deploy()
    world.settle(4)
    world.draining.add("w1")
    world.decide()
    assert places(world) == [("w1", False, False), ("w2", True, False)]
    # Both are ordered, and both may serve; the old one ends when the new one is healthy and has stayed so.
    world.settle()
    assert [len(world.states[each]) for each in ("w1", "w2")] == [1, 1]
    world.now += timedelta(seconds=4)
    world.decide()
    assert places(world) == [("w1", False, True), ("w2", False, False)]
    world.settle()
    assert places(world) == [("w2", False, False)]
    assert [each.record.code for each in world.web.happenings if isinstance(each.record, Notice)] == ["move", "moved"]
    assert world.web.serving == 1


def test_what_must_not_run_twice_ends_before_it_begins_elsewhere() -> None:
    world = World("w1", "w2", strategy=Strategy(kind="recreate"))
    world.deploy()
    world.settle()
    world.draining.add("w1")
    world.decide()
    assert places(world) == [("w1", False, True)]
    world.stale.add("w1")
    world.settle()
    assert places(world) == [("w1", False, True)]
    world.stale.clear()
    world.settle()
    assert places(world) == [("w2", False, False)]
    assert world.web.serving == 1


def test_a_silent_worker_may_still_run_what_must_not_run_twice() -> None:
    world = World("w1", "w2", strategy=Strategy(kind="recreate"))
    world.deploy()
    world.settle()
    world.draining.add("w1")
    world.decide()
    world.silent["w1"] = 1e6
    world.settle()
    assert places(world) == [("w1", False, True)]
    world.silent.clear()
    world.settle()
    assert places(world) == [("w2", False, False)]


@pytest.mark.parametrize("end", ["undo", "lost"])
def test_a_move_is_called_off(end: str) -> None:
    """When the old worker may keep it after all, or the new one is gone."""
    world = World("w1", "w2")
    world.deploy()
    world.settle()
    world.behaviour[1] = {"state": "starting"}
    world.draining.add("w1")
    world.decide()
    assert len(places(world)) == 2
    if end == "undo":
        world.draining.clear()
    else:
        world.silent["w2"] = 100
    world.behaviour.clear()
    world.settle(100)
    assert places(world) == [("w1", False, False)]
    world.silent.clear()
    world.settle()
    assert places(world) == [("w1" if end == "undo" else "w2", False, False)]


def test_one_that_does_not_come_up_elsewhere_stays_and_is_not_tried_there_again() -> None:
    world = World("w1", "w2")
    world.deploy()
    world.settle()
    world.draining.add("w1")
    world.decide()
    world.obey()
    name = ReplicaName(deployment="web", version=1, index=0)
    world.states["w2"][name] = msgspec.structs.replace(world.states["w2"][name], state="failed", reason="no such disk")
    world.decide()
    world.settle()
    assert places(world) == [("w1", False, False)]
    assert (world.web.serving, world.state(1)) == (1, "running")
    (row,) = outlook([world.web], world.facts(), "w1")
    assert (row.to, row.reason) == ("", "it did not become healthy on w2, and nobody else can take it")


def test_a_drain_and_a_failover_are_one_move() -> None:
    world = World("w1", "w2", "w3", failover_seconds=30.0)
    world.deploy()
    world.settle()
    world.draining.add("w1")
    world.decide()
    world.silent["w1"] = 31
    world.decide()
    assert places(world) == [("w2", False, False)]
    world.settle()
    assert places(world) == [("w2", False, False)]


def test_what_a_drained_worker_keeps_and_why() -> None:
    world = World("w1", "w2")
    world.deploy("near", pull=False, worker_id="w1")
    world.deploy("data", volumes=[Volume(source="shop-data", target="/data")])
    world.deploy("movable", volumes=[Volume(source="cache", target="/data")], failover_seconds=60)
    world.deploy("port", ports=[Port(container=80, host=8080)])
    world.deploy("other", ports=[Port(container=80, host=8080)])
    for _ in range(4):
        world.settle()
    # Only w1 has them all: everything else is asked whether it could go to w2.
    for name, deployment in world.deployments.items():
        moved = [msgspec.structs.replace(each, worker_id="w1") for each in deployment.placements]
        world.deployments[name] = msgspec.structs.replace(deployment, placements=moved)
    world.draining.add("w1")
    rows = {each.deployment: each for each in outlook(world.deployments.values(), world.facts(), "w1")}
    assert rows["near"].reason == "its image is only on this worker; push the image to let it run elsewhere"
    assert rows["data"].reason == "its volumes are on this worker; with `failover_seconds` it may start without them"
    assert (rows["movable"].to, rows["port"].to) == ("w2", "w2")
    world.draining.add("w2")
    (row, *_) = [each for each in outlook(world.deployments.values(), world.facts(), "w1") if each.deployment == "port"]
    assert row.reason == "no other worker in pool `default` can take it"
    assert outlook(world.deployments.values(), world.facts(), "w2") == []


def test_spans_are_measured_on_a_clock_that_nobody_sets() -> None:
    """The wall clock jumps by a day, to and fro: nothing is late, and what stands by does so for its five seconds."""
    world = World(strategy=Strategy(drain_seconds=5, settle_seconds=2))
    world.deploy()
    world.behaviour[1] = {"state": "starting"}
    world.settle()
    day = timedelta(days=1)
    web = advance(world.web, world.facts(), Land(), world.now + day, world.now)
    assert web.versions[0].state == "built"
    assert advance(world.web, world.facts(), Land(), world.now, world.now + day).versions[0].state == "failed"


def test_a_clock_set_back_between_two_starts_lengthens_nothing() -> None:
    world = World(strategy=Strategy(drain_seconds=5, settle_seconds=2))
    world.deploy()
    world.settle(3)
    world.deploy()
    world.settle(3)
    assert (world.web.serving, world.state(1)) == (2, "running")
    world.now -= timedelta(days=1)
    world.settle(6)
    assert (world.web.serving, world.state(1)) == (2, "stopped")
    assert all(each.healthy_at is None or each.healthy_at <= world.now for each in world.web.placements)


def test_stop_restart_and_rollback() -> None:
    world = World()
    world.deploy(image="one")
    world.settle()
    world.deploy(image="two")
    world.settle(10)
    world.deployments["web"] = releases.rollback(world.web, None, world.now)
    world.settle(10)
    version = world.web.version(3)
    assert version is not None
    assert (world.web.serving, version.image, version.rollback_of) == (3, "one", 1)
    generation = world.web.placements[0].generation
    world.deployments["web"] = releases.restart(world.web, world.now)
    world.settle()
    assert world.web.placements[0].generation == generation + 1
    world.deployments["web"] = releases.stop(world.web, world.now)
    world.settle()
    assert (world.web.serving, world.state(3), world.web.placements) == (None, "stopped", [])
    world.deployments["web"] = releases.restart(world.web, world.now)
    world.settle()
    assert (world.web.serving, world.state(3)) == (3, "running")
    assert world.web.placements[0].generation == generation + 2
    with pytest.raises(NotFound):
        releases.rollback(world.web, 99, world.now)


def _taken_back() -> World:
    """Versions 1 and 2 ran, 3 took over and broke, 2 serves again."""
    world = World()
    for image in ("one", "two"):
        world.deploy(image=image)
        world.settle(10)
    world.deploy(image="three")
    world.settle()
    assert world.web.serving == 3
    world.now += timedelta(seconds=1)
    world.behaviour[3] = {"state": "backing_off", "restarts": 1}
    world.settle()
    assert (world.web.serving, world.state(3)) == (2, "failed")
    return world


def test_an_engine_that_restarts_in_the_middle_of_a_switch_fails_no_version() -> None:
    world = World(strategy=Strategy(drain_seconds=5, settle_seconds=5))
    world.deploy(image="one")
    world.settle(10)
    world.deploy(image="two")
    world.settle(1)
    world.behaviour = {each: {"state": "backing_off", "code": "engine_lost"} for each in (1, 2)}
    world.settle(1)
    assert (world.web.serving, world.web.target, world.state(2)) == (1, 2, "built")
    world.behaviour = {}
    world.settle(1)
    assert world.web.serving == 1
    world.settle(5)
    assert (world.web.serving, world.state(2)) == (2, "running")
    # Nor is what stands by taken back.
    world.behaviour = {each: {"state": "backing_off", "code": "engine_lost"} for each in (1, 2)}
    world.settle(1)
    assert (world.web.serving, world.state(2)) == (2, "running")


def test_a_rollback_never_goes_to_what_took_over_and_broke() -> None:
    world = _taken_back()
    back = releases.rollback(world.web, None, world.now)
    assert back.versions[-1].image == "one"


def test_a_rollback_of_what_failed_for_good_goes_to_the_one_before() -> None:
    world = World()
    world.deploy(image="one")
    world.settle(10)
    world.deploy(image="two")
    world.settle(10)
    world.behaviour[2] = {"state": "failed"}
    world.settle()
    assert (world.web.serving, world.state(2)) == (None, "failed")
    assert releases.rollback(world.web, None, world.now).versions[-1].image == "one"
    world.deployments["web"] = releases.restart(world.web, world.now)
    assert world.web.target == 2


def test_what_was_taken_back_is_what_a_restart_after_a_stop_starts() -> None:
    world = _taken_back()
    world.deployments["web"] = releases.stop(world.web, world.now)
    world.settle()
    assert releases.restart(world.web, world.now).target == 2


def test_a_restart_goes_replica_by_replica() -> None:
    world = World(replicas=3)
    world.deploy()
    world.settle()
    before = {each.index: each.generation for each in world.web.placements}
    world.deployments["web"] = releases.restart(world.web, world.now)
    for index in range(3):
        world.decide()
        now = {each.index: each.generation for each in world.web.placements}
        assert [each for each in before if now[each] != before[each]] == list(range(index + 1))
        world.obey()


def test_what_a_build_leads_to() -> None:
    world = World()
    world.deploy(image="")
    world.deploy(image="")
    assert (world.state(1), world.state(2)) == ("pending", "pending")
    world.deployments["web"] = releases.built(world.web, 2, world.now, image="b", pull=True)
    world.settle()
    world.deployments["web"] = releases.built(world.web, 1, world.now, image="a", pull=True)
    world.settle()
    assert (world.web.serving, world.state(1), world.reason(1)) == (2, "stopped", "superseded by version 2")
    world.deployments["web"] = releases.not_built(world.web, world.deploy(image=""), world.now, None)
    world.deployments["web"] = releases.stop(world.web, world.now)
    number = world.deploy(image="")
    world.deployments["web"] = releases.stop(world.web, world.now)
    world.settle()
    assert world.state(number) == "stopped"


def test_there_is_nothing_to_start_or_to_go_back_to() -> None:
    world = World()
    world.deploy(image="")
    with pytest.raises(Conflict):
        releases.restart(releases.stop(world.web, world.now), world.now)
    with pytest.raises(Conflict):
        releases.rollback(world.web, None, world.now)
    with pytest.raises(Conflict):
        releases.rollback(world.web, 1, world.now)


def test_old_versions_are_dropped_and_never_those_in_use() -> None:
    world = World()
    world.deploy()
    world.settle()
    for _ in range(40):
        world.behaviour[world.deploy()] = {"state": "failed"}
        world.settle()
    assert len(world.web.versions) <= 20
    assert world.web.version(1) is not None
    assert world.web.serving == 1


STATES = ["pulling", "starting", "healthy", "unhealthy", "backing_off", "failed"]
EVENTS = st.one_of(
    st.tuples(st.just("deploy"), st.booleans(), st.integers(1, 2)),
    st.tuples(st.just("behave"), st.integers(1, 6), st.sampled_from(STATES), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 3.0, 8.0, 40.0])),
    st.tuples(st.just("obey")),
    st.tuples(st.just("lose"), st.sampled_from(["w1", "w2"]), st.sampled_from([5.0, 100.0])),
    st.tuples(st.just("return"), st.sampled_from(["w1", "w2"])),
    st.tuples(st.sampled_from(["drain", "undo"]), st.sampled_from(["w1", "w2"])),
    st.tuples(st.sampled_from(["stop", "restart", "rollback"])),
)


@given(
    kind=st.sampled_from(["replace", "recreate"]),
    failover=st.sampled_from([None, 20.0]),
    events=st.lists(EVENTS, max_size=30),
)
@settings(max_examples=250)
def test_whatever_happens_it_keeps_its_rules_and_comes_to_rest(
    kind: Any, failover: float | None, events: list[tuple[Any, ...]]
) -> None:
    world = World(
        "w1", "w2", failover_seconds=failover, strategy=Strategy(kind=kind, drain_seconds=5, settle_seconds=1)
    )
    world.deploy()
    world.settle(2)
    for event in events:
        match event:
            case ("deploy", pull, replicas):
                world.deploy(pull=pull, replicas=replicas)
            case ("behave", version, state, restarts, oom):
                world.behaviour[version] = {"state": state, "restarts": restarts, "oom_killed": oom}
            case ("pass", seconds):
                world.now += timedelta(seconds=seconds)
            case ("obey",):
                world.obey()
            case ("lose", worker_id, seconds):
                world.silent[worker_id] = seconds
            case ("return", worker_id):
                world.silent.pop(worker_id, None)
            case ("drain", worker_id):
                world.draining.add(worker_id)
            case ("undo", worker_id):
                world.draining.discard(worker_id)
            case (command,):
                try:
                    after = {
                        "stop": lambda: releases.stop(world.web, world.now),
                        "restart": lambda: releases.restart(world.web, world.now),
                        "rollback": lambda: releases.rollback(world.web, None, world.now),
                    }[command]()
                except Conflict:
                    continue
                world.deployments["web"] = after
        served = served_and_healthy(world)
        world.decide()
        if kind == "recreate":
            assert_no_second_copy(world, failover)
        if kind == "replace" and served and world.web.desired == "running" and "lose" not in event:
            assert world.web.serving is not None, "stopped although it was healthy"
    # Everybody behaves and is here: it ends as it is meant to be.
    world.silent.clear()
    world.draining.clear()
    world.behaviour.clear()
    world.settle(2)
    world.settle(10)
    assert not world.web.moving
    if world.web.desired == "stopped":
        assert world.web.placements == []
    for name, state in [(n, s) for some in world.states.values() for n, s in some.items()]:
        assert (name.version == world.web.serving) is state.serving
    assert all(each.state in ("running", "stopped", "failed", "pending") for each in world.web.versions)


def assert_no_second_copy(world: World, failover: float | None) -> None:
    """What must not run twice is ordered once: nothing of it is wanted while anything else of it may run."""
    wanted = [(each.version, each.index) for each in world.web.placements if not each.stopping]
    going = [each for each in world.web.placements if each.stopping]
    assert len(wanted) == len(set(wanted))
    for each in going:
        assert (each.version, each.index) not in wanted, "a second copy"


def served_and_healthy(world: World) -> bool:
    """Whether a version serves of which nothing bad is known."""
    number = world.web.serving
    facts = world.facts()
    seen = [
        facts[each.worker_id].states.get(ReplicaName(deployment="web", version=each.version, index=each.index))
        for each in world.web.placements
        if each.version == number and not each.stopping
    ]
    return number is not None and bool(seen) and all(each and each.state == "healthy" for each in seen)


def test_nothing_to_do_answers_the_very_object() -> None:
    world = World()
    world.deploy()
    world.settle()
    assert advance(world.web, world.facts(), Land(), world.now + timedelta(days=1)) is world.web

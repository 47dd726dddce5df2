"""Deployments through a real orchestrator: orders, reports, logs, builds, and what a restart finds."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from blacktree.api.deploymentlog import watch_deployment
from blacktree.cipher import Locked, new_key
from blacktree.clock import new_id, now
from blacktree.concurrency.threads import in_thread
from blacktree.deployment import DeployImage, Deployment, Version
from blacktree.errors import BadRequest, Conflict, NotFound, StorageFailed, TooLarge
from blacktree.job import Image, Job, JobState, Origin, Outcome
from blacktree.orchestrator.deploymentcontrol import DeploymentView
from blacktree.orchestrator.orders import Plan
from blacktree.rpc.replica import ReplicaName
from blacktree.runspec import Port, RunSpec, Strategy, Volume
from blacktree.secret import SecretKind
from blacktree.source import Source
from blacktree.spec import JobSpec
from tests.orchestrator.conftest import TOKEN, House, open_house
from tests.parts.rabbit import shared_node
from tests.parts.stranger import Stranger
from tests.parts.toy_replicas import ToyReplicas

QUICK = Strategy(drain_seconds=0.1)


def a_run(name: str = "web", **changes: Any) -> RunSpec:
    return RunSpec(name=name, **{"strategy": QUICK, **changes})


async def a_worker(house: House, *args: Any, **options: Any) -> ToyReplicas:
    worker = ToyReplicas(*args, **options)
    await house.nursery.start(worker.run, house.address, TOKEN, house.directory)
    while any(view.id == worker.id and "reached" in view.refusal for view in house.control.workers()):
        await trio.sleep(0.005)
    return worker


async def deploy(house: House, image: str = "registry.example/app:1", **changes: Any) -> int:
    done = await house.control.deployments.deploy(DeployImage(image=image, run=a_run(**changes)))
    return done.version


async def until(house: House, fits: Any, name: str = "web") -> DeploymentView:
    """The deployment, once it is as wished."""
    version = 0
    view = await house.control.deployments.get(name)
    with trio.move_on_after(40):
        while not fits(view):
            version = await house.control.deployments.wait_changed(version)
            view = await house.control.deployments.get(name)
        return view
    raise AssertionError(f"still {msgspec.to_builtins(view)}")


def state(view: DeploymentView, number: int) -> str:
    version = view.deployment.version(number)
    return version.state if version is not None else "gone"


async def events(house: House, name: str = "web", from_seq: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while (piece := await house.control.deployments.events(name, from_seq, 1000)).count:
        found += msgspec.json.decode(b"[" + piece.body + b"]")
        from_seq = piece.next_seq
    return found


async def until_event(house: House, fits: Any, name: str = "web") -> list[dict[str, Any]]:
    with trio.fail_after(40):
        while not any(map(fits, found := await events(house, name))):
            await trio.sleep(0.02)
        return found


async def test_an_image_is_deployed_replaced_and_stopped(house: House) -> None:
    worker = await a_worker(house)
    assert await deploy(house) == 1
    view = await until(house, lambda view: view.deployment.serving == 1 and view.replicas[0].serving)
    order = worker.order(1)
    assert order is not None
    assert (order.image, order.pull, order.serve) == ("registry.example/app:1", True, True)
    assert view.replicas[0].state == "healthy"
    await deploy(house, "registry.example/app:2")
    await until(house, lambda view: state(view, 1) == "stopped")
    assert worker.order(1) is None
    assert all(len(served) <= 1 for served in worker.history)
    stopped = await house.control.deployments.stop("web")
    assert (stopped.deployment.state, stopped.replicas) == ("stopped", [])
    assert worker.orders_given.orders == []
    found = await until_event(house, lambda event: event.get("to") == "stopped" and event["attempt"] == 2)
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    moves = [(event["attempt"], event["to"]) for event in found if event["type"] == "state"]
    assert moves == [
        (1, "pending"), (1, "built"), (1, "running"),
        (2, "pending"), (2, "built"), (2, "running"),
        (1, "stopped"), (2, "stopped"),
    ]  # fmt: skip
    told = [event.type for event in await house.control.farm_events(1, 100)]
    assert told.count("deployment_running") == 2
    assert house.control.figures()["deployments"]["stopped"] == 1


async def test_a_version_that_breaks_leaves_the_old_one_alone(house: House) -> None:
    worker = await a_worker(house)
    await deploy(house)
    await until(house, lambda view: view.deployment.serving == 1)
    worker.fare(2, state="failed", reason="no such file", exit_code=127, last_lines=["sh: app: not found"])
    await deploy(house, "registry.example/app:2")
    view = await until(house, lambda view: state(view, 2) == "failed")
    version = view.deployment.version(2)
    assert version is not None
    assert (version.reason, version.last_lines) == ("no such file", ["sh: app: not found"])
    assert view.deployment.serving == 1
    assert all(served <= {1} for served in worker.history)


async def test_a_job_with_run_becomes_a_version(house: House) -> None:
    worker = await a_worker(house)
    other = await a_worker(house)
    done = await house.control.deployments.deploy(JobSpec(repository="https://x/y", run=a_run()))
    assert done.job_id is not None
    assert state(done.view, 1) == "pending"
    builder = worker
    with trio.fail_after(40):
        while not (worker.held or other.held):
            await trio.sleep(0.01)
    builder, idle = (worker, other) if worker.held else (other, worker)
    assignment = await builder.next_assignment()
    await builder.end(assignment, Outcome(state="succeeded", image=Image(reference="y:abc", id="sha256:" + "1" * 64)))
    view = await until(house, lambda view: view.deployment.serving == 1)
    assert view.replicas[0].worker_id == builder.id
    order = builder.order(1)
    assert order is not None
    assert (order.image, order.pull) == ("sha256:" + "1" * 64, False)
    assert idle.orders_given.orders == []
    # The name that the build gave it leads to the same image, on the same worker.
    await deploy(house, "y:abc")
    await until(house, lambda view: view.deployment.serving == 2)
    assert builder.order(2) is not None


async def test_a_pushed_image_is_pulled_by_its_digest(house: House) -> None:
    worker = await a_worker(house)
    await house.submit(run=a_run())
    image = Image(reference="registry.example:5000/app:v1", id="sha256:00", digest="sha256:" + "a" * 64)
    await worker.end(await worker.next_assignment(), Outcome(state="succeeded", image=image))
    await until(house, lambda view: view.deployment.serving == 1)
    order = worker.order(1)
    assert order is not None
    assert (order.image, order.pull) == ("registry.example:5000/app@sha256:" + "a" * 64, True)


async def test_a_build_that_fails_is_a_version_that_failed(house: House) -> None:
    from tests.parts.toy_worker import failed

    worker = await a_worker(house)
    job_id = await house.submit(run=a_run())
    await worker.end(await worker.next_assignment(), failed())
    view = await until(house, lambda view: state(view, 1) == "failed")
    version = view.deployment.version(1)
    assert version is not None
    assert version.reason == f"its build {job_id} failed: as the test wants"
    with pytest.raises(Conflict):
        await house.control.deployments.restart("web")


async def test_the_same_submission_again_makes_no_second_version(house: House) -> None:
    spec = JobSpec(repository="https://x/y", run=a_run())
    first = await house.control.deployments.deploy(spec, key="k")
    again = await house.control.deployments.deploy(spec, key="k")
    assert (first.version, first.new, again.new) == (1, True, False)
    assert again.version == 1
    assert len(again.view.deployment.versions) == 1
    with pytest.raises(Conflict):
        await house.control.deployments.deploy(JobSpec(repository="https://x/z", run=a_run("other")), key="k")
    with pytest.raises(NotFound):
        await house.control.deployments.get("other")


async def test_what_is_not_trusted_is_never_deployed(house: House) -> None:
    kept = house.control.deployments.kept
    job = Job(
        id=new_id(),
        state=JobState.QUEUED,
        spec=JobSpec(repository="https://x/y", run=a_run()),
        created_at=now(),
        queued_at=now(),
        origin=Origin(source="fork", trusted=False),
    )
    async with kept.expectations.expecting(job):
        pass
    assert await kept.record.all() == []


async def test_logs_are_one_sequence_without_doubles_and_are_followed(house: House) -> None:
    worker = await a_worker(house)
    await deploy(house, replicas=2)
    await until(house, lambda view: view.deployment.serving == 1)
    names = [ReplicaName(deployment="web", version=1, index=index) for index in (0, 1)]
    generations = {each.name: each.generation for each in worker.orders_given.orders}
    read: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            async with house.control.deployments.follow("web", 1) as reader:
                async for piece in reader:
                    read.extend(msgspec.json.decode(b"[" + piece.body + b"]"))

        nursery.start_soon(follow)
        for number in range(20):
            worker.say(names[number % 2], generations[names[number % 2]], f"line {number}")
            if number % 5 == 0:
                # As when the answer was lost: everything is told again.
                worker.logs += worker.logs
            await worker.report_all()
        with trio.fail_after(40):
            while sum(event["type"] == "log" for event in read) < 20:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    lines = [event for event in read if event["type"] == "log"]
    assert [event["line"] for event in lines] == [f"line {number}" for number in range(20)]
    assert [event["seq"] for event in read] == list(range(1, len(read) + 1))
    assert {event["step"] for event in lines} == {"1/0", "1/1"}
    assert {event["attempt"] for event in lines} == {1}
    begin, end = await house.control.deployments.text_size("web")
    text = await house.control.deployments.read_text("web", begin, end)
    assert text == "".join(f"line {number}\n" for number in range(20)).encode()
    # No list, count or door of jobs knows of it.
    assert (await house.control.jobs(())).jobs == []
    assert sum((await house.control.counts()).values()) == 0
    for call in (house.control.job, house.control.cancel, house.control.retry, house.control.text_size):
        with pytest.raises(NotFound):
            await call("run.web")


async def test_secrets_reach_the_worker_and_missing_ones_are_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()], memory=True) as house:
        await secrets_reach_the_worker(house)


async def secrets_reach_the_worker(house: House) -> None:
    worker = await a_worker(house)
    await house.control.secrets.put("db-password", b"very secret", kind=SecretKind.RUN)
    await house.control.secrets.put("registry.example", b'{"username": "u", "password": "p"}', kind=SecretKind.REGISTRY)
    with pytest.raises(BadRequest) as caught:
        await deploy(house, secrets=["other"])
    assert caught.value.code == "unknown_secret"
    await deploy(house, secrets=["db-password"])
    await until(house, lambda view: view.deployment.serving == 1)
    order = worker.order(1)
    assert order is not None
    assert order.secrets == {"db-password": b"very secret"}
    assert order.logins["registry.example"].password == "p"


async def test_ports_of_another_deployment_are_refused(house: House) -> None:
    await a_worker(house)
    await deploy(house, ports=[Port(container=80, host=8080)])
    await until(house, lambda view: view.deployment.serving == 1)
    with pytest.raises(Conflict) as caught:
        await deploy(house, name="other", ports=[Port(container=80, host=8080, address="0.0.0.0")])
    assert caught.value.code == "port_taken"
    with pytest.raises(NotFound):
        await house.control.deployments.get("other")


async def test_restart_and_rollback(house: House) -> None:
    worker = await a_worker(house)
    await deploy(house, "registry.example/app:1")
    await until(house, lambda view: view.deployment.serving == 1)
    await deploy(house, "registry.example/app:2")
    await until(house, lambda view: view.deployment.serving == 2)
    before = worker.order(2)
    await house.control.deployments.restart("web")
    await until(house, lambda view: not view.deployment.version(2).restarting)
    with trio.fail_after(40):
        while (after := worker.order(2)) is None or before is None or after.generation == before.generation:
            await trio.sleep(0.01)
    done = await house.control.deployments.rollback("web")
    assert done.version == 3
    await until(house, lambda view: view.deployment.serving == 3)
    order = worker.order(3)
    assert order is not None
    assert order.image == "registry.example/app:1"


async def test_a_worker_that_comes_back_gets_the_complete_list(house: House) -> None:
    worker = await a_worker(house, "one")
    await deploy(house)
    await until(house, lambda view: view.deployment.serving == 1)
    revision = worker.orders_given.revision
    again = ToyReplicas("one", secret=worker.secret)
    worker.silent = True
    await house.nursery.start(again.run, house.address, TOKEN, house.directory)
    with trio.fail_after(40):
        while again.order(1) is None:
            await trio.sleep(0.01)
    assert again.orders_given.revision >= revision


async def test_it_starts_elsewhere_when_its_worker_is_silent_for_long(house: House) -> None:
    first = await a_worker(house)
    await deploy(house, failover_seconds=10)
    await until(house, lambda view: view.deployment.serving == 1)
    second = await a_worker(house)
    first.mute = True
    kept = house.control.deployments.kept
    # Ten seconds are the least that may be asked for; the test does not wait for them.
    kept.sightings.seen[first.id].at -= 9.5
    with trio.fail_after(40):
        while second.order(1) is None:
            await trio.sleep(0.02)
    with trio.fail_after(40):
        while first.orders_given.orders:
            await trio.sleep(0.02)
    assert (await house.control.deployments.get("web")).replicas[0].worker_id == second.id


async def test_a_drained_worker_gives_away_what_others_can_take(house: House) -> None:
    first = await a_worker(house)
    await deploy(house)
    await until(house, lambda view: view.deployment.serving == 1)
    await deploy(house, name="data", volumes=[Volume(source="shop-data", target="/data")])
    await until(house, lambda view: view.deployment.serving == 1, "data")
    second = await a_worker(house)
    drained = await house.control.drain(first.id, True)
    rows = {each.deployment: (each.to, each.reason) for each in drained.leaving}
    assert rows["web"] == (second.id, "")
    assert rows["data"] == ("", "its volumes are on this worker; with `failover_seconds` it may start without them")
    view = await until(
        house, lambda view: [(each.worker_id, each.state) for each in view.replicas] == [(second.id, "healthy")]
    )
    assert view.deployment.serving == 1
    assert [each.name.deployment for each in first.orders_given.orders] == ["data"]
    events = await until_event(house, lambda event: event.get("code") == "moved")
    codes = [event["code"] for event in events if event["type"] == "notice"]
    assert codes == ["move", "moved"]
    (still,) = next(each for each in house.control.workers() if each.id == first.id).leaving
    assert (still.deployment, still.to) == ("data", "")
    assert (await house.control.drain(first.id, False)).leaving == []


async def test_a_stopped_deployment_is_deleted_and_its_name_begins_anew(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()]) as house:
        worker = await a_worker(house)
        for name in ("own", "shared", "declared"):
            await house.control.secrets.put(name, b"very secret", kind=SecretKind.RUN)
        await house.control.sources.add(
            Source(name="app", repository="https://x.example/app.git", run=a_run("app", secrets=["declared"]))
        )
        await deploy(house, name="other", secrets=["shared"])
        await deploy(house, secrets=["own", "shared", "declared"])
        view = await until(house, lambda view: view.deployment.serving == 1)
        order = worker.order(1)
        assert order is not None
        worker.say(ReplicaName(deployment="web", version=1, index=0), view.deployment.placements[0].generation, "old")
        await until_event(house, lambda event: event.get("line") == "old")
        deployments = house.control.deployments
        with pytest.raises(Conflict) as caught:
            await deployments.delete("web")
        assert (caught.value.code, "blacktree stop web" in caught.value.advice) == ("not_stopped", True)
        await deployments.stop("web")
        was = await deployments.delete("web", secrets=True)
        assert was.deployment.state == "stopped"
        for gone in (deployments.get("web"), deployments.events("web", 1, 10), deployments.delete("web")):
            with pytest.raises(NotFound):
                await gone
        with pytest.raises(NotFound):
            await deployments.kept._store.get("run.web")
        assert [each.name for each in await house.control.secrets.listed()] == ["declared", "shared"]
        assert [each.deployment.name for each in await deployments.all()] == ["other"]
        # A worker that still has words of the old one is told that they are not wanted.
        worker.say(ReplicaName(deployment="web", version=1, index=0), 1, "late")
        with trio.fail_after(40):
            while worker.logs:
                await trio.sleep(0.02)
        await deploy(house)
        view = await until(house, lambda view: view.deployment.serving == 1)
        # No container of the old one can be taken for one of these.
        assert view.deployment.placements[0].generation > was.deployment.versions[0].generation + 1
        found = await until_event(house, lambda event: event.get("to") == "running")
        assert [(event["seq"], event.get("line")) for event in found] == [(number, None) for number in range(1, 4)]
        assert "deployment_deleted" in [event.type for event in await house.control.farm_events(1, 100)]


async def test_a_deletion_that_was_cut_short_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        await a_worker(house)
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        await house.control.deployments.stop("web")

        async def fail(name: str) -> None:
            raise StorageFailed("no space left")

        monkeypatch.setattr(house.control.deployments.kept.logs, "drop", fail)
        with pytest.raises(StorageFailed):
            await house.control.deployments.delete("web")
        with pytest.raises(NotFound):
            await house.control.deployments.get("web")
    async with open_house(tmp_path) as house:
        kept = house.control.deployments.kept
        assert await kept._store.documents("deployment") == []
        with pytest.raises(NotFound):
            await kept._store.get("run.web")


async def test_everything_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        worker = await a_worker(house, "one")
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        order = worker.order(1)
        assert order is not None
        worker.say(order.name, order.generation, "before")
        await until_event(house, lambda event: event.get("line") == "before")
        revision = worker.orders_given.revision
        orders = worker.orders_given.orders
    # The orchestrator's end has touched nothing.
    assert worker.orders_given.orders == orders
    async with open_house(tmp_path) as house:
        view = await house.control.deployments.get("web")
        assert (view.deployment.serving, view.replicas[0].state) == (1, "unknown")
        again = await a_worker(house, "one", secret=worker.secret)
        await until(house, lambda view: view.replicas[0].state == "healthy")
        assert again.orders_given.revision > revision
        order = again.order(1)
        assert order is not None
        again.numbers[order.name, order.generation] = 1
        again.say(order.name, order.generation, "after")
        found = await until_event(house, lambda event: event.get("line") == "after")
        assert [event["line"] for event in found if event["type"] == "log"] == ["before", "after"]
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))


async def test_old_output_is_dropped_and_reading_begins_later(tmp_path: Path) -> None:
    async with open_house(tmp_path, runtime_log_bytes=1 << 20) as house:
        worker = await a_worker(house)
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        order = worker.order(1)
        assert order is not None
        for number in range(80):
            worker.say(order.name, order.generation, f"{number} ".ljust(50_000, "x"))
            await worker.report_all()
        first = await house.control.deployments.first_seq("web")
        assert first > 1
        found = await events(house)
        assert found[0]["seq"] == first
        assert [event["seq"] for event in found] == list(range(first, first + len(found)))
        begin, end = await house.control.deployments.text_size("web")
        assert end - begin <= 3 << 20
        assert (await house.control.deployments.read_text("web", begin, 10)).strip(b"x ").isdigit()


@pytest.mark.rabbitmq
async def test_versions_are_told_on_the_status_queue(tmp_path: Path) -> None:
    node = await in_thread(shared_node)
    await in_thread(node.clear)
    async with open_house(tmp_path, memory=True, broker_url=node.url) as house:
        while house.control.readiness().state != "ready":
            await trio.sleep(0.05)
        worker = await a_worker(house)
        await deploy(house)
        await until(house, lambda view: view.deployment.serving == 1)
        worker.fare(2, state="failed", reason="broken", last_lines=["last words"])
        await deploy(house, "registry.example/app:2")
        await until(house, lambda view: state(view, 2) == "failed")
        got = await Stranger(node.url).take("status.queue", 2)
    assert [each.message_id.partition("/")[0] for each in got] == ["run.web", "run.web"]
    runs, failed = [each.value for each in got]
    assert (runs["deploymentId"], runs["success"], runs["state"], runs["version"]) == ("web", True, "running", 1)
    assert (runs["imageUrl"], runs["error"]) == ("registry.example/app:1", None)
    assert (failed["success"], failed["error"], failed["logs"]) == (False, "broken", "last words")
    assert failed["deployment"]["version"]["state"] == "failed"


async def test_leaving_in_the_middle_leaves_no_half_deployment(house: House) -> None:
    """Cancelled at every possible moment, it is on record whole or not at all, and what is shown is what is stored."""
    kept = house.control.deployments.kept
    for checkpoints in range(12):
        name = f"web-{checkpoints}"
        wanted = JobSpec(repository="https://x/y", run=a_run(name))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_later(scope: trio.CancelScope = scope, count: int = checkpoints) -> None:
                    for _ in range(count):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel_later)
                await house.control.deployments.deploy(wanted)
        jobs = [view.job for view in (await house.control.jobs(())).jobs if view.job.spec.run == wanted.run]
        body = await kept._store.document("deployment", name)
        shown = {each.name: each for each in await kept.record.all()}.get(name)
        assert (body is None) is (shown is None)
        assert len(jobs) == (len(shown.versions) if shown is not None else 0)


async def test_one_that_is_withdrawn_in_the_middle_of_a_turn_stops_nobody(house: House) -> None:
    """Its job was refused while another deployment was being looked at."""
    kept = house.control.deployments.kept
    tell = kept.logs.tell

    async def withdrawing(deployment: Deployment) -> int:
        if deployment.name == "a":
            if "b" not in kept.record.known:
                raise Conflict("both are to be looked at in one turn")
            await kept.record.change("b", lambda found: None)
        return int(await tell(deployment))

    kept.logs.tell = withdrawing
    for name in ("a", "b"):
        await kept.record.add(Version(number=0, run=a_run(name), created_at=now()))
    view = await until(house, lambda view: not view.deployment.happenings, "a")
    assert (await kept.record.all()) == [view.deployment]
    await a_worker(house)
    await deploy(house)
    await until(house, lambda view: view.deployment.serving == 1)


async def test_a_watcher_that_leaves_is_told_by_one_error_and_no_group(house: House) -> None:
    await deploy(house)

    async def reply(result: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def send(frame: object) -> None:
        raise trio.BrokenResourceError

    with pytest.raises(trio.BrokenResourceError), trio.fail_after(40):
        await watch_deployment(house.control.deployments, b'{"name":"web"}', 1, reply, send)


async def test_a_version_whose_job_never_came_is_settled_without_a_restart(house: House) -> None:
    """Whoever submitted was canceled after its version was on record, and before anybody knew its number."""
    kept = house.control.deployments.kept
    add = kept.record.add

    async def leaving(version: Version) -> int:
        await add(version)
        scope.cancel()
        await trio.lowlevel.checkpoint()
        raise AssertionError("it was canceled")

    kept.record.add = leaving
    with trio.CancelScope() as scope:
        await house.control.deployments.deploy(JobSpec(repository="https://x/y", run=a_run()))
    view = await until(house, lambda view: state(view, 1) == "failed")
    assert view.deployment.versions[0].code == "not_submitted"


async def test_a_job_that_is_on_its_way_keeps_its_version(house: House) -> None:
    kept = house.control.deployments.kept
    spec = JobSpec(repository="https://x/y", run=a_run())
    job = Job(id=new_id(), state=JobState.QUEUED, spec=spec, created_at=now(), queued_at=now())
    async with kept.expectations.expecting(job):
        await until(house, lambda view: not view.deployment.happenings)
        await kept._turn()
        assert state(await house.control.deployments.get("web"), 1) == "pending"
    assert await kept.record.all() == []


async def test_the_next_of_a_name_that_was_withdrawn_tells_everything(house: House) -> None:
    kept = house.control.deployments.kept
    spec = JobSpec(repository="https://x/y", run=a_run())
    job = Job(id=new_id(), state=JobState.QUEUED, spec=spec, created_at=now(), queued_at=now())
    async with kept.expectations.expecting(job):
        await until(house, lambda view: not view.deployment.happenings)
    assert await kept.record.all() == []
    await a_worker(house)
    await deploy(house)
    found = await until_event(house, lambda event: event.get("to") == "running")
    assert [event["to"] for event in found if event["type"] == "state"] == ["pending", "pending", "built", "running"]


async def test_what_has_no_room_in_a_workers_list_is_refused_and_blocks_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()], memory=True) as house:
        worker = await a_worker(house)
        names = [f"web-{number}" for number in range(8)]
        for name in names:
            await house.control.secrets.put(name, b"x", kind=SecretKind.RUN)
            await house.control.secrets.put(f"{name}-more", b"x", kind=SecretKind.RUN)
            await deploy(house, name=name, secrets=[name, f"{name}-more"])
            await until(house, lambda view: view.deployment.serving == 1, name)
        for name in names:
            # They grow afterwards.
            await house.control.secrets.put(name, b"x" * 250_000, kind=SecretKind.RUN)
            await house.control.secrets.put(f"{name}-more", b"x" * 270_000, kind=SecretKind.RUN)
        await house.control.secrets.put("small", b"x" * 400_000, kind=SecretKind.RUN)
        with pytest.raises(TooLarge) as caught:
            await deploy(house, name="late", secrets=["small"])
        assert caught.value.code == "worker_full"
        kept = house.control.deployments.kept
        run = a_run("late", secrets=["small"])
        await kept.record.add(Version(number=0, run=run, created_at=now(), image="registry.example/app:1", pull=True))
        await until(house, lambda view: bool(view.replicas) and view.waiting.startswith("room in"), "late")
        assert await house.control.deployments.stop(names[0])
        left = {each.name.deployment for each in worker.orders_given.orders}
        assert left >= set(names[1:])
        assert names[0] not in left
        for name in names[1:3]:
            await house.control.deployments.stop(name)
        await until(house, lambda view: view.deployment.serving == 1, "late")
        assert {each.name.deployment for each in worker.orders_given.orders} == {*names[3:], "late"}


async def test_what_cannot_be_read_is_not_started_and_what_runs_goes_on(tmp_path: Path) -> None:
    async with open_house(tmp_path, keys=[new_key()], memory=True) as house:
        worker = await a_worker(house)
        kept = house.control.deployments.kept
        await house.control.secrets.put("word", b"secret", kind=SecretKind.RUN)
        await deploy(house, secrets=["word"])
        await until(house, lambda view: view.deployment.serving == 1)
        secrets = kept._couriers._secrets
        read = secrets.of

        async def locked(plan: Plan) -> dict[str, bytes]:
            if plan.run.secrets:
                raise Locked("its key is not here", code="secret_locked")
            return dict(await read(plan))

        secrets.of = locked
        await deploy(house, name="new", secrets=["word"])
        await until(house, lambda view: "its key is not here" in view.waiting, "new")
        await deploy(house, name="plain")
        await until(house, lambda view: view.deployment.serving == 1, "plain")
        before = worker.order(1)
        assert before is not None
        await house.control.deployments.restart("web")
        await deploy(house, name="plainer")
        await until(house, lambda view: view.deployment.serving == 1, "plainer")
        orders = {each.name.deployment: each for each in worker.orders_given.orders}
        assert set(orders) == {"web", "plain", "plainer"}
        assert (orders["web"].generation, orders["web"].secrets) == (1, {})
        assert {name.deployment for name in worker.states} == {"web", "plain", "plainer"}
        secrets.of = read
        view = await until(house, lambda view: view.deployment.serving == 1, "new")
        assert view.waiting == ""
        orders = {each.name.deployment: each for each in worker.orders_given.orders}
        assert orders["web"].generation == 2
        assert orders["web"].secrets == orders["new"].secrets == {"word": b"secret"}

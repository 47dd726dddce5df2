"""Deployments of what is built: a version for each job with `run`, and what becomes of it without one."""

import pytest
import trio

from blacktree.clock import new_id, now
from blacktree.deployment import Deployment, Version
from blacktree.errors import Conflict, NotFound
from blacktree.job import Image, Job, JobState, Origin, Outcome
from blacktree.spec import JobSpec
from tests.orchestrator.conftest import House
from tests.orchestrator.deploying import a_run, a_worker, deploy, state, until, until_event


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

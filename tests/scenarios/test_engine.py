"""The same with real builds: what dies or sleeps leaves no process, no line and no tag behind."""

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.client import Client
from tests.parts.engine import (
    BASE,
    PrivateEngine,
    can_start_engines,
    engine,
    ensure_base,
    gated,
    open_gate,
    private_engine,
    processes_with,
)
from tests.parts.farm import SHORT_LEASE, SLOW, Farm, open_farm, submit, until_line, until_state
from tests.parts.git_server import git_server, make_repository
from tests.parts.truth import ended_once, every_event

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(150)]

TICKS = 30
PRINTED = [f"tick {number}" for number in range(1, TICKS + 1)]
# Talks, and goes on when it is let, beside a child that would outlive it; no two runs give the same layer.
TALK = gated(
    "{word}",
    "(setsid sh -c 'trap \"\" TERM HUP; sleep 600; true' {word} &); for i in 1 2 3; do echo tick $i; done",
    "for i in $(seq 4 {ticks}); do echo tick $i; sleep 0.02; done; cat /proc/sys/kernel/random/uuid > /stamp",
)
# Ignores every polite signal, in the step's own process, in a child and in a child of another session.
NASTY = (
    "trap '' TERM INT HUP; (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' {word} &) ; "
    "sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' {word} & "
    "echo under way; {flood} while :; do sleep 1; done # {word}"
)


@pytest.fixture(scope="module")
def socket() -> Iterator[str]:
    with engine() as path:
        ensure_base(path)
        yield path


@pytest.fixture
def farm(socket: str) -> Iterator[Farm]:
    with open_farm() as farm:
        builder(farm, "one", socket)
        yield farm


@pytest.fixture
def hasty(socket: str) -> Iterator[Farm]:
    """Another one, whose leases run out soon."""
    with open_farm(orchestrator=SHORT_LEASE) as farm:
        builder(farm, "one", socket)
        yield farm


def builder(farm: Farm, name: str, socket: str) -> None:
    """A worker that really builds."""
    farm.worker(name, provider="docker", steps="sync,build,tag", engine=socket, slots=1)


class Build:
    """A repository with one RUN that bears a word of its own, and the spec of its job."""

    def __init__(self, farm: Farm, socket: str, run: str, **keys: Any) -> None:
        self.word = f"w{secrets.token_hex(6)}"
        self.image = f"blacktree-test/{self.word}"
        self.socket = socket
        text = run.replace("{word}", self.word).replace("{ticks}", str(TICKS))
        path = make_repository(farm.home / self.word, {"Dockerfile": f"FROM {BASE}\nRUN {text}\n"})
        self.spec = {"repository": str(path), "image": self.image, "tags": ["latest"], "no_cache": True} | keys

    async def begun(self, client: Client, word: str = "tick 3") -> str:
        """Submitted, and in the middle of its RUN; answers the job's id."""
        job_id = await submit(client, self.spec, self.word)
        await until_line(client, job_id, word)
        assert processes_with(self.word)
        return job_id

    async def let_go(self, client: Client, job_id: str, attempt: int) -> None:
        """Once this attempt stands at its gate, or is past it."""
        await until_line(client, job_id, "tick 3", attempt=attempt)
        open_gate(self.word)

    async def gone(self, seconds: float = 40) -> None:
        """Until no process of any run of it is left."""
        with trio.fail_after(seconds):
            while processes_with(self.word):
                await trio.sleep(0.02)

    async def done(self, client: Client, job_id: str) -> dict[str, Any]:
        """The job at its end, in whichever attempt: each is let go as it comes."""
        with trio.fail_after(100):
            while (job := await client.job(job_id))["state"] not in ("succeeded", "failed", "lost"):
                for attempt in job["attempts"]:
                    if await said(client, job_id, "tick 3", attempt["attempt"]):
                        open_gate(self.word)
                await trio.sleep(0.1)
        return job

    def tagged(self) -> str:
        """The id of the image that bears the name now, or nothing."""
        found = subprocess.run(
            ["docker", "image", "inspect", "-f", "{{.Id}}", f"{self.image}:latest"],
            env=os.environ | {"DOCKER_HOST": f"unix://{self.socket}"},
            capture_output=True,
            text=True,
            check=False,
        )
        return found.stdout.strip()

    def images(self) -> list[str]:
        """Every id that bears the image's name, under whatever tag."""
        words = ["docker", "images", "-q", "--no-trunc", self.image]
        environ = os.environ | {"DOCKER_HOST": f"unix://{self.socket}"}
        return subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout.split()

    def remove(self) -> None:
        if found := self.tagged():
            environ = os.environ | {"DOCKER_HOST": f"unix://{self.socket}"}
            subprocess.run(["docker", "rmi", "-f", found], env=environ, capture_output=True, check=False)

    async def well_ended(self, client: Client, job_id: str, *, attempt: int) -> dict[str, Any]:
        """Let go, it succeeds in this attempt; its image has the name, its log is whole, no process is left."""
        await self.let_go(client, job_id, attempt)
        await until_state(client, job_id, "succeeded", "failed", "lost")
        job = await ended_once(client, job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", attempt), job
        events = await every_event(client, job_id)
        said = [event["line"] for event in events if event["type"] == "log" and event["attempt"] == attempt]
        assert [line for line in said if line.startswith("tick ")] == PRINTED
        assert self.tagged() == job["image"]["id"]
        await self.gone()
        return job


async def said(client: Client, job_id: str, line: str, attempt: int) -> bool:
    """Whether this attempt has printed this line."""
    events = await every_event(client, job_id)
    return any(each["type"] == "log" and (each["attempt"], each["line"]) == (attempt, line) for each in events)


@contextmanager
def building(farm: Farm, socket: str) -> Iterator[Build]:
    build = Build(farm, socket, TALK)
    yield build
    build.remove()


@pytest.fixture
def build(farm: Farm, socket: str) -> Iterator[Build]:
    with building(farm, socket) as build:
        yield build


async def test_a_killed_worker_leaves_no_process(farm: Farm, build: Build) -> None:
    await farm.up()
    async with farm.client() as client:
        job_id = await build.begun(client)
        farm.workers["one"].kill()
        await build.gone()
        await farm.up()
        job = await build.well_ended(client, job_id, attempt=2)
        assert job["tries"] == 1


async def test_a_killed_orchestrator_finds_its_builds_again(farm: Farm, build: Build) -> None:
    await farm.up()
    async with farm.client() as client:
        job_id = await build.begun(client)
        farm.orchestrator.kill()
        # It talks on while nobody listens.
        open_gate(build.word)
        farm.orchestrator.start()
        await farm.ready()
        await build.well_ended(client, job_id, attempt=1)


async def test_both_killed(farm: Farm, build: Build) -> None:
    await farm.up()
    async with farm.client() as client:
        job_id = await build.begun(client)
        farm.workers["one"].kill()
        farm.orchestrator.kill()
        await build.gone()
        await farm.up()
        await build.well_ended(client, job_id, attempt=2)


async def test_a_frozen_worker_is_killed_before_a_successor_starts(hasty: Farm, socket: str) -> None:
    with building(hasty, socket) as build:
        await frozen(hasty, build)


async def frozen(farm: Farm, build: Build) -> None:
    await farm.up()
    one = farm.workers["one"]
    async with farm.client() as client:
        job_id = await build.begun(client)
        one.send(signal.SIGSTOP)
        await until_state(client, job_id, "queued")
        # Nobody may begin again while something of the first attempt still runs.
        assert processes_with(build.word) == []
        assert await one.ended() == -signal.SIGKILL
        await farm.up()
        await build.well_ended(client, job_id, attempt=2)


async def test_a_worker_that_slept_with_its_guard_changes_nothing(hasty: Farm, socket: str) -> None:
    """As after a suspended machine. The engine finished the old build meanwhile: it gets no line and no tag."""
    with building(hasty, socket) as build:
        await slept(hasty, build, socket)


async def slept(farm: Farm, build: Build, socket: str) -> None:
    await farm.up()
    one = farm.workers["one"]
    async with farm.client() as client:
        job_id = await build.begun(client)
        [guard] = one.children()
        for pid in (guard, one.pid):
            os.kill(pid, signal.SIGSTOP)
        open_gate(build.word)
        await until_state(client, job_id, "queued")
        builder(farm, "two", socket)
        await farm.up(farm.workers["two"])
        await build.well_ended(client, job_id, attempt=2)
        before, tag = await every_event(client, job_id), build.tagged()
        one.send(signal.SIGCONT)
        await farm.until_workers(client, lambda found: "one" in found)
        os.kill(guard, signal.SIGCONT)
        # Whatever it still had to say or to name it would have by the end of another build of its own.
        farm.workers["two"].kill()
        other = Build(farm, socket, TALK)
        with ExitStack() as stack:
            stack.callback(other.remove)
            await other.well_ended(client, await other.begun(client), attempt=1)
        assert (await every_event(client, job_id), build.tagged()) == (before, tag)


CANCELED = [("buildkit", ""), ("buildkit", "yes flood-{word} & "), ("classic", "yes flood-{word} & ")]


@pytest.mark.parametrize(("kind", "flood"), CANCELED, ids=["quiet", "flood", "classic-flood"])
async def test_cancel_of_a_step_that_will_not_die(farm: Farm, socket: str, kind: str, flood: str) -> None:
    """When the answer is there, nothing is left: neither a process nor a name."""
    build = Build(farm, socket, NASTY.replace("{flood}", flood), builder=kind)
    await farm.up()
    async with farm.client() as client:
        # Whatever is printed after a flood has begun may be clipped by the engine.
        job_id = await build.begun(client, f"flood-{build.word}" if flood else "under way")
        with trio.fail_after(SLOW):
            job = await client.cancel(job_id, reason="enough")
        assert processes_with(build.word) == []
        assert (job["state"], build.tagged()) == ("canceled", "")
        await ended_once(client, job_id)
        assert await client.cancel(job_id) == job


async def test_cancel_while_it_clones(farm: Farm, socket: str, tmp_path: Path) -> None:
    await farm.up()
    with git_server(tmp_path) as server:
        server.hang = True
        async with farm.client() as client:
            url = f"{server.url}/{secrets.token_hex(4)}.git"
            job_id = await submit(client, {"repository": url}, "hanging")
            with trio.fail_after(SLOW):
                while not server.requests:
                    await trio.sleep(0.02)
            assert processes_with(url)
            assert (await client.cancel(job_id))["state"] == "canceled"
            assert processes_with(url) == []
            await ended_once(client, job_id)


async def test_cancel_while_the_farm_shuts_down(farm: Farm, socket: str) -> None:
    """Both daemons told to end at once, with a step that does not want to: nothing is left of it, nothing is lost."""
    build = Build(farm, socket, NASTY.replace("{flood}", ""))
    await farm.up()
    async with farm.client() as client:
        job_id = await build.begun(client, "under way")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.cancel, job_id)
            await until_state(client, job_id, "canceling", "canceled")
            farm.orchestrator.send(signal.SIGTERM)
            farm.workers["one"].send(signal.SIGTERM)
            assert await farm.orchestrator.ended() == 0
            assert await farm.workers["one"].ended() == 0
            assert processes_with(build.word) == []
            await farm.up()
        assert (await ended_once(client, job_id))["state"] == "canceled"


needs_its_own = pytest.mark.skipif(not can_start_engines(), reason="needs root and dockerd")


@pytest.fixture(scope="module")
def own() -> Iterator[PrivateEngine]:
    """An engine that may be killed."""
    with private_engine() as own:
        ensure_base(own.socket)
        yield own


@needs_its_own
async def test_an_engine_killed_in_mid_build(own: PrivateEngine) -> None:
    """Its steps outlive it: they are ended, and the job is built again once it is back."""
    with open_farm() as farm:
        builder(farm, "one", own.socket)
        await farm.up()
        build = Build(farm, own.socket, TALK, max_attempts=10)
        async with farm.client() as client:
            job_id = await build.begun(client)
            await trio.to_thread.run_sync(own.kill)
            await build.gone()
            assert (await client.job(job_id))["state"] in ("queued", "assigned", "running")
            await trio.to_thread.run_sync(own.start)
            job = await build.done(client, job_id)
            await build.well_ended(client, job_id, attempt=job["attempt"])
            assert job["attempt"] >= 2


@needs_its_own
async def test_an_engine_killed_before_the_build(own: PrivateEngine) -> None:
    """The worker says why it takes nothing; the job waits, uses up no try, and is built once the engine is back."""
    with open_farm() as farm:
        builder(farm, "one", own.socket)
        await farm.up()
        build = Build(farm, own.socket, TALK, max_attempts=10)
        async with farm.client() as client:
            await trio.to_thread.run_sync(own.kill)
            job_id = await submit(client, build.spec, build.word)
            await trio.sleep(1)
            assert (await client.job(job_id))["state"] in ("queued", "assigned", "running")
            await trio.to_thread.run_sync(own.start)
            job = await build.done(client, job_id)
            await build.well_ended(client, job_id, attempt=job["attempt"])


@needs_its_own
async def test_an_engine_killed_together_with_the_worker(own: PrivateEngine) -> None:
    """Nobody was there to clean up; the worker's next life does, before it takes anything."""
    with open_farm() as farm:
        builder(farm, "one", own.socket)
        await farm.up()
        build = Build(farm, own.socket, TALK, max_attempts=10)
        async with farm.client() as client:
            job_id = await build.begun(client)
            old = set(processes_with(build.word))
            farm.workers["one"].kill()
            await trio.to_thread.run_sync(own.kill)
            await trio.to_thread.run_sync(own.start)
            await farm.up()
            await until_line(client, job_id, "tick 1", attempt=2)
            assert not old & set(processes_with(build.word))
            await build.well_ended(client, job_id, attempt=2)


@needs_its_own
@pytest.mark.parametrize("place", ["before-tag", "after-tag", "before-tell-result"])
async def test_an_engine_killed_at_the_result(own: PrivateEngine, place: str) -> None:
    """Without a name for its image the job is built again; with it, it has succeeded, whatever the engine does then."""
    with open_farm() as farm:
        builder(farm, "one", own.socket)
        await farm.up()
        build = Build(farm, own.socket, TALK, max_attempts=10)
        async with farm.client() as client:
            job_id = await build.begun(client)
            assert own.process is not None
            farm.arm(f"{place} {own.process.pid}")
            open_gate(build.word)
            assert await trio.to_thread.run_sync(own.process.wait, 60) == -signal.SIGKILL
            await trio.to_thread.run_sync(own.start)
            job = await build.done(client, job_id)
            named = place != "before-tag"
            assert (job["attempt"] == 1) is named, job
            await build.well_ended(client, job_id, attempt=job["attempt"])
            assert build.images() == [job["image"]["id"]]

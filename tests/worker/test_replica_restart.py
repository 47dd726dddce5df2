"""What outlives a worker, an engine, a neighbour: containers are adopted, fronts come back, nothing runs twice."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from blacktree.concurrency.island import open_island
from blacktree.rpc.client import connect_worker
from blacktree.rpc.server import serve_orchestrator
from blacktree.runspec import Health
from tests.parts import engine as engines
from tests.parts.replicas import (
    ReplicaPart,
    a_run,
    an_order,
    containers_of,
    docker,
    free_port,
    get,
    httpd,
    named,
    orders,
    owner_of,
)
from tests.worker.process import TOKEN, start
from tests.worker.test_daemon import a_worker
from tests.worker.test_replicas import base, keeping

__all__ = ["base"]
pytestmark = pytest.mark.docker


async def _until_answers(port: int, text: str, seconds: float = 50) -> None:
    with trio.fail_after(seconds):
        while True:
            try:
                if await get(port) == text:
                    return
            except OSError:
                await trio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_comes_back_adopts_what_runs(tmp_path: Path, base: str, number: signal.Signals) -> None:
    part, port = ReplicaPart(), free_port()
    (tmp_path / "token").write_text(TOKEN)
    # Each line is printed once; between them the worker dies.
    script = httpd("one")[2].replace(
        "&& exec httpd", "; (i=0; while sleep 0.02; do i=$((i+1)); echo line-$i; done) & exec httpd"
    )
    run = a_run(port, command=["/bin/sh", "-c", script], secrets=["key"])
    wanted = orders(an_order(base, run, secrets={"key": b"hunter2-hunter2"}))
    keys: dict[str, Any] = {"provider": "docker", "shutdown_grace_seconds": 0}
    async with open_island(), trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_orchestrator, part, "127.0.0.1:0", join_token=TOKEN))
        process = await start(tmp_path, address, **keys)
        try:
            await part.until(lambda: bool(part.registrations))
            async with connect_worker(part.registrations[-1].address, join_token=TOKEN) as side:
                await side.apply_replicas(wanted)
            await part.serving(named())
            await part.until(lambda: "line-20\n" in part.text(named()))
            before = await containers_of(owner_of(tmp_path / "state"))
            process.send_signal(number)
            await process.wait()
            with pytest.raises(OSError):
                await get(port)
            assert await docker("inspect", "-f", "{{.State.Running}}", *before) == "true"
            registered = len(part.registrations)
            process = await start(tmp_path, address, **keys)
            # Its front is back by what it has on disk, whatever the orchestrator does.
            await _until_answers(port, "one")
            await part.until(lambda: len(part.registrations) > registered)
            async with connect_worker(part.registrations[-1].address, join_token=TOKEN) as side:
                # As from an orchestrator that cannot read its secrets: it runs on, and what it prints waits for them.
                await side.apply_replicas(orders(an_order(base, run)))
                await part.until(lambda: part.replica_reports[-1].incarnation == part.registrations[-1].incarnation)
                await part.serving(named())
                # What the first process had read still comes; after that, nothing.
                heard = len(part.replica_reports)
                await part.until(lambda: len(part.replica_reports) > heard)
                text, heard = part.text(named()), len(part.replica_reports)
                await part.until(lambda: len(part.replica_reports) > heard)
                assert part.text(named()) == text
                await side.apply_replicas(orders(*wanted.orders))
                assert await containers_of(owner_of(tmp_path / "state")) == before
                state = await part.serving(named())
                assert (state.container, state.restarts) == (before[0], 0)
                last = len(part.text(named()).splitlines())
                await part.until(lambda: len(part.text(named()).splitlines()) > last + 50)
                assert (tmp_path / "state" / "replica-secrets").is_dir()
                await side.apply_replicas(orders())
                await part.gone()
            assert await containers_of(owner_of(tmp_path / "state")) == []
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(20, shield=True):
                await process.wait()
                for each in await containers_of(owner_of(tmp_path / "state")):
                    await docker("rm", "-f", each)
            nursery.cancel_scope.cancel()
    numbers = [int(line.split("-")[1]) for line in part.text(named()).splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert part.notices(named()) == []


async def test_what_nobody_wants_any_more_is_removed_by_the_next_process(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    run = a_run(command=["sleep", "600"])
    async with a_worker(tmp_path, part, provider="docker") as (side, _):
        await side.apply_replicas(orders(an_order(base, run)))
        await part.state(named(), "healthy")
    owner = owner_of(tmp_path / "state")
    [container] = await containers_of(owner)
    # Ours by its label, and of no orders: e.g. made in the moment of a crash.
    stray = await docker("run", "-d", "--init", "--label", f"dev.blacktree.replicas={owner}", base, "sleep", "600")
    try:
        async with keeping(tmp_path, part) as side:
            with trio.fail_after(40):
                while await containers_of(owner) != [container]:
                    await trio.sleep(0.05)
    finally:
        await docker("rm", "-f", stray)


async def test_what_is_kept_stays_as_it_was_told_last(tmp_path: Path, base: str) -> None:
    """Also over a restart. What is kept is named by an orchestrator that cannot read what it is to be."""
    part = ReplicaPart()
    run, other = a_run(command=["sleep", "600"]), named(deployment="other")
    mine, others = an_order(base, run), an_order(base, run, other)
    async with a_worker(tmp_path, part, provider="docker") as (side, _):
        await side.apply_replicas(orders(mine, others))
        await part.state(named(), "healthy")
        await part.state(other, "healthy")
        before = await containers_of(owner_of(tmp_path / "state"))
        kept = replace(orders(others), kept=["shop"])
        await side.apply_replicas(kept)
        await part.until(lambda: part.replica_reports[-1].revision == kept.revision)
        assert {each.name for each in part.replica_reports[-1].states} == {named(), other}
    first = len(part.replica_reports)
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(kept)
        await part.until(lambda: len(part.replica_reports) > first)
        await part.until(lambda: [each.state for each in part.replica_reports[-1].states] == ["healthy"] * 2)
        assert await containers_of(owner_of(tmp_path / "state")) == before
        last = orders(others)
        await side.apply_replicas(last)
        await part.until(lambda: part.replica_reports[-1].revision == last.revision)
        with trio.fail_after(40):
            while len(await containers_of(owner_of(tmp_path / "state"))) != 1:
                await trio.sleep(0.05)


async def test_a_worker_cut_off_while_it_was_away_does_not_serve_again(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    wanted = orders(an_order(base, a_run(command=["sleep", "600"], failover_seconds=10.0)))
    async with a_worker(tmp_path, part, provider="docker") as (side, _):
        await side.apply_replicas(wanted)
        await part.state(named(), "healthy")
        await part.until(lambda: (tmp_path / "state/replicas/contact").exists())
    owner = owner_of(tmp_path / "state")
    kept = tmp_path / "state/replicas/contact"
    sent = float(kept.read_text().partition('"sent":')[2].rstrip("}"))
    kept.write_text(kept.read_text().replace(str(sent), str(sent - 60)))
    part.deaf = True
    async with keeping(tmp_path, part) as side:
        with trio.fail_after(40):
            while await containers_of(owner):
                await trio.sleep(0.05)
        part.deaf = False
        # It may run here again only when the orchestrator says so now.
        await side.apply_replicas(wanted)
        await part.state(named(), "healthy")


async def test_two_workers_on_one_engine_keep_apart(tmp_path: Path, base: str) -> None:
    first, second = ReplicaPart(), ReplicaPart()
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    run = a_run(command=["sleep", "600"])
    async with keeping(tmp_path / "1", first) as one:
        await one.apply_replicas(orders(an_order(base, run)))
        await first.state(named(), "healthy")
        async with keeping(tmp_path / "2", second) as two:
            await two.apply_replicas(orders(an_order(base, run)))
            await second.state(named(), "healthy")
            owners = [owner_of(tmp_path / each / "state") for each in ("1", "2")]
            assert owners[0] != owners[1]
            await two.apply_replicas(orders())
            await second.gone()
            assert len(await containers_of(owners[0])) == 1
            assert await containers_of(owners[1]) == []
        assert first.states[named()].state == "healthy"


@pytest.mark.skipif(not engines.can_start_engines(), reason="needs root and dockerd")
async def test_an_engine_that_is_restarted_gets_its_replicas_back(tmp_path: Path) -> None:
    part = ReplicaPart()
    with engines.private_engine() as own:
        image = engines.ensure_base(own.socket)
        health = Health(command=["true"], interval_seconds=0.2, timeout_seconds=30)
        async with a_worker(tmp_path, part, provider="docker", engine=own.socket) as (side, _):
            await side.apply_replicas(orders(an_order(image, a_run(command=["sleep", "600"], health=health))))
            before = await part.state(named(), "healthy", seconds=40)
            own.kill()
            await trio.to_thread.run_sync(own.start)
            await part.until(
                lambda: (
                    named() in part.states
                    and part.states[named()].state == "healthy"
                    and part.states[named()].container != before.container
                ),
                60,
            )
            # It was not the container's fault.
            assert part.states[named()].restarts == 0
            assert any(each.code == "engine_lost" for each in part.seen)
            assert len(await containers_of(owner_of(tmp_path / "state"), own.socket)) == 1
            await side.apply_replicas(orders())
            await part.gone()

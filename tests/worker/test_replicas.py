"""Replicas on the real engine: started, checked, switched, restarted, stopped."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from blacktree.errors import NotAllowed
from blacktree.rpc.peer import WorkerSide
from blacktree.runspec import Health, HttpCheck, Restart, TcpCheck, Volume
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
    load,
    named,
    orders,
    owner_of,
)
from tests.worker.test_daemon import a_worker

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def base() -> Iterator[str]:
    with engines.engine() as path:
        yield engines.ensure_base(path)


@asynccontextmanager
async def keeping(tmp_path: Path, part: ReplicaPart, **keys: Any) -> AsyncIterator[WorkerSide]:
    """A worker; at the end its replicas are taken away."""
    try:
        async with a_worker(tmp_path, part, **({"provider": "docker"} | keys)) as (side, _):
            yield side
    finally:
        # They outlive the worker.
        with trio.move_on_after(20, shield=True):
            for each in await containers_of(owner_of(tmp_path / "state")):
                await docker("rm", "-f", "-v", each)


async def test_from_order_to_answer_to_nothing_left(tmp_path: Path, base: str) -> None:
    part, port = ReplicaPart(), free_port()
    async with keeping(tmp_path, part) as side:
        sent = orders(an_order(base, a_run(port, command=httpd("one"))))
        assert (await side.apply_replicas(sent)).revision == sent.revision
        state = await part.serving(named())
        assert (state.state, state.restarts) == ("healthy", 0)
        assert await get(port) == "one"
        [container] = await containers_of(owner_of(tmp_path / "state"))
        told = await docker(
            "inspect",
            "-f",
            "{{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} "
            "{{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}} {{.HostConfig.Init}} {{.HostConfig.Privileged}} "
            "{{len .Mounts}} {{.HostConfig.RestartPolicy.Name}} {{.NetworkSettings.Ports}}",
            container,
        )
        assert told.startswith("[ALL] [no-new-privileges] 33554432 33554432 512 1000000000 true false 0 no map[80/tcp:")
        assert "127.0.0.1" in told
        assert "0.0.0.0" not in told
        await side.apply_replicas(orders())
        await part.state(named(), "stopped")
        await part.gone()
        assert await containers_of(owner_of(tmp_path / "state")) == []
        with pytest.raises(OSError):
            await get(port)


async def test_a_switch_under_load_loses_nothing(tmp_path: Path, base: str) -> None:
    part, port = ReplicaPart(), free_port()
    first = an_order(base, a_run(port, command=httpd("one")), named(1))
    second = an_order(base, a_run(port, command=httpd("two")), named(2))
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(first))
        await part.serving(named(1))
        async with load(port) as running:
            await running.until(lambda: len(running.answers) > 10)
            await side.apply_replicas(orders(first, replace(second, serve=False)))
            await part.state(named(2), "healthy")
            assert {text for _, text, _ in running.answers} == {"one"}
            await side.apply_replicas(orders(replace(first, serve=False), second))
            await part.serving(named(2))
            await side.apply_replicas(orders(second))
            await part.state(named(1), "stopped")
            before = len(running.answers)
            await running.until(lambda: len(running.answers) > before + 20)
            assert running.answers[-1][1] == "two"
        assert running.lost == []
        # In one step: whoever comes once the new one has answered is not answered by the old one.
        switched = min(begin + took for begin, text, took in running.answers if text == "two")
        assert {text for begin, text, _ in running.answers if begin > switched} == {"two"}


async def test_a_version_that_never_becomes_healthy_leaves_the_old_one_alone(tmp_path: Path, base: str) -> None:
    part, port = ReplicaPart(), free_port()
    first = an_order(base, a_run(port, command=httpd("one")), named(1))
    health = Health(http=HttpCheck(port=80), interval_seconds=0.2, timeout_seconds=0.5, start_seconds=3)
    silent = a_run(port, command=["/bin/sh", "-c", "echo up; exec sleep 600"], health=health, restart=Restart(most=0))
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(first, an_order(base, silent, named(2))))
        state = await part.state(named(2), "failed")
        assert state.code == "budget_used_up"
        assert "did not become healthy in 3 s" in state.reason
        assert state.last_lines == ["up"]
        assert await get(port) == "one"


async def test_a_port_that_nobody_listens_on(tmp_path: Path, base: str) -> None:
    part, port = ReplicaPart(), free_port()
    health = Health(tcp=TcpCheck(port=80), interval_seconds=0.2, start_seconds=0.5)
    run = a_run(port, command=httpd("one", 81), health=health, restart=Restart(on_exit="never"))
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, run)))
        state = await part.state(named(), "failed")
        assert state.code == "unhealthy"
        assert "nobody listens on port 80" in state.reason
        assert not state.serving


async def test_a_container_that_exits_is_restarted_until_the_budget_is_used_up(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    run = a_run(
        command=["/bin/sh", "-c", "echo dying; exit 3"], restart=Restart(first_seconds=0.1, limit_seconds=0.2, most=2)
    )
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, run)))
        state = await part.state(named(), "failed")
        assert (state.code, state.exit_code, state.restarts) == ("budget_used_up", 3, 2)
        assert "exited with code 3" in state.reason
        assert state.last_lines == ["dying"] * 3
        await part.until(lambda: part.text(named()) == "dying\n" * 3)
        assert [record.attempt for record in part.records(named())] == [1, 2, 3]
        # A higher generation begins anew.
        await side.apply_replicas(orders(an_order(base, a_run(command=["sleep", "600"]), generation=2)))
        assert (await part.state(named(), "healthy", generation=2)).restarts == 0


async def test_killed_after_it_was_healthy_it_comes_back(tmp_path: Path, base: str) -> None:
    part, port = ReplicaPart(), free_port()
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, a_run(port, command=httpd("one")))))
        await part.serving(named())
        await docker("kill", *await containers_of(owner_of(tmp_path / "state")))
        await part.until(lambda: any(each.code == "exited" for each in part.seen))
        # The front waits for it meanwhile: a request costs time, and is not refused.
        assert await get(port) == "one"
        await part.until(lambda: part.states[named()].serving and part.states[named()].restarts == 1)
        assert part.states[named()].exit_code == 137


async def test_out_of_memory_is_told(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    # tail keeps a line without an end in memory.
    script = "until test -e /tmp/go; do sleep 0.1; done; tail /dev/zero"
    run = a_run(command=["/bin/sh", "-c", script], restart=Restart(on_exit="never"))
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, run)))
        await part.state(named(), "healthy")
        await docker("exec", *await containers_of(owner_of(tmp_path / "state")), "touch", "/tmp/go")
        state = await part.state(named(), "failed")
        assert (state.code, state.oom_killed, state.exit_code) == ("oom_killed", True, 137)
        assert "out of memory" in state.reason


async def test_a_check_by_command_and_a_replica_that_turns_unhealthy(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    script = "touch /tmp/well; echo up; sleep 600"
    health = Health(command=["test", "-e", "/tmp/well"], interval_seconds=0.2, timeout_seconds=30, retries=2)
    run = a_run(command=["/bin/sh", "-c", script], health=health)
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, run)))
        await part.state(named(), "healthy")
        await docker("exec", *await containers_of(owner_of(tmp_path / "state")), "rm", "/tmp/well")
        await part.until(lambda: any(each.code == "unhealthy" for each in part.seen))
        unhealthy = next(each for each in part.seen if each.code == "unhealthy")
        assert "2 checks in a row failed: its check ended with code 1" in unhealthy.reason
        await part.until(lambda: part.states[named()].state == "healthy" and part.states[named()].restarts == 1)


async def test_a_port_that_somebody_else_has(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with keeping(tmp_path, part) as side:
            await side.apply_replicas(orders(an_order(base, a_run(port, command=httpd("one")))))
            await part.until(lambda: named() in part.states and part.states[named()].code == "port_taken")
            state = await part.state(named(), "healthy")
            assert f"port 127.0.0.1:{port} is taken by another program" in state.reason
            assert not state.serving
            taken.close()
            assert (await part.serving(named())).code == ""
            assert await get(port) == "one"


async def test_two_deployments_that_want_one_port(tmp_path: Path, base: str) -> None:
    part, port = ReplicaPart(), free_port()
    other = named(deployment="till")
    async with keeping(tmp_path, part) as side:
        first = an_order(base, a_run(port, command=httpd("one")))
        await side.apply_replicas(orders(first))
        await part.serving(named())
        await side.apply_replicas(orders(first, an_order(base, a_run(port, name="till", command=httpd("two")), other)))
        await part.until(lambda: other in part.states and part.states[other].code == "port_taken")
        assert "another deployment" in part.states[other].reason
        assert await get(port) == "one"


async def test_secrets_are_files_and_nowhere_else(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = ReplicaPart()
    script = "cat /run/secrets/key; echo; sleep 600"
    run = a_run(command=["/bin/sh", "-c", script], secrets=["key"], env={"COLOUR": "b"})
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, run, secrets={"key": b"hunter2-hunter2"})))
        await part.state(named(), "healthy")
        [container] = await containers_of(owner_of(tmp_path / "state"))
        told = await docker("inspect", container)
        assert "hunter2" not in told
        assert "COLOUR=b" in told
        await part.until(lambda: part.text(named()) == "***\n")
        kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
        assert b"hunter2" not in kept
        home = runtime / "replica-secrets"
        assert home.stat().st_mode & 0o777 == 0o700
        assert [path.read_bytes() for path in home.rglob("key")] == [b"hunter2-hunter2"]
        assert "ok" not in await docker("exec", container, "/bin/sh", "-c", "echo a > /run/secrets/key && echo ok")
        await side.apply_replicas(orders())
        await part.gone()
        assert list(home.iterdir()) == []


async def test_a_secret_that_did_not_come(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    run = a_run(command=["sleep", "600"], secrets=["key"], restart=Restart(most=0))
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, run)))
        state = await part.state(named(), "failed")
        assert "secrets that did not come" in state.reason
        assert "key" in state.reason


async def test_volumes_under_the_roots_and_others(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "data").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    script = ["/bin/sh", "-c", "echo mine > /data/file; sleep 600"]

    def order(source: str, index: int) -> Any:
        run = a_run(command=script, volumes=[Volume(source=source, target="/data")])
        return an_order(base, run, named(1, index))

    volume = f"blacktree-test-{free_port()}"
    async with keeping(tmp_path, part, volume_roots=(str(root),)) as side:
        some = (str(root / "data"), str(root / "link"), str(outside), "/var/run", volume, str(root / "none"))
        try:
            await side.apply_replicas(orders(*(order(source, index) for index, source in enumerate(some))))
            await part.state(named(1, 0), "healthy")
            assert (root / "data" / "file").read_text() == "mine\n"
            for index, word in ((1, "leads to"), (2, "is not under"), (3, "is not under"), (5, "is not there")):
                state = await part.state(named(1, index), "failed")
                assert state.code == "volume_refused"
                assert word in state.reason
            await part.state(named(1, 4), "healthy")
            assert volume in await docker("volume", "ls", "-q")
        finally:
            await side.apply_replicas(orders())
            await part.gone()
            await docker("volume", "rm", volume)


async def test_an_image_that_is_not_there(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(
            orders(
                an_order("blacktree-test/no-such:1", a_run()),
                an_order("127.0.0.1:9/no/such:1", a_run(restart=Restart(most=0)), named(1, 1), pull=True),
            )
        )
        assert (await part.state(named(), "failed")).code == "image_missing"
        state = await part.state(named(1, 1), "failed")
        assert state.code == "budget_used_up"
        assert "refused" in state.reason


async def test_a_command_that_is_not_there(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, a_run(command=["/bin/no-such"], restart=Restart(most=0)))))
        state = await part.state(named(), "failed")
        assert state.exit_code == 127
        assert "/bin/no-such" in state.last_lines[-1]


async def test_orders_for_somebody_else_and_old_ones(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    async with keeping(tmp_path, part) as side:
        with pytest.raises(NotAllowed) as caught:
            await side.apply_replicas(orders(worker="w2"))
        assert caught.value.code == "wrong_worker"
        old = orders()
        new = orders(an_order(base, a_run(command=["sleep", "600"])))
        await side.apply_replicas(new)
        await part.state(named(), "healthy")
        assert (await side.apply_replicas(old)).revision == new.revision
        assert part.registrations[0].capabilities == ["replicas", "replicas-kept"]
        before = await containers_of(owner_of(tmp_path / "state"))
        await side.apply_replicas(new)
        assert await containers_of(owner_of(tmp_path / "state")) == before


async def test_no_contact_for_too_long_ends_those_that_may_start_elsewhere(tmp_path: Path, base: str) -> None:
    part, port = ReplicaPart(), free_port()
    movable = an_order(base, a_run(command=["sleep", "600"], failover_seconds=10.0), named(1, 0))
    staying = an_order(base, a_run(port, command=httpd("one")), named(1, 1))
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(movable, staying))
        await part.state(named(1, 0), "healthy")
        await part.serving(named(1, 1))
        owner = owner_of(tmp_path / "state")
        part.deaf = True
        with trio.fail_after(40):
            while len(await containers_of(owner)) == 2:
                await trio.sleep(0.1)
        assert await get(port) == "one"
        part.deaf = False
        await part.until(lambda: named(1, 0) in part.states and part.states[named(1, 0)].code == "cut_off")
        assert part.replica_reports[-1].revision == 0
        await side.apply_replicas(orders(movable, staying))
        await part.state(named(1, 0), "healthy")


async def test_output_waits_for_an_orchestrator_that_takes_none(tmp_path: Path, base: str) -> None:
    part = ReplicaPart()
    part.takes_logs = False
    # More than is held in memory: the rest stays in the engine's log, and nothing is lost or doubled.
    script = """awk 'BEGIN { for (i = 0; i < 30000; i++) print "line-" i "-'$(printf %060d 0)'" }'; sleep 600"""
    async with keeping(tmp_path, part) as side:
        await side.apply_replicas(orders(an_order(base, a_run(command=["/bin/sh", "-c", script]))))
        await part.state(named(), "healthy")
        await part.until(lambda: bool(part.replica_reports[-1].logs))
        part.takes_logs = True
        await part.until(lambda: "line-29999-" in part.text(named())[-100:], 40)
    lines = part.text(named()).splitlines()
    assert [line.split("-")[1] for line in lines] == [str(number) for number in range(30000)]
    assert part.notices(named()) == []


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15, 0.3, 0.6])
async def test_taken_back_at_any_moment_nothing_is_left(tmp_path: Path, base: str, moment: float) -> None:
    part = ReplicaPart()
    async with keeping(tmp_path, part) as side:
        some = [an_order(base, a_run(command=["sleep", "600"]), named(1, index)) for index in range(3)]
        await side.apply_replicas(orders(*some))
        await trio.sleep(moment)
        await side.apply_replicas(orders())
        await part.gone()
        assert await containers_of(owner_of(tmp_path / "state")) == []

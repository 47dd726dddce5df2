"""A disk that is full, read-only or damaged, a socket that cannot be made: a clear error, and nothing is lost."""

import base64
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from blacktree.client import Client
from blacktree.errors import Unavailable
from tests.parts.farm import SLOW, Daemon, Farm, a_spec, open_farm, submit, until_line, until_state
from tests.parts.truth import ended_once, every_event

SHORT = {"step": "1", "lines": 3, "line": "word {n}"}
PRINTED = ["word 1", "word 2", "word 3"]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def farm() -> Iterator[Farm]:
    with open_farm(orchestrator={"lease_seconds": 20}) as farm:
        farm.worker("one")
        yield farm


@pytest.fixture
def small(farm: Farm) -> Iterator[Path]:
    """The farm's state directory as a file system of 16 MiB of its own."""
    farm.state.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "none", str(farm.state)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield farm.state
    farm.close()
    subprocess.run(["umount", "-l", str(farm.state)], check=True)


async def mounted(*options: str) -> None:
    await trio.run_process(["mount", *options])


def fill(ballast: Path, *, leaving: int = 0) -> None:
    """Take all the room there is, but this many bytes."""
    there = os.statvfs(ballast.parent)
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for _ in range((there.f_bavail * there.f_frsize - leaving) // 4096 + (leaving == 0)):
            file.write(bytes(4096))


async def refused(client: Client) -> Unavailable:
    """How a submission is refused, once one is: small ones may still find room."""
    with trio.fail_after(SLOW):
        while True:
            try:
                await client.submit(a_spec(SHORT))
            except Unavailable as error:
                return error


async def one_line(daemon: Daemon, *words: str) -> None:
    """It refuses to start, in one line that says where and what to do."""
    daemon.log.unlink(missing_ok=True)
    daemon.start()
    assert await daemon.ended() == 2, daemon.said()
    [line] = daemon.said().splitlines()
    for word in words:
        assert word in line, line


async def test_a_disk_that_fills_up_under_a_build(farm: Farm, small: Path) -> None:
    """New jobs are refused, the door says why, and the build waits with its lines until there is room again."""
    await farm.up()
    ballast = small / "ballast"
    # Not to be packed away: lines that no compression makes small.
    noise = base64.b64encode(os.urandom(700)).decode()
    go = farm.home / "go"
    parts = [{"lines": 500, "line": f"{number} {{n}} {noise}"} for number in range(20)]
    printed = [f"{number} {n} {noise}" for number in range(20) for n in range(1, 501)]
    async with farm.client() as client:
        job_id = await submit(client, a_spec({"step": "1"}, parts[0], {"until": str(go)}, *parts[1:]), "loud")
        await until_line(client, job_id, "0 1 ")
        # The log needs 10 MiB; there are to be 4.
        fill(ballast, leaving=4 << 20)
        go.touch()
        status = await farm.ready("degraded")
        assert any("full" in reason for reason in status["reasons"]), status
        error = await refused(client)
        assert error.code == "disk_full"
        assert str(small) in error.message
        assert error.advice
        assert (await client.job(job_id))["state"] == "running"
        ballast.unlink()
        await farm.ready("ready")
        job = await until_state(client, job_id, "succeeded")
        assert job["attempt"] == 1
        await ended_once(client, job_id, printed)
        again = await submit(client, a_spec(SHORT), "afterwards")
        await until_state(client, again, "succeeded")


async def test_killed_on_a_full_disk(farm: Farm, small: Path) -> None:
    """What was answered before is there afterwards."""
    await farm.up()
    ballast = small / "ballast"
    async with farm.client() as client:
        farm.workers["one"].kill()
        waiting = [await submit(client, a_spec(SHORT), f"waiting-{number}") for number in range(10)]
        fill(ballast)
        assert (await refused(client)).code == "disk_full"
        farm.orchestrator.kill()
        ballast.unlink()
        await farm.up()
        for job_id in waiting:
            await until_state(client, job_id, "succeeded")
            await ended_once(client, job_id, PRINTED)


async def test_a_read_only_state_directory(farm: Farm, small: Path) -> None:
    await farm.up()
    async with farm.client() as client:
        farm.workers["one"].kill()
        job_id = await submit(client, a_spec(SHORT), "before")
        farm.orchestrator.send(signal.SIGTERM)
        assert await farm.orchestrator.ended() == 0
        await mounted("-o", "remount,ro", str(small))
        await one_line(farm.orchestrator, str(small), "ead-only")
        await mounted("-o", "remount,rw", str(small))
        await farm.up()
        await until_state(client, job_id, "succeeded")
        await ended_once(client, job_id, PRINTED)


async def test_logs_that_turn_read_only_under_a_build(farm: Farm, small: Path) -> None:
    await farm.up()
    logs = small / "logs"
    async with farm.client() as client:
        await until_state(client, await submit(client, a_spec(SHORT), "before"), "succeeded")
        await mounted("--bind", str(logs), str(logs))
        await mounted("-o", "remount,bind,ro", str(logs))
        try:
            # On record, for that needs no log file; but none of its lines can be stored, so it does not end.
            job_id = await submit(client, a_spec(SHORT), "during")
            status = await farm.ready("degraded")
            assert any("cannot be written" in reason for reason in status["reasons"]), status
            assert (await client.job(job_id))["state"] in ("queued", "assigned", "running")
        finally:
            await trio.run_process(["umount", "-l", str(logs)])
        await farm.ready("ready")
        await until_state(client, job_id, "succeeded")
        await ended_once(client, job_id, PRINTED)


async def noted_of(client: Client) -> list[str]:
    return [event["type"] for event in (await client.farm_events())["events"]]


@pytest.mark.parametrize("how", ["torn", "short", "flipped"])
async def test_a_corrupt_last_segment(farm: Farm, how: str) -> None:
    """Bytes beyond the commit are cut off; committed ones that are gone are told one by one. The build goes on."""
    await farm.up()
    async with farm.client() as client:
        gates = [farm.home / f"go-{number}" for number in range(12)]
        talk = [{"until": str(gate), "lines": 50, "line": f"part {n} {{n}}"} for n, gate in enumerate(gates)]
        job_id = await submit(client, a_spec({"step": "1"}, *talk), "talks")
        # Each of them a record of its own.
        for number in range(4):
            gates[number].touch()
            await until_line(client, job_id, f"part {number} 50")
        farm.orchestrator.kill()
        [segment] = sorted((farm.state / "logs").rglob("*.seg"))
        data = bytearray(segment.read_bytes())
        match how:
            case "torn":
                data += data[:1000]
            case "short":
                del data[-100:]
            case "flipped":
                data[-20] ^= 0xFF
        segment.write_bytes(data)
        for gate in gates:
            gate.touch()
        farm.orchestrator.start()
        await farm.ready()
        job = await until_state(client, job_id, "succeeded")
        assert job["attempt"] == 1
        events = await every_event(client, job_id)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        found = [event["line"] for event in events if event["type"] == "log"]
        whole = [f"part {number} {n}" for number in range(12) for n in range(1, 51)]
        lost = [event for event in events if event["type"] == "notice" and event["code"] == "log_damaged"]
        noted = await noted_of(client)
        if how == "torn":
            assert (found, lost) == (whole, [])
            assert "log_damaged" not in noted
            return
        # What cannot be read keeps its numbers, and nothing else is missing or out of place.
        assert 0 < len(lost) < 200
        assert [line for line in whole if line in set(found)] == found
        assert len(found) >= len(whole) - len(lost)
        # The farm's own log is written behind the reader's back.
        with trio.fail_after(40):
            while "log_damaged" not in noted:
                await trio.sleep(0.05)
                noted = await noted_of(client)
        other = await submit(client, a_spec(SHORT), "other")
        await until_state(client, other, "succeeded")
        await ended_once(client, other, PRINTED)


async def test_addresses_that_cannot_be_had(farm: Farm) -> None:
    """Under a file no socket can be made, whoever asks."""
    (farm.home / "file").write_text("")
    where = f"unix:{farm.home}/file/farm.sock"
    environ = dict(farm.orchestrator.environ)
    farm.orchestrator.environ["BLACKTREE_ORCHESTRATOR_GRPC_LISTEN"] = where
    await one_line(farm.orchestrator, f"{farm.home}/file")
    farm.orchestrator.environ = environ
    await farm.up()
    refused = farm.worker("two", listen=where)
    await one_line(refused, f"{farm.home}/file")
    taken = farm.worker("three", listen=f"127.0.0.1:{farm.grpc}")
    await one_line(taken, f"127.0.0.1:{farm.grpc}")
    async with farm.client() as client:
        await until_state(client, await submit(client, a_spec(SHORT), "fine"), "succeeded")

"""SIGTERM while starting, and the second one: exit code 0, and soon."""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.parts.farm import SLOW, a_spec, open_farm, submit, until_state
from tests.parts.whole_farm import COMMAND, open_whole_farm, script

BOUND = SLOW
"""Grace (none left after the second signal), two seconds, and a machine with much to do; less than a grace of 60."""


@contextmanager
def held_up(database: Path) -> Iterator[None]:
    """Whoever opens this database waits."""
    lock = sqlite3.connect(database, isolation_level=None)
    lock.execute("PRAGMA locking_mode = EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        lock.close()


def until_open(pid: int, database: Path, seconds: float = SLOW) -> None:
    """Until this process has the database open: it starts, and is not ready."""
    deadline = time.monotonic() + seconds
    while True:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(each) == str(database):
                    return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("signals", [1, 2])
async def test_an_orchestrator_that_is_told_to_end_while_it_starts(signals: int) -> None:
    with open_farm() as farm:
        daemon = farm.orchestrator
        daemon.trapped = False
        await farm.up(daemon)
        daemon.send(signal.SIGTERM)
        assert await daemon.ended(BOUND) == 0, daemon.said()
        with held_up(farm.state / "blacktree.db"):
            daemon.start()
            await trio.to_thread.run_sync(until_open, daemon.pid, farm.state / "blacktree.db")
            for _ in range(signals):
                daemon.send(signal.SIGTERM)
                await trio.sleep(0.1)
        assert await daemon.ended(BOUND) == 0, daemon.said()
        # And it is whole: it starts again.
        await farm.up(daemon)
        daemon.send(signal.SIGINT)
        assert await daemon.ended(BOUND) == 0, daemon.said()


async def test_the_second_signal_ends_an_orchestrators_patience() -> None:
    with open_farm(orchestrator={"shutdown_grace_seconds": 60}) as farm:
        farm.orchestrator.trapped = False
        farm.worker("w1").trapped = False
        await farm.up()
        async with farm.client() as client:
            job_id = await submit(client, a_spec({"step": "s", "lines": 1}, {"seconds": 300}), "one")
            await until_state(client, job_id, "running")
            farm.orchestrator.send(signal.SIGTERM)
            await farm.ready("draining")
            await trio.sleep(0.5)
            assert farm.orchestrator.alive
            farm.orchestrator.send(signal.SIGTERM)
            assert await farm.orchestrator.ended(BOUND) == 0, farm.said()
            await farm.up()
            job = await until_state(client, job_id, "running")
            assert [attempt["outcome"] for attempt in job["attempts"]] == ["returned", None]


def test_a_whole_farm_and_its_second_signal(tmp_path: Path) -> None:
    with open_whole_farm(
        tmp_path, BLACKTREE_ORCHESTRATOR_SHUTDOWN_GRACE_SECONDS="60", BLACKTREE_WORKER_SHUTDOWN_GRACE_SECONDS="60"
    ) as farm:
        farm.start()
        worker = farm.worker_pid
        build = farm.run("build", "/nowhere/app", "--detach", "--build-arg", script({"seconds": 300}))
        job_id = build.stdout.split()[0]
        farm.wait_for(job_id, "running")
        assert farm.process is not None
        farm.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert farm.process.poll() is None
        # It is waited for less than the grace.
        assert farm.stop() == 0, farm.log.read_text()
        assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize("signals", [1, 2])
def test_a_whole_farm_that_is_told_to_end_while_it_starts(tmp_path: Path, signals: int) -> None:
    with open_whole_farm(tmp_path) as farm:
        farm.start()
        assert farm.stop() == 0
        database = farm.state / "blacktree.db"
        with held_up(database), farm.log.open("a") as log:
            process = subprocess.Popen(
                [*COMMAND, "up", "--state", str(farm.state), "--listen", "127.0.0.1:0"],
                env=farm.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                until_open(process.pid, database)
                for _ in range(signals):
                    process.send_signal(signal.SIGTERM)
                    time.sleep(0.1)
            except BaseException:
                process.kill()
                process.wait()
                raise
        try:
            assert process.wait(BOUND) == 0, farm.log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        recorded = (farm.state / "worker.process").read_text().split()[0]
        assert not Path(f"/proc/{recorded}").exists(), farm.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["up", "orchestrator", "worker"])
def test_told_to_end_while_python_still_imports(command: str, number: signal.Signals, tmp_path: Path) -> None:
    environ = {"PATH": os.defpath, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    process = subprocess.Popen([*COMMAND, command], env=environ, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 60
        while not _catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=40)
        assert process.returncode == 0, said.decode()
        assert b"Traceback" not in said
    finally:
        process.kill()
        process.wait()


def _catches(pid: int, number: signal.Signals) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False

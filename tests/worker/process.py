"""A worker as a process of its own, for what only a process can show."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from blacktree.concurrency.every import every
from blacktree.concurrency.island import open_island
from blacktree.rpc.client import connect_worker
from blacktree.rpc.peer import WorkerSide
from blacktree.rpc.server import serve_orchestrator
from tests.parts.farm import children_of
from tests.parts.orchestrator_side import OrchestratorPart

TOKEN = "join-token-of-the-test"
PROGRAM = """
import sys, msgspec, trio
from blacktree.config import Config
from blacktree.worker import daemon
daemon.FAREWELL_SECONDS = 40.0  # the orchestrator is the test, which may stand still for a moment
trio.run(daemon.serve, msgspec.json.decode(sys.argv[1], type=Config))
"""


class WorkerProcess:
    """A running worker, and its door."""

    def __init__(self, process: trio.Process, side: WorkerSide) -> None:
        self.process = process
        self.side = side

    def children(self) -> list[int]:
        """Its child processes: the guard is the only one."""
        return children_of(self.process.pid)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float) -> int:
        with trio.fail_after(seconds):
            return await self.process.wait()


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_dead(pid: int, seconds: float) -> None:
    await until(lambda: not alive(pid), seconds)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for what only the kernel knows, looking often."""
    with trio.fail_after(seconds):
        async for _ in every(0.02):
            if condition():
                return


@asynccontextmanager
async def a_worker_process(tmp_path: Path, part: OrchestratorPart, **keys: Any) -> AsyncIterator[WorkerProcess]:
    """Registered with the part. Killed at the end if it still runs."""
    (tmp_path / "token").write_text(TOKEN)
    async with open_island(), trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_orchestrator, part, "127.0.0.1:0", join_token=TOKEN))
        process = await start(tmp_path, address, **keys)
        try:
            await part.until(lambda: bool(part.registrations))
            async with connect_worker(part.registrations[-1].address, join_token=TOKEN) as side:
                yield WorkerProcess(process, side)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(40, shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()


async def start(
    tmp_path: Path, orchestrator: str, *, environ: dict[str, str] | None = None, **keys: Any
) -> trio.Process:
    settings: dict[str, Any] = {
        "id": "w1",
        "orchestrator": orchestrator,
        "listen": "127.0.0.1:0",
        "state_directory": str(tmp_path / "state"),
        "join_token_file": str(tmp_path / "token"),
        "provider": "scripted",
        "steps": ["build", "tag"],
        "minimum_free_disk_bytes": 0,
    }
    config = msgspec.json.encode({"worker": settings | keys}).decode()
    with (tmp_path / "worker.log").open("ab") as log:
        return await trio.lowlevel.open_process(
            [sys.executable, "-c", PROGRAM, config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parent.parent.parent,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | (environ or {}),
        )

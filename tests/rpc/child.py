"""A worker in a process of its own, for tests that kill or freeze it: `python -m tests.rpc.child LISTEN open|shut`.

Prints its address, and `called` when a call has reached it. `shut`: calls wait for ever.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from blacktree.concurrency.island import open_island
from blacktree.rpc.peer import PingAnswer
from blacktree.rpc.server import serve_worker
from tests.contracts.peer import StandInWorker

ROOT = Path(__file__).parent.parent.parent


class _Worker(StandInWorker):
    async def ping(self) -> PingAnswer:
        print("called", flush=True)
        return await super().ping()


async def _main(listen: str, gate: str) -> None:
    worker = _Worker()
    if gate == "shut":
        worker.gate = trio.Event()

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        await serve_worker(worker, listen, join_token="t", task_status=task_status)

    async with open_island(), trio.open_nursery() as nursery:
        print(await nursery.start(serve), flush=True)


class Child:
    """The process and what it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""

    async def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            piece = await self.process.stdout.receive_some()
            assert piece, "the child has ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def open_child(listen: str, gate: str = "open") -> AsyncIterator[Child]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.rpc.child", listen, gate], stdout=-1, cwd=ROOT
    )
    try:
        yield Child(process)
    finally:
        with trio.move_on_after(40, shield=True):
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


if __name__ == "__main__":
    trio.run(_main, *sys.argv[1:])

"""Two ends of a wire within a test: `house()` opens an island, serves stand-ins and says where."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from blacktree.concurrency.island import open_island
from blacktree.rpc.server import serve_orchestrator, serve_worker
from blacktree.rpc.tls import Tls
from tests.contracts.peer import StandInOrchestrator, StandInWorker

TOKEN = "the-join-token"


class House:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.worker = StandInWorker()
        self.orchestrator = StandInOrchestrator()
        self.scopes: list[trio.CancelScope] = []

    async def serve_worker(self, listen: str = "127.0.0.1:0", tls: Tls | None = None, keepalive: float = 10.0) -> str:
        async def serve(task_status: trio.TaskStatus[str]) -> None:
            with trio.CancelScope() as scope:
                self.scopes.append(scope)
                await serve_worker(
                    self.worker,
                    listen,
                    join_token=TOKEN,
                    tls=tls,
                    keepalive_seconds=keepalive,
                    task_status=task_status,
                )
            self.ended.set()

        self.ended = trio.Event()
        address: str = await self.nursery.start(serve)
        return address

    async def stop(self) -> None:
        self.scopes.pop().cancel()
        await self.ended.wait()

    async def serve_orchestrator(self, listen: str = "127.0.0.1:0", tls: Tls | None = None) -> str:
        async def serve(task_status: trio.TaskStatus[str]) -> None:
            await serve_orchestrator(self.orchestrator, listen, join_token=TOKEN, tls=tls, task_status=task_status)

        address: str = await self.nursery.start(serve)
        return address


@asynccontextmanager
async def house(seconds: float = 100) -> AsyncIterator[House]:
    with trio.fail_after(seconds):
        async with open_island(), trio.open_nursery() as nursery:
            yield House(nursery)
            nursery.cancel_scope.cancel()

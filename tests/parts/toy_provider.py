"""A worker provider in this process: its workers are toys that join the house by real gRPC."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from blacktree.errors import BadRequest, BlacktreeError, Unavailable
from blacktree.scaling import Machine, WorkerProvider, WorkerProviderSettings
from tests.parts.toy_worker import ToyWorker


class ToyProvider:
    """Starts toys. `fail` is raised by `start`, `broken` by `machines`; `mute` ones never join, and none before `doors`
    is set (a test may put an event of its own there)."""

    def __init__(self, directory: Path, join_token: str) -> None:
        self._to_launch, self._launched = trio.open_memory_channel[ToyWorker](100)
        self._directory = directory
        self._token = join_token
        self.toys: dict[str, ToyWorker] = {}
        self.scopes: dict[str, trio.CancelScope] = {}
        self.ended: dict[str, str] = {}
        self.starts: list[str] = []
        self.started_at: list[float] = []
        self.doors = trio.Event()
        self.doors.set()
        self.stops: list[str] = []
        self.fail: BlacktreeError | None = None
        self.broken: Exception | None = None
        self.mute = False
        self.automatic = False
        self.most = 0
        self.left = False
        self._over: dict[str, trio.Event] = {}
        self.on_stop: Callable[[str], None] = lambda id: None

    @asynccontextmanager
    async def open(self, name: str, settings: WorkerProviderSettings) -> AsyncIterator[WorkerProvider]:
        if name != "toys":
            raise BadRequest(f"no provider {name}")
        self.settings = settings
        yield self

    async def start(self, worker_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.starts.append(worker_id)
        self.started_at.append(trio.current_time())
        if self.fail is not None:
            raise self.fail
        toy = ToyWorker(worker_id, pool=self.settings.pool, slots=self.settings.slots, automatic=self.automatic)
        self.toys[worker_id] = toy
        self.scopes[worker_id] = trio.CancelScope()
        self.most = max(self.most, len(self.toys))
        if not self.mute:
            self._to_launch.send_nowait(toy)

    async def launch(self) -> None:
        """Runs the toys. Not in the house's own tasks: workers outlive their orchestrator, and its island."""
        async with trio.open_nursery() as nursery:
            async for toy in self._launched:
                await self.doors.wait()
                nursery.start_soon(self._live, toy)

    async def _live(self, toy: ToyWorker) -> None:
        over = self._over[toy.id] = trio.Event()
        try:
            with self.scopes[toy.id]:
                await toy.run(self.settings.orchestrator, self._token, self._directory)
        except* Unavailable:
            pass  # the house ended while it came
        finally:
            over.set()

    async def _end(self, worker_id: str) -> None:
        self.scopes[worker_id].cancel()
        if worker_id in self._over:
            await self._over[worker_id].wait()

    def die(self, worker_id: str, detail: str = "") -> None:
        """It ends by itself and leaves something."""
        self.scopes[worker_id].cancel()
        del self.toys[worker_id]
        self.ended[worker_id] = detail

    async def machines(self) -> list[Machine]:
        await trio.lowlevel.checkpoint()
        if self.broken is not None:
            raise self.broken
        ended = [Machine(id=id, running=False, detail=detail) for id, detail in self.ended.items()]
        return ended + [Machine(id=id, running=True) for id in self.toys]

    async def stop(self, worker_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.on_stop(worker_id)
        self.stops.append(worker_id)
        self.ended.pop(worker_id, None)
        if (toy := self.toys.pop(worker_id, None)) is not None:
            if toy.side is not None:
                await toy.side.leave(toy.id, toy.incarnation)
            await self._end(worker_id)

    async def leave(self) -> None:
        self.left = True

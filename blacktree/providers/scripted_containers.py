"""`Containers` without an engine: what a container does is told by its command. For dry runs of a farm, and for tests.

The command is a list of words: `print TEXT`, `sleep SECONDS`, `exit CODE`, `oom`, `listen` (answers every connection on
its published ports with the value of the variable `TEXT`, as HTTP). Without a command it listens until it is stopped.
A command run in a container ends with 0 for `true`, with 1 for anything else.
"""

import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import trio

from blacktree.clock import now
from blacktree.errors import NotFound, StepFailed
from blacktree.providers.base import Login
from blacktree.providers.containers import Container, ContainerRequest, LogEntry, LogPosition, Ran

TERMINATED = 143


class _Kept:
    def __init__(self, number: int, request: ContainerRequest) -> None:
        self.id = f"{number:064x}"
        self.request = request
        self.started = False
        self.ended = trio.Event()
        self.exit_code = 0
        self.oom_killed = False
        self.ports: dict[int, tuple[str, int]] = {}
        self.entries: list[LogEntry] = []
        self.printed = trio.Event()
        self.scope = trio.CancelScope()

    def say(self, text: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        same = self.entries[-1].position.count + 1 if self.entries and self.entries[-1].position.stamp == stamp else 1
        self.entries.append(LogEntry("stdout", now(), text.encode(), LogPosition(stamp, same)))
        self.tell()

    def tell(self) -> None:
        self.printed.set()
        self.printed = trio.Event()

    def view(self) -> Container:
        running = self.started and not self.ended.is_set()
        return Container(
            id=self.id,
            labels=dict(self.request.labels),
            state="running" if running else "ended" if self.started else "created",
            exit_code=self.exit_code if self.ended.is_set() else None,
            oom_killed=self.oom_killed,
            ports=self.ports if running else {},
        )


class ScriptedContainers:
    """Needs a nursery to run them in: they end with it. `images` is None where every image is there."""

    def __init__(self, nursery: trio.Nursery, *, images: set[str] | None = None) -> None:
        self._nursery = nursery
        self._images = images
        self._kept: dict[str, _Kept] = {}
        self._numbers = itertools.count(1)

    async def has(self, image: str) -> bool:
        """See `Containers`; so are the others."""
        await trio.lowlevel.checkpoint()
        return self._images is None or image in self._images

    async def pull(self, image: str, login: Login | None) -> None:
        await trio.lowlevel.checkpoint()
        if "no-such" in image:
            raise StepFailed(f"pull: {image} is not there", code="image_missing", again=False)
        if self._images is not None:
            self._images.add(image)

    async def create(self, request: ContainerRequest) -> str:
        await trio.lowlevel.checkpoint()
        if not await self.has(request.image):
            raise StepFailed(f"image {request.image} is not here", code="image_missing", again=False)
        if any(each.request.name == request.name for each in self._kept.values()):
            raise StepFailed(f"create: the name {request.name} is in use", code="name_taken", again=True)
        made = _Kept(next(self._numbers), request)
        self._kept[made.id] = made
        return made.id

    async def start(self, container: str) -> None:
        kept = self._find(container)
        if not kept.started:
            kept.started = True
            await self._nursery.start(self._live, kept)
        await trio.lowlevel.checkpoint()

    async def _live(self, kept: _Kept, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        kept.exit_code = TERMINATED
        try:
            with kept.scope:
                async with trio.open_nursery() as nursery:
                    for port in kept.request.ports:
                        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
                        kept.ports[port] = "127.0.0.1", listener.socket.getsockname()[1]
                        nursery.start_soon(trio.serve_listeners, lambda stream: _answer(kept, stream), [listener])
                    task_status.started()
                    kept.exit_code = await _act(kept)
                    nursery.cancel_scope.cancel()
        finally:
            kept.ended.set()
            kept.tell()

    async def stop(self, container: str, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        if (kept := self._kept.get(container)) is not None and kept.started:
            kept.scope.cancel()
            await kept.ended.wait()

    async def wait(self, container: str) -> Container:
        kept = self._find(container)
        await kept.ended.wait()
        return kept.view()

    async def inspect(self, container: str) -> Container | None:
        await trio.lowlevel.checkpoint()
        kept = self._kept.get(container)
        return kept.view() if kept is not None else None

    async def remove(self, container: str) -> None:
        await trio.lowlevel.checkpoint()
        if (kept := self._kept.pop(container, None)) is not None:
            kept.scope.cancel()
            kept.tell()

    async def listed(self) -> list[Container]:
        await trio.lowlevel.checkpoint()
        return [kept.view() for kept in self._kept.values()]

    async def run(self, container: str, argv: list[str], seconds: float) -> Ran:
        await trio.lowlevel.checkpoint()
        if self._find(container).view().state != "running":
            raise NotFound(f"container {container[:12]} does not run")
        if argv[0] == "sleep":
            with trio.move_on_after(seconds):
                await trio.sleep(float(argv[1]))
                return Ran(0)
            return Ran(None)
        return Ran(0) if argv == ["true"] else Ran(1, b"no\n")

    @asynccontextmanager
    async def logs(self, container: str, after: LogPosition | None) -> AsyncIterator["_Reader"]:
        await trio.lowlevel.checkpoint()
        yield _Reader(self._find(container), after)

    def _find(self, container: str) -> _Kept:
        try:
            return self._kept[container]
        except KeyError:
            raise NotFound(f"container {container[:12]} is gone") from None


class _Reader:
    def __init__(self, kept: _Kept, after: LogPosition | None) -> None:
        self._kept = kept
        positions = [each.position for each in kept.entries]
        self.missed = after is not None and after not in positions
        self._at = positions.index(after) + 1 if after in positions else 0

    async def next(self) -> list[LogEntry]:
        await trio.lowlevel.checkpoint()
        while self._at >= len(self._kept.entries):
            if self._kept.ended.is_set():
                return []
            await self._kept.printed.wait()
        found = self._kept.entries[self._at :]
        self._at = len(self._kept.entries)
        return found


async def _act(kept: _Kept) -> int:
    words = deque(kept.request.command or ["listen"])
    while words:
        match words.popleft():
            case "print":
                kept.say(words.popleft() + "\n")
            case "sleep":
                await trio.sleep(float(words.popleft()))
            case "exit":
                return int(words.popleft())
            case "oom":
                kept.oom_killed = True
                return 137
            case "listen":
                await trio.sleep_forever()
            case unknown:
                kept.say(f"{unknown}: not found\n")
                return 127
        await trio.lowlevel.checkpoint()
    return 0


async def _answer(kept: _Kept, stream: trio.SocketStream) -> None:
    body = kept.request.env.get("TEXT", "").encode()
    try:
        if await stream.receive_some():
            await stream.send_all(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    except trio.BrokenResourceError:
        pass
    finally:
        await stream.aclose()

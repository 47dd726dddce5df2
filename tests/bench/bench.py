"""`Bench`: what the rows share: sizes, a directory, one RabbitMQ, and how processes are started and ended."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from tests.parts.rabbit import RabbitNode, missing, open_rabbit

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


class NotHere(Exception):
    """A part that a row needs is missing on this machine."""


class Bench:
    """One run of the bench. Close it, or use it as a context manager: it ends what it started."""

    def __init__(self, *, quick: bool, minutes: float | None = None) -> None:
        self.quick = quick
        self.minutes = minutes or (0.2 if quick else 10.0)
        """How long what goes on for long goes on."""
        self._stack = ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="blacktree-bench-")))
        self._node: RabbitNode | None = None
        self._directories = 0
        self._deadline = time.monotonic()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def limit(self, seconds: float) -> None:
        """From now on so long, for what `run` runs."""
        self._deadline = time.monotonic() + seconds

    def run(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """As `trio.run`, within what is left of the row's time. Raises `trio.TooSlowError`."""

        async def limited() -> T:
            with trio.fail_after(max(0.0, self._deadline - time.monotonic())):
                return await function(*arguments)

        return trio.run(limited)

    def size(self, full: int, quick: int) -> int:
        """How much of it."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Progress, for whoever watches."""
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def new_directory(self, name: str) -> Path:
        """A directory of one row's own. Short: unix sockets lie in it."""
        self._directories += 1
        path = self.directory / f"{name}{self._directories}"
        path.mkdir()
        return path

    def rabbit(self) -> RabbitNode:
        """The run's own RabbitMQ, without any queue."""
        if self._node is None:
            if why := missing():
                raise NotHere(why)
            self._node = self._stack.enter_context(open_rabbit())
        else:
            self._node.clear()
        return self._node


def environment(**changes: str) -> dict[str, str]:
    """The caller's environment without settings of a farm of theirs, and with this checkout on Python's path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BLACKTREE_")}
    for key in ("MQ_URL", "ORCHESTRATOR_ADDR", "ORCHESTRATOR_GRPC_PORT", "WORKER_ID", "NOTIFY_SOCKET"):
        kept.pop(key, None)
    return kept | {"PYTHONPATH": str(ROOT)} | changes


@contextmanager
def running(command: list[str], environ: dict[str, str], log: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended on leaving: asked by SIGTERM, killed after ten seconds."""
    with log.open("ab") as output:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "text": True} | more
        process: subprocess.Popen[str] = subprocess.Popen(command, env=environ, cwd=ROOT, **options)
    try:
        yield process
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def end(process: subprocess.Popen[str], seconds: float = 10) -> float:
    """End it by its id; answers how long that took."""
    began = time.monotonic()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    return time.monotonic() - began


def module(name: str, *arguments: str) -> list[str]:
    """The command line of one of the bench's own programs."""
    return [sys.executable, "-m", f"tests.bench.{name}", *arguments]

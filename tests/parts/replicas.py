"""Replicas in tests: the orchestrator's side of them, orders to give, and a client that counts what it loses."""

import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from blacktree.event import Lines, Notice, Record
from blacktree.rpc.replica import (
    ReplicaAnswer,
    ReplicaLog,
    ReplicaName,
    ReplicaOrder,
    ReplicaOrders,
    ReplicaReport,
    ReplicaState,
    ReplicaStored,
)
from blacktree.runspec import Health, Port, Restart, RunSpec, Strategy, TcpCheck
from tests.parts.orchestrator_side import OrchestratorPart
from tests.parts.ports import free_port as free_port

_revisions = itertools.count(1)


class ReplicaPart(OrchestratorPart):
    """An orchestrator that takes what replicas report; `takes_logs` false: it stores no output."""

    def __init__(self, *, lease_seconds: float = 30.0) -> None:
        super().__init__(lease_seconds=lease_seconds)
        self.replica_reports: list[ReplicaReport] = []
        self.seen: list[ReplicaState] = []
        self.logs: dict[tuple[ReplicaName, int], list[ReplicaLog]] = {}
        self.takes_logs = True
        self.deaf = False
        self.lose_replica_answers = 0

    async def report_replicas(self, report: ReplicaReport) -> ReplicaAnswer:
        await self._reach()
        if self.deaf:
            await trio.sleep_forever()
        if report.incarnation not in self.known:
            return ReplicaAnswer(known=False)
        self.replica_reports.append(report)
        for state in report.states:
            if state not in self.seen:
                self.seen.append(state)
        stored: dict[tuple[ReplicaName, int], int] = {}
        for piece in report.logs:
            kept = self.logs.setdefault((piece.name, piece.generation), [])
            if self.takes_logs and piece.number == len(kept) + 1:
                kept.append(piece)
            elif piece.number <= len(kept):
                assert piece == kept[piece.number - 1], "a piece changed after it was sent"
            stored[piece.name, piece.generation] = len(kept) + 1
        self._ring()
        if self.lose_replica_answers > 0:
            self.lose_replica_answers -= 1
            await trio.sleep_forever()
        return ReplicaAnswer(
            known=True,
            stored=[
                ReplicaStored(name=name, generation=generation, next_number=number)
                for (name, generation), number in stored.items()
            ],
        )

    async def until(self, condition: Callable[[], bool], seconds: float = 40) -> None:
        """As for builds; but starting and stopping containers takes an engine on a busy machine its time."""
        await super().until(condition, seconds)

    @property
    def states(self) -> dict[ReplicaName, ReplicaState]:
        """As last reported."""
        return {state.name: state for state in self.replica_reports[-1].states} if self.replica_reports else {}

    async def state(self, name: ReplicaName, *words: str, seconds: float = 40, generation: int = 1) -> ReplicaState:
        """Wait until this replica is in one of these states."""
        found: list[ReplicaState] = []

        def there() -> bool:
            state = self.states.get(name)
            if state is not None and state.state in words and state.generation == generation:
                found.append(state)
            return bool(found)

        await self.until(there, seconds)
        return found[0]

    async def serving(self, name: ReplicaName, seconds: float = 40) -> ReplicaState:
        """Wait until the fronts lead to it."""
        await self.until(lambda: name in self.states and self.states[name].serving, seconds)
        return self.states[name]

    async def gone(self, seconds: float = 40) -> None:
        """Wait until a report names nothing."""
        await self.until(lambda: bool(self.replica_reports) and not self.replica_reports[-1].states, seconds)

    def records(self, name: ReplicaName, generation: int = 1) -> list[Record]:
        return [record for piece in self.logs.get((name, generation), []) for record in piece.records]

    def text(self, name: ReplicaName, generation: int = 1) -> str:
        return "".join(each.text for each in self.records(name, generation) if isinstance(each, Lines))

    def notices(self, name: ReplicaName, generation: int = 1) -> list[str]:
        return [each.code for each in self.records(name, generation) if isinstance(each, Notice)]


def named(version: int = 1, index: int = 0, deployment: str = "shop") -> ReplicaName:
    return ReplicaName(deployment=deployment, version=version, index=index)


def httpd(text: str, port: int = 80) -> list[str]:
    """A server that answers every GET with this text."""
    return [
        "/bin/sh",
        "-c",
        f"mkdir -p /tmp/w && echo '{text}' > /tmp/w/index.html && exec httpd -f -p {port} -h /tmp/w",
    ]


def a_run(front: int | None = None, *, command: Sequence[str] = (), **keys: Any) -> RunSpec:
    """Quick in everything."""
    defaults: dict[str, Any] = {
        "name": "shop",
        "ports": [Port(container=80, host=front)] if front else [],
        "command": list(command),
        "memory_bytes": 32 << 20,
        "health": Health(
            tcp=TcpCheck(port=80) if front else None,
            interval_seconds=0.2,
            timeout_seconds=30,
            retries=2,
            start_seconds=120,
        ),
        "restart": Restart(first_seconds=0.1, limit_seconds=0.5, most=5),
        "strategy": Strategy(drain_seconds=2, stop_seconds=1),
    }
    return RunSpec(**(defaults | keys))


def an_order(image: str, run: RunSpec, name: ReplicaName | None = None, **keys: Any) -> ReplicaOrder:
    return ReplicaOrder(
        **({"name": name or named(), "generation": 1, "image": image, "run": run, "serve": True} | keys)
    )


def orders(*some: ReplicaOrder, worker: str = "w1") -> ReplicaOrders:
    """The next revision."""
    return ReplicaOrders(worker_id=worker, revision=next(_revisions), orders=list(some))


async def get(port: int, path: str = "/", seconds: float = 40) -> str:
    """The body of one GET. Raises `OSError` if it was lost."""
    with trio.fail_after(seconds):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
            body = b""
            try:
                while data := await stream.receive_some():
                    body += data
            except trio.BrokenResourceError as error:
                raise ConnectionResetError(str(error)) from None
    head, blank, content = body.partition(b"\r\n\r\n")
    if not blank or b" 200 " not in head.split(b"\r\n")[0]:
        raise ConnectionResetError(f"no answer: {body[:100]!r}")
    return content.decode().strip()


class Load:
    """Requests at an even pace, each on its own connection: what came back, and what was lost."""

    def __init__(self, port: int, per_second: float) -> None:
        self.port = port
        self.pace = 1 / per_second
        self.answers: list[tuple[float, str, float]] = []
        self.lost: list[tuple[float, str]] = []

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            at = trio.current_time()
            while True:
                nursery.start_soon(self._one)
                at += self.pace
                await trio.sleep_until(at)

    async def _one(self) -> None:
        begin = time.monotonic()
        try:
            text = await get(self.port)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            self.lost.append((begin, repr(error)))
        else:
            self.answers.append((begin, text, time.monotonic() - begin))

    async def until(self, condition: Callable[[], bool], seconds: float = 40) -> None:
        with trio.fail_after(seconds):
            while not condition():
                await trio.sleep(0.01)


@asynccontextmanager
async def load(port: int, per_second: float = 50) -> AsyncIterator[Load]:
    """Under load until it is left."""
    running = Load(port, per_second)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        yield running
        nursery.cancel_scope.cancel()


async def docker(*arguments: str, socket_path: str = "") -> str:
    """What the docker command says."""
    environ = os.environ | ({"DOCKER_HOST": f"unix://{socket_path}"} if socket_path else {})
    done = await trio.run_process(
        ["docker", *arguments], capture_stdout=True, capture_stderr=True, env=environ, check=False
    )
    return done.stdout.decode().strip()


async def containers_of(owner: str, socket_path: str = "") -> list[str]:
    """The ids of an owner's replicas, running or not."""
    listed = await docker(
        "ps", "-aq", "--no-trunc", "--filter", f"label=dev.blacktree.replicas={owner}", socket_path=socket_path
    )
    return listed.split()


def owner_of(state: Path, worker: str = "w1") -> str:
    """How a worker with this state directory labels what it makes."""
    import hashlib

    secret = (state / "secret").read_text().strip()
    return f"{worker}-{hashlib.sha256(secret.encode()).hexdigest()[:16]}"

"""The guard's part for replicas, as far as it needs no engine; with one: tests/scenarios/test_failover.py."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from blacktree.rpc.replica import ReplicaName, ReplicaOrder, ReplicaOrders
from blacktree.runspec import RunSpec
from blacktree.worker.fence import ALIVE_SECONDS, Fence, cut_off_at, moments
from blacktree.worker.lease import boottime
from blacktree.worker.replica_store import ReplicaStore


def an_order(deployment: str, failover_seconds: float | None) -> ReplicaOrder:
    run = RunSpec(name=deployment, failover_seconds=failover_seconds)
    return ReplicaOrder(
        name=ReplicaName(deployment=deployment, version=1, index=0),
        generation=1,
        image="app:1",
        pull=False,
        serve=True,
        run=run,
    )


class Engine:
    """Answers as an engine with these containers, one connection after the other; remembers what was stopped."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path = path
        self.running = {str(number): name for number, name in enumerate(names)}
        self.stopped: list[str] = []
        self.refusals: dict[str, int] = {}
        self.mute: list[str] = []
        self.heard = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            with link:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += link.recv(4096)
                target = head.split()[1].decode()
                if any(target.endswith(each) for each in self.mute[:1]):
                    self.mute.pop(0)
                elif self._refuses(target):
                    link.sendall(b"HTTP/1.0 500 Internal Server Error\r\n\r\n")
                else:
                    link.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + self._answer(target).encode())

    def _refuses(self, target: str) -> bool:
        name = self.running[target.split("/")[2]] if target.endswith("/stop?t=0") else ""
        left = self.refusals.get(name, 0)
        self.refusals[name] = left - 1
        return left > 0

    def _answer(self, target: str) -> str:
        if target.endswith("/stop?t=0"):
            self.stopped.append(self.running.pop(target.split("/")[2]))
            self.heard.set()
        return json.dumps(
            [{"Id": each, "Labels": {"dev.blacktree.replica": name}} for each, name in self.running.items()]
        )

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "e", ["moves/1/0", "stays/1/0", "old/1/0"])
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> ReplicaStore:
    made = ReplicaStore(tmp_path, "one")
    made.prepare()
    orders = [an_order("moves", 10.0), an_order("stays", None)]
    made.write(ReplicaOrders(worker_id="w", revision=1, orders=orders), [])
    return made


def a_fence(store: ReplicaStore, engine: Engine, process: str = "one") -> Fence:
    return Fence(str(store.home), f"unix://{engine.path}", "owner", process)


def test_only_what_may_move_has_an_end(store: ReplicaStore) -> None:
    orders = msgspec.json.decode((store.home / "orders").read_bytes())
    assert moments(orders, 100.0) == {"moves/1/0": cut_off_at(100.0, 10.0), "stays/1/0": None}


def test_a_dead_workers_replicas_are_ended_when_their_time_is_over(store: ReplicaStore, engine: Engine) -> None:
    store.write_contact(boottime() - 10.0)
    a_fence(store, engine).run()
    # And what the worker had been told to end already; but not what waits for it.
    assert sorted(engine.stopped) == ["moves/1/0", "old/1/0"]


def test_one_that_the_engine_cannot_stop_keeps_none_of_the_others(store: ReplicaStore, engine: Engine) -> None:
    store.write_contact(boottime() - 10.0)
    engine.refusals["moves/1/0"] = 2
    a_fence(store, engine).run()
    assert engine.stopped == ["old/1/0", "moves/1/0"]


def test_an_engine_that_hangs_up_without_a_word_is_asked_again(store: ReplicaStore, engine: Engine) -> None:
    store.write_contact(boottime() - 10.0)
    engine.mute = ["", "/stop?t=0", "/stop?t=0"]
    a_fence(store, engine).run()
    assert sorted(engine.stopped) == ["moves/1/0", "old/1/0"]


def test_a_worker_that_is_back_is_left_alone(tmp_path: Path, store: ReplicaStore, engine: Engine) -> None:
    store.write_contact(boottime() - 10.0)
    ReplicaStore(tmp_path, "two").prepare()
    a_fence(store, engine).run()
    assert engine.stopped == []


def test_a_worker_that_was_heard_lately_is_waited_for(tmp_path: Path, store: ReplicaStore, engine: Engine) -> None:
    store.write_contact(boottime() + 3600.0)
    fence = a_fence(store, engine)
    waiting = threading.Thread(target=fence.run, daemon=True)
    waiting.start()
    assert engine.heard.wait(40)
    ReplicaStore(tmp_path, "two").prepare()
    waiting.join(40)
    assert not waiting.is_alive()
    assert engine.stopped == ["old/1/0"]


def test_a_frozen_worker_gets_a_moment_more(store: ReplicaStore, engine: Engine) -> None:
    sent = boottime()
    store.write_contact(sent)
    fence = a_fence(store, engine)
    assert fence.due() == pytest.approx(cut_off_at(sent, 10.0) + ALIVE_SECONDS)
    store.write_contact(sent - 100.0)
    fence.cut()
    # What it is about to end it may still end in its own time.
    assert engine.stopped == ["moves/1/0"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"orders": [{}]}', b'{"orders": 1}'])
def test_damaged_orders_end_nothing(store: ReplicaStore, engine: Engine, content: bytes) -> None:
    store.write_contact(boottime() - 100.0)
    (store.home / "orders").write_bytes(content)
    fence = a_fence(store, engine)
    fence.run()
    fence.cut()
    assert fence.due() == 0.0
    assert engine.stopped == []

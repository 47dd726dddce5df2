"""Ends the replicas of a worker that is dead or frozen before the orchestrator starts them elsewhere.

Runs in the guard (`watchman`), on the standard library alone, by what the worker has left in its state directory: its
orders, and when it was last heard (`replica_store`). What may not move runs on; a worker that is back looks after
its replicas itself.
"""

import json
import os
import socket
import time
from typing import Any
from urllib.parse import quote

LOOK_SECONDS = 0.5
ENGINE_SECONDS = 10.0
# An engine that does not answer for so long is left alone: a guard does not live for ever.
LONGEST_SECONDS = 3600.0
# A worker that lives ends them itself, and keeps the time of its contact only once a second.
ALIVE_SECONDS = 2.0
OWNER_LABEL = "dev.blacktree.replicas"
NAME_LABEL = "dev.blacktree.replica"


def cut_off_at(sent: float, failover_seconds: float) -> float:
    """When a replica with this `failover_seconds` must be gone, counted from the sending of the last answered report:
    early enough for its drain to be cut short and its container killed."""
    return sent + failover_seconds - min(failover_seconds / 2, 15.0)


def moments(orders: dict[str, Any], sent: float) -> dict[str, float | None]:
    """Of a worker's orders, by each replica's name: when it must be gone, None for one that waits for its worker."""
    found: dict[str, float | None] = {}
    for order in orders["orders"]:
        name, after = order["name"], order["run"].get("failover_seconds")
        row = f"{name['deployment']}/{name['version']}/{name['index']}"
        found[row] = None if after is None else cut_off_at(sent, after)
    return found


class Fence:
    """`home`: where the worker keeps what is on record of its replicas; `process`: its own mark in there."""

    def __init__(self, home: str, engine: str, owner: str, process: str) -> None:
        self._home = home
        self._engine = engine
        self._owner = owner
        self._process = process

    def due(self) -> float:
        """While the worker lives: when it has failed to end something of its own; 0 for never."""
        try:
            if not self._ours():
                return 0.0
            found = [each for each in moments(self._read("orders"), self._read("contact")["sent"]).values() if each]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0.0
        return min(found) + ALIVE_SECONDS if found else 0.0

    def cut(self) -> None:
        """While the worker lives: end what is due, once."""
        try:
            self._end(moments(self._read("orders"), self._read("contact")["sent"]), ALIVE_SECONDS, strays=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return

    def run(self) -> None:
        """After the worker's end: until it is back, or nothing is left to be ended."""
        died = _boottime()
        while _boottime() < died + LONGEST_SECONDS:
            try:
                if not self._ours():
                    return
                plan = moments(self._read("orders"), self._contact(died))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return
            try:
                # What it was about to end anyway goes at once.
                left = self._end(plan, 0.0, strays=True)
            except (OSError, ValueError, KeyError):
                left = True
            if not left:
                return
            time.sleep(LOOK_SECONDS)

    def _ours(self) -> bool:
        """Whether no other process of this worker has begun since."""
        with open(os.path.join(self._home, "process"), encoding="ascii") as file:
            return file.read().strip() == self._process

    def _contact(self, died: float) -> float:
        try:
            return float(self._read("contact")["sent"])
        except (OSError, ValueError, KeyError, TypeError):
            return died

    def _read(self, name: str) -> dict[str, Any]:
        with open(os.path.join(self._home, name), "rb") as file:
            found: dict[str, Any] = json.load(file)
        return found

    def _end(self, plan: dict[str, float | None], patience: float, *, strays: bool) -> bool:
        """End what is due; whether something that runs is still to be ended. Raises OSError, ValueError."""
        wanted = quote(json.dumps({"label": [f"{OWNER_LABEL}={self._owner}"], "status": ["running", "paused"]}))
        left = False
        for each in json.loads(self._ask("GET", f"/containers/json?filters={wanted}")):
            name = each["Labels"].get(NAME_LABEL, "")
            at = plan.get(name, 0.0 if strays else None)
            if at is None:
                continue
            due = _boottime() >= at + patience and self._ours()
            if not (due and self._stopped(each["Id"])):
                left = True
        return left

    def _stopped(self, container: str) -> bool:
        """One that the engine cannot stop now is tried again, and keeps none of the others."""
        try:
            self._ask("POST", f"/containers/{container}/stop?t=0")
        except (OSError, ValueError):
            return False
        return True

    def _ask(self, method: str, target: str) -> bytes:
        """One request to the engine (Engine API); raises OSError for no answer, ValueError for a bad one."""
        with self._connected() as link:
            link.sendall(f"{method} {target} HTTP/1.0\r\nHost: engine\r\nContent-Length: 0\r\n\r\n".encode())
            parts = []
            while part := link.recv(65536):
                parts.append(part)
        head, _, body = b"".join(parts).partition(b"\r\n\r\n")
        # 304: it has ended already; 404: it is gone. An engine that ends meanwhile hangs up without a word.
        if head.split()[1:2] not in ([b"200"], [b"204"], [b"304"], [b"404"]):
            raise ValueError(head[:200])
        return body

    def _connected(self) -> socket.socket:
        kind, _, place = self._engine.partition("://")
        if kind == "tcp":
            host, _, port = place.rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), ENGINE_SECONDS)
        link = socket.socket(socket.AF_UNIX)
        try:
            link.settimeout(ENGINE_SECONDS)
            link.connect(place)
        except BaseException:
            link.close()
            raise
        return link


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)

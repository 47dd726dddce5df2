"""A farm as an operator runs it: orchestrator and workers, each a process that can be killed and started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from blacktree.client import Client
from blacktree.errors import BlacktreeError, Unavailable
from tests.parts.nest import Forked, fits, nest
from tests.parts.ports import free_port

ROOT = Path(__file__).parents[2]
SLOW = 40.0
"""Seconds within which anything here happens, also on a machine with much to do."""
SHORT_LEASE = {"lease_seconds": 8}
"""For a test that sees a lease run out, and must not see that of a worker which is well, though all stand still for
seconds. All others have one that no busy machine uses up."""


class Daemon:
    """One process of the farm; it may be started again after its end. `trapped`: see `tests/parts/trap.py`."""

    def __init__(self, farm: "Farm", command: str, environ: dict[str, str], *, trapped: bool = True) -> None:
        self.farm = farm
        self.command = command
        self.environ = environ
        self.trapped = trapped
        self.inside: list[str] = []
        """Words before the command that put it elsewhere, e.g. `ip netns exec NAME`."""
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.log = farm.home / f"{environ.get('BLACKTREE_WORKER_ID', command)}.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        assert not self.alive
        module = "tests.parts.trap" if self.trapped else "blacktree"
        environ = self.farm.environ | self.environ
        with self.log.open("ab") as log:
            if fits(environ) and not self.inside:
                out = log.fileno()
                self.process = nest().start(module, self.command, environ=environ, out=out, err=out)
                return
            self.process = subprocess.Popen(
                [*self.inside, sys.executable, "-m", module, self.command],
                env=environ,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(40)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, seconds: float = SLOW) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        try:
            with trio.fail_after(seconds):
                while (code := self.process.poll()) is None:
                    await trio.sleep(0.02)
        except trio.TooSlowError:
            raise AssertionError(f"{self.command} goes on:\n{self.said()}") from None
        return code

    def said(self, last: int = 20_000) -> str:
        """The end of its log."""
        with suppress(FileNotFoundError):
            return self.log.read_text(errors="replace")[-last:]
        return ""

    def children(self) -> list[int]:
        """Its child processes; a worker's guard is one."""
        return children_of(self.pid)


class Farm:
    """Ports and directories stay the same over restarts. `orchestrator` and `worker` are settings by their keys."""

    def __init__(self, home: Path, *, orchestrator: dict[str, Any] | None = None) -> None:
        self.home = home
        self.door, self.grpc = free_port(), free_port()
        self.trap = home / "trap"
        self.environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "TRAP_FILE": str(self.trap),
        }
        settings: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.door}",
            "grpc_listen": f"127.0.0.1:{self.grpc}",
            "state_directory": home / "state",
            "lease_seconds": 30,
            "shutdown_grace_seconds": 1,
            "minimum_free_disk_bytes": 0,
            "allow_local_sources": True,
            "retry_first_seconds": 0.1,
            "retry_limit_seconds": 0.5,
        } | (orchestrator or {})
        self.state = Path(settings["state_directory"])
        self.orchestrator = Daemon(self, "orchestrator", _environ("ORCHESTRATOR", settings))
        self.workers: dict[str, Daemon] = {}

    def worker(self, name: str, **settings: Any) -> Daemon:
        """A further worker, not started yet; without other word it follows scripts instead of building."""
        given: dict[str, Any] = {
            "id": name,
            "orchestrator": f"127.0.0.1:{self.grpc}",
            "listen": "127.0.0.1:0",
            "slots": 2,
            "state_directory": self.home / name,
            "join_token_file": self.state / "join-token",
            "provider": "scripted",
            "steps": "build",
            "shutdown_grace_seconds": 1,
            "minimum_free_disk_bytes": 0,
        }
        self.workers[name] = Daemon(self, "worker", _environ("WORKER", given | settings))
        return self.workers[name]

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client that rides out restarts."""
        async with Client(f"http://127.0.0.1:{self.door}", self.token, patience_seconds=SLOW) as client:
            yield client

    async def status(self) -> dict[str, Any]:
        """What the door says of the farm; raises `BlacktreeError` where there is none."""
        async with Client(f"http://127.0.0.1:{self.door}", self.token, patience_seconds=0) as client:
            return await client.server_info()

    async def up(self, *daemons: Daemon) -> None:
        """Start what does not run (all of it, unless some are named), and wait until those workers take builds."""
        chosen = daemons or (self.orchestrator, *self.workers.values())
        if self.orchestrator in chosen:
            if not self.orchestrator.alive:
                self.orchestrator.start()
            await self.ready()
        for daemon in chosen:
            if not daemon.alive:
                daemon.start()
        names = {name for name, worker in self.workers.items() if worker in chosen}
        async with self.client() as client:
            await self.until_workers(client, lambda found: names <= set(found))

    async def ready(self, *states: str) -> dict[str, Any]:
        """Wait until the door is open and says one of these states (without other word: that it takes jobs)."""
        status: dict[str, Any] = {}
        refused: Exception | None = None
        try:
            with trio.fail_after(SLOW):
                while status.get("status") not in (states or ("ready", "degraded")):
                    assert self.orchestrator.alive, self.orchestrator.said()
                    try:
                        status = await self.status()
                    except (BlacktreeError, FileNotFoundError) as error:
                        refused = error
                    await trio.sleep(0.03)
        except trio.TooSlowError:
            raise AssertionError(f"the farm is {status} ({refused!r}):\n{self.orchestrator.said()}") from None
        return status

    async def until_workers(self, client: Client, fits: Callable[[list[str]], bool]) -> None:
        """Wait until the workers that take builds now are as wished."""
        try:
            with trio.fail_after(SLOW):
                while True:
                    found = await client.workers()
                    usable = [each["id"] for each in found if each["state"] != "dead" and not each["refusal"]]
                    if fits(usable):
                        return
                    await trio.sleep(0.05)
        except trio.TooSlowError:
            self.ask_what_it_waits_for()
            raise AssertionError(f"{found}\n{self.said()}") from None

    def arm(self, place: str) -> None:
        """The next process that comes to this place dies there."""
        draft = self.trap.with_suffix(".draft")
        draft.write_text(place)
        draft.rename(self.trap)

    def said(self) -> str:
        """What every process said last."""
        daemons = [self.orchestrator, *self.workers.values()]
        return "\n".join(f"--- {each.log.name}\n{each.said()}" for each in daemons)

    def ask_what_it_waits_for(self) -> None:
        """Have every process write its tasks into its log."""
        for daemon in [self.orchestrator, *self.workers.values()]:
            if daemon.alive and daemon.trapped:
                daemon.send(signal.SIGUSR1)
        time.sleep(1)

    def close(self) -> None:
        """kill -9 for all that runs, guards too: they see their worker's end."""
        for daemon in [self.orchestrator, *self.workers.values()]:
            if daemon.alive:
                with suppress(ProcessLookupError):
                    os.kill(daemon.pid, signal.SIGCONT)
                daemon.kill()


def children_of(pid: int) -> list[int]:
    """The child processes of all its threads. A look during which one ended is made again: others have its children."""
    while True:
        try:
            threads = Path(f"/proc/{pid}/task").iterdir()
            return [int(each) for thread in threads for each in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            if not Path(f"/proc/{pid}").exists():
                return []


def _environ(section: str, settings: dict[str, Any]) -> dict[str, str]:
    return {f"BLACKTREE_{section}_{key.upper()}": str(value) for key, value in settings.items()}


@contextmanager
def open_farm(**keys: Any) -> Iterator[Farm]:
    """Not started yet; whatever runs of it is ended on leaving."""
    home = Path(tempfile.mkdtemp(prefix="bt-farm-"))
    farm = Farm(home, **keys)
    try:
        yield farm
    except BaseException:
        # Before the directory goes; pytest shows it with the failure.
        farm.ask_what_it_waits_for()
        print(farm.said())
        raise
    finally:
        farm.close()
        shutil.rmtree(home, ignore_errors=True)


def script(*actions: dict[str, Any]) -> str:
    """What the scripted provider follows, as the value of the build argument SCRIPT."""
    return json.dumps(list(actions))


def a_spec(*actions: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A job that follows this script."""
    return {"repository": "/nowhere/app", "build_args": {"SCRIPT": script(*actions)}} | keys


async def submit(client: Client, spec: dict[str, Any], key: str) -> str:
    """Submit until it is accepted, across restarts; the key makes that one job."""
    with trio.fail_after(SLOW):
        while True:
            try:
                job: dict[str, Any] = await client.submit(spec, key=key)
                return str(job["id"])
            except Unavailable:
                await trio.sleep(0.1)


async def until_state(client: Client, job_id: str, *states: str, seconds: float = SLOW) -> dict[str, Any]:
    """The job, once it stands in one of these states."""
    job: dict[str, Any] = {}
    try:
        with trio.fail_after(seconds):
            while (job := await client.job(job_id))["state"] not in states:
                await trio.sleep(0.03)
    except trio.TooSlowError:
        raise AssertionError(f"still {job.get('state')}: {job}") from None
    return job


async def until_line(client: Client, job_id: str, word: str, *, attempt: int | None = None) -> None:
    """Until this word is on record in the job's log."""
    after = 1
    with trio.fail_after(SLOW):
        while True:
            found = await client.events(job_id, after)
            for event in found["events"]:
                if event["type"] == "log" and word in event["line"] and attempt in (None, event["attempt"]):
                    return
            after = found["next_seq"]
            if not found["events"]:
                await trio.sleep(0.03)

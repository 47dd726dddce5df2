"""The program without the second that Python imports for: forked from a process that has imported it and run nothing.

Each is a process of its own, as if started by `python -m MODULE …`; only `/proc/PID/cmdline` shows this module instead.
Half of a whole run's work was that second, some six hundred times. Whatever is not told to use this starts from the
ground up: the worker of each `up`, the commands of README, systemd's and compose's daemons, and every benchmark.
"""

import atexit
import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = (
    *("blacktree.log", "blacktree.cli.main", "blacktree.cli.orchestrator", "blacktree.cli.worker"),
    *("blacktree.cli.farm", "blacktree.cli.scaling", "blacktree.orchestrator.daemon", "blacktree.worker.daemon"),
    *("blacktree.api.door", "blacktree.broker.rabbit", "blacktree.broker.embedded", "blacktree.providers.scripted"),
    *("blacktree.providers.docker.provider", "blacktree.services.sync.step", "blacktree.services.image.step"),
    *("blacktree.cli.up", "blacktree.cli.child", "blacktree.cli.exits", "blacktree.client", "blacktree.cli.connection"),
    *(
        "blacktree.cli.build",
        "blacktree.cli.logs",
        "blacktree.cli.jobs",
        "blacktree.cli.deploy",
        "blacktree.cli.follow",
    ),
)
LONGEST = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000  # sched.h


class Forked:
    """One of them, with what `subprocess.Popen` offers for it."""

    def __init__(self, nest: "Nest", pid: int, handle: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nest, self._handle = nest, handle

    def poll(self) -> int | None:
        """Its exit code, -N after signal N; None while it runs."""
        if self.returncode is None and select.select([self._handle], [], [], 0)[0]:
            self.returncode = self._nest.ask({"reap": self.pid})[0]["code"]
            os.close(self._handle)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended; raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            select.select([self._handle], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(f"daemon {self.pid}", timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Nest:
    """The process that has imported everything; it answers one question after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket, self._turn = ours, threading.Lock()
        atexit.register(self._close)

    def start(self, *argv: str, environ: dict[str, str], out: int, err: int) -> Forked:
        """`python -m argv…` in a session of its own, with these files for its output and nothing to read."""
        # A test's thread may have gone to a network of its own (`networks.py`), and what it starts belongs there.
        network = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            answer, [handle] = self.ask({"argv": argv, "environ": environ, "where": os.getcwd()}, out, err, network)
        finally:
            os.close(network)
        return Forked(self, answer["pid"], handle)

    def run(self, *argv: str, environ: dict[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
        """The same to its end, as `subprocess.run` does it."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.start(*argv, environ=environ, out=out.fileno(), err=err.fileno())
            try:
                code = process.wait(seconds)
            finally:
                process.kill()
            said = [os.pread(each.fileno(), os.fstat(each.fileno()).st_size, 0).decode() for each in (out, err)]
        return subprocess.CompletedProcess(argv, code, *said)

    def ask(self, question: dict[str, Any], *files: int) -> tuple[dict[str, Any], list[int]]:
        with self._turn:
            socket.send_fds(self._socket, [json.dumps(question).encode()], files)
            data, handles, _, _ = socket.recv_fds(self._socket, LONGEST, 1)
        assert data, "the nest is gone"
        return json.loads(data), handles

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(40)


@cache
def nest() -> Nest:
    """This process's own."""
    return Nest()


def fits(environ: dict[str, str]) -> bool:
    """Whether a start from there tells the same: in a test, and with Python's usual places to look for modules."""
    return "PYTEST_VERSION" in os.environ and "PYTHONPATH" not in environ


def serve(orders: socket.socket) -> None:
    """Fork and reap as told, until nobody asks any more."""
    while True:
        data, files, _, _ = socket.recv_fds(orders, LONGEST, 3)
        if not data:
            return
        question = json.loads(data)
        if "reap" in question:
            status = os.waitpid(question["reap"], 0)[1]
            orders.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            orders.close()
            become(question["argv"], question["environ"], question["where"], files)
        handle = os.pidfd_open(pid)
        socket.send_fds(orders, [json.dumps({"pid": pid}).encode()], [handle])
        os.close(handle)
        for each in files:
            os.close(each)


def become(argv: list[str], environ: dict[str, str], where: str, files: list[int]) -> None:
    """In the child: all that a start changes."""
    os.setsid()
    enter(files.pop())
    for number, each in enumerate(files, 1):
        os.dup2(each, number)
        os.close(each)
    os.chdir(where)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    sys.argv = argv
    code: Any = 1
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]  # there is one
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # what Python does first when it ends
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def enter(network: int) -> None:
    """Go to this network namespace, unless it is the one where we are: only root may ask for that."""
    if os.fstat(network).st_ino != os.stat("/proc/self/ns/net").st_ino and LIBC.setns(network, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(network)


if __name__ == "__main__":
    import gc

    gc.disable()
    for each in MODULES:
        importlib.import_module(each)
    gc.enable()
    gc.freeze()
    assert threading.active_count() == 1
    with socket.socket(fileno=int(sys.argv[1])) as mine:
        serve(mine)

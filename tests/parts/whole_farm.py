"""A whole farm as its user starts it: `blacktree up` in a process of its own, and clients as further processes."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.parts.nest import Forked, fits, nest

COMMAND = [sys.executable, "-m", "blacktree"]


def script(*actions: dict[str, Any]) -> str:
    """The build argument that the scripted provider follows."""
    return f"SCRIPT={json.dumps(list(actions))}"


class WholeFarm:
    """One `up` on a state directory of its own; it may be started more than once."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.state = home / "farm state"
        # Short: a socket's path has about a hundred bytes, and of a longer one the farm makes no use.
        runtime = tempfile.mkdtemp(prefix="bt-")
        weakref.finalize(self, shutil.rmtree, runtime, ignore_errors=True)
        self.log = home / "up.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BLACKTREE_")}
        self.environ = kept | {
            "XDG_STATE_HOME": str(home / "xdg"),
            "XDG_RUNTIME_DIR": runtime,
            "BLACKTREE_WORKER_PROVIDER": "scripted",
            "BLACKTREE_WORKER_STEPS": "build",
            "BLACKTREE_WORKER_MINIMUM_FREE_DISK_BYTES": "0",
            "BLACKTREE_ORCHESTRATOR_SHUTDOWN_GRACE_SECONDS": "1",
            "BLACKTREE_WORKER_SHUTDOWN_GRACE_SECONDS": "1",
            **environ,
        }
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self._output = -1
        self.said = ""

    def start(self, *arguments: str, listen: str = "127.0.0.1:0") -> None:
        """Start it and wait until it says that it is ready; its worker takes builds by then."""
        words = ["up", "--state", str(self.state), "--listen", listen, *arguments]
        self._hang_up()
        self._output, theirs = os.pipe2(os.O_CLOEXEC)
        with self.log.open("ab") as log, open(theirs, "wb") as out:
            if fits(self.environ):
                self.process = nest().start(
                    "blacktree", *words, environ=self.environ, out=out.fileno(), err=log.fileno()
                )
            else:
                self.process = subprocess.Popen(
                    [*COMMAND, *words], env=self.environ, stdout=out, stderr=log, start_new_session=True
                )
        self.said = ""
        deadline = time.monotonic() + 80
        while "Build something" not in self.said:
            assert time.monotonic() < deadline, self.log.read_text()
            if select.select([self._output], [], [], 0.2)[0]:
                piece = os.read(self._output, 65536)
                assert piece, self.log.read_text()
                self.said += piece.decode()

    @property
    def url(self) -> str:
        return (self.state / "server").read_text().strip()

    @property
    def worker_pid(self) -> int:
        return int((self.state / "worker.process").read_text().split()[0])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; answers the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(40)
        self._hang_up()
        self.process = None
        return code

    def _hang_up(self) -> None:
        if self._output >= 0:
            os.close(self._output)
        self._output = -1

    def run(self, *arguments: str, code: int | None = 0, seconds: float = 40) -> subprocess.CompletedProcess[str]:
        """A client command; its exit code must be this one."""
        if fits(self.environ):
            done = nest().run("blacktree", *arguments, environ=self.environ, seconds=seconds)
        else:
            done = subprocess.run(
                [*COMMAND, *arguments], env=self.environ, capture_output=True, text=True, timeout=seconds, check=False
            )
        assert code is None or done.returncode == code, (done, self.log.read_text()[-3000:])
        return done

    def begin(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A client command that goes on."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.Popen([*COMMAND, *arguments], env=self.environ, **options)

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("job", job_id, "--json").stdout)
        return found

    def wait_for(self, job_id: str, *states: str, seconds: float = 40) -> dict[str, Any]:
        """The job, once it stands in one of these states."""
        deadline = time.monotonic() + seconds
        # Not by the command line: to start a process for each look keeps a whole core busy.
        while (state := self._state(job_id)) not in states:
            assert time.monotonic() < deadline, (state, job_id, self.log.read_text()[-3000:])
            time.sleep(0.05)
        return self.job(job_id)

    def _state(self, job_id: str) -> str:
        token = (self.state / "token").read_text().strip()
        asked = Request(f"{self.url}/api/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {token}"})
        with urlopen(asked, timeout=30) as answer:
            return str(json.load(answer)["state"])

    def close(self) -> None:
        """End what is left, by its ids."""
        try:
            left = self.worker_pid
        except (OSError, ValueError):
            left = 0
        if self.process is not None:
            self.stop(signal.SIGKILL)
        if left and f"with-farm\0{self.state}" in command_line(left):
            os.kill(left, signal.SIGKILL)


def command_line(pid: int) -> str:
    """The arguments of a process, each closed by NUL; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@contextmanager
def open_whole_farm(home: Path, **environ: str) -> Iterator[WholeFarm]:
    """Not started yet; whatever runs of it is ended on leaving."""
    farm = WholeFarm(home, **environ)
    try:
        yield farm
    finally:
        farm.close()

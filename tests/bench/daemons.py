"""`blacktree orchestrator` and `blacktree worker` as their operator starts them: processes of their own."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.bench import Bench, end, environment, running
from tests.parts.ports import free_port

START_SECONDS = 30.0


class Farm:
    """An orchestrator and its workers. The workers' provider is the scripted one: what is measured is the farm."""

    def __init__(self, directory: Path, broker_url: str, stack: ExitStack, **environ: str) -> None:
        self.directory = directory
        self.grpc = f"127.0.0.1:{free_port()}"
        self.state = directory / "farm"
        self.workers: list[subprocess.Popen[str]] = []
        self._stack = stack
        self._started = 0
        changes = {
            "BLACKTREE_ORCHESTRATOR_STATE_DIRECTORY": str(self.state),
            "BLACKTREE_ORCHESTRATOR_BROKER_URL": broker_url,
            "BLACKTREE_ORCHESTRATOR_GRPC_LISTEN": self.grpc,
            "BLACKTREE_ORCHESTRATOR_LISTEN": "127.0.0.1:0",
            "BLACKTREE_LOG_LEVEL": "warning",
        }
        self.orchestrator = self._start("orchestrator", environment(**(changes | environ)))
        self._until((self.state / "server").exists)

    @property
    def url(self) -> str:
        """The door."""
        return (self.state / "server").read_text().strip()

    @property
    def token(self) -> str:
        """What opens the door."""
        return (self.state / "token").read_text().strip()

    @property
    def join_token(self) -> str:
        """What lets workers in."""
        return (self.state / "join-token").read_text().strip()

    def add_worker(self, slots: int, **environ: str) -> None:
        """One more worker process; it registers in its own time."""
        self._started += 1
        name = f"w{self._started}"
        changes = {
            "BLACKTREE_WORKER_ID": name,
            "BLACKTREE_WORKER_ORCHESTRATOR": self.grpc,
            "BLACKTREE_WORKER_LISTEN": f"127.0.0.1:{free_port()}",
            "BLACKTREE_WORKER_SLOTS": str(slots),
            "BLACKTREE_WORKER_STATE_DIRECTORY": str(self.directory / name),
            "BLACKTREE_WORKER_JOIN_TOKEN_FILE": str(self.state / "join-token"),
            "BLACKTREE_WORKER_PROVIDER": "scripted",
            "BLACKTREE_WORKER_STEPS": "build",
            "BLACKTREE_WORKER_MINIMUM_FREE_DISK_BYTES": "0",
            "BLACKTREE_LOG_LEVEL": "warning",
        }
        self.workers.append(self._start("worker", environment(**(changes | environ)), name))

    def stop_workers(self) -> None:
        """They leave in order."""
        for process in self.workers:
            end(process)
        self.workers.clear()

    def said(self) -> str:
        """The end of what the daemons have logged."""
        return "\n".join(path.read_text()[-800:] for path in sorted(self.directory.glob("*.log")))

    def _start(self, command: str, environ: dict[str, str], name: str = "") -> subprocess.Popen[str]:
        log = self.directory / f"{name or command}.log"
        # Without -P the current directory would be on the daemons' path, as it is not for an operator.
        return self._stack.enter_context(running([sys.executable, "-P", "-m", "blacktree", command], environ, log))

    def _until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline or self.orchestrator.poll() is not None:
                raise RuntimeError(f"the orchestrator did not start: {self.said()}")
            time.sleep(0.02)


@contextmanager
def open_farm(bench: Bench, broker_url: str = "", **environ: str) -> Iterator[Farm]:
    """An orchestrator without workers; whatever runs of the farm is ended on leaving, the workers first."""
    with ExitStack() as stack:
        yield Farm(bench.new_directory("farm"), broker_url, stack, **environ)

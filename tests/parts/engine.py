"""Real container engines for tests: the machine's if it answers, else one of our own; and private ones to maltreat."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BASE = "blacktree-test/base:1"
_MACHINE = "/var/run/docker.sock"
_ROOT = Path(__file__).parents[2]


def answers(path: str) -> bool:
    """Whether an engine answers on this socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        probe.connect(path)
        probe.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        return b" 200 " in probe.recv(4096)
    return False


def ensure_base(path: str, name: str = BASE) -> str:
    """The small base image, made on the engine behind this socket if it is not there yet; answers its name."""
    environ = os.environ | {"DOCKER_HOST": f"unix://{path}"}
    seen = subprocess.run(["docker", "image", "inspect", name], env=environ, capture_output=True, check=False)
    if seen.returncode != 0:
        subprocess.run([str(_ROOT / "bin/base-image"), name], env=environ, check=True, capture_output=True, timeout=120)
    return name


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """The socket of an engine that takes builds: the machine's, else one started for us (needs root)."""
    if answers(_MACHINE):
        yield _MACHINE
        return
    with private_engine() as own:
        yield own.socket


@dataclass
class PrivateEngine:
    """A dockerd of the test's own."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return str(self.directory / "engine.sock")

    @property
    def root(self) -> str:
        """Its data directory."""
        return str(self.directory / "data")

    def start(self, seconds: float = 80) -> None:
        """Start it (again) and wait until it answers."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.directory / "engine.pid")
        # The last one's containerd writes into a pipe that nobody reads any more, and would hang in a while.
        self._end_containerd()
        command = [
            # In a network of its own, with a docker0 of its own: with --bridge=none it would delete the machine's.
            *("unshare", "--net", "--", "dockerd"),
            f"--host=unix://{self.socket}",
            f"--data-root={self.root}",
            f"--exec-root={self.directory / 'exec'}",
            f"--pidfile={self.directory / 'engine.pid'}",
            "--iptables=false",
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self.environ, start_new_session=True
            )
        limit = time.monotonic() + seconds
        while not answers(self.socket):
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < limit, (self.directory / "log").read_text()[-2000:]
            time.sleep(0.05)

    def kill(self) -> None:
        """As a crash: SIGKILL to dockerd alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(40)

    def stop(self) -> None:
        """End it and what it started itself."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._end_containerd()
        for pid in processes_with(f"{self.directory}/"):
            # What a killed engine left: shims and runc, which name its directory.
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _end_containerd(self) -> None:
        """After a kill of dockerd its containerd lives on; dockerd wrote down its pid."""
        note = self.directory / "exec/containerd/containerd.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(note.read_text())
            if Path(f"/proc/{pid}/comm").read_text().strip() == "containerd":
                os.kill(pid, signal.SIGKILL)
                limit = time.monotonic() + 40
                while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < limit:
                    time.sleep(0.01)
            note.unlink()

    def clear(self) -> None:
        """Unmount what is left under its directory and remove it."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(str(self.directory))), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def private_engine(environ: dict[str, str] | None = None) -> Iterator[PrivateEngine]:
    """A dockerd of our own with its own directories and network, that may be killed. Needs root."""
    # Not pytest's directory: a unix socket's path must be short.
    own = PrivateEngine(Path(tempfile.mkdtemp(prefix="bt-engine-")), environ=environ or {})
    try:
        own.start()
        yield own
    finally:
        own.stop()
        own.clear()


def can_start_engines() -> bool:
    """Whether `private_engine` can work here."""
    return os.geteuid() == 0 and shutil.which("dockerd") is not None


def gated(word: str, before: str, after: str) -> str:
    """The words of a RUN that stays between `before` and `after` until `open_gate`; no other test has this word."""
    return f"trap 'go=1' USR1; {before}; until [ -n \"$go\" ]; do sleep 0.1; done; trap '' USR1; {after} # gate-{word}"


def open_gate(word: str) -> None:
    """Let every RUN that waits there now go on. To be called once its `before` was seen: its trap is set then."""
    for pid in processes_with(f"# gate-{word}"):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() in ("sh", "busybox"):
                os.kill(pid, signal.SIGUSR1)


def processes_with(marker: str) -> list[int]:
    """The living processes whose command line holds this (unique) word."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
    return found

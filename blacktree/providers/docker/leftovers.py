"""What BuildKit's RUN steps run as on this machine: found in /proc, matched to builds, killed when nobody owns them.

The engine runs each step as `runc run --bundle <root>/buildkit/executor/<id> <id>` in a cgroup that ends in `<id>`.
When the engine is killed the steps live on and the next engine does not know them. The bundle says which engine they
belong to, their ancestors whether that engine still lives, and the cgroup which processes they are, on both versions of
cgroups and with every cgroup driver. All functions here block for some milliseconds: call them in a thread.
"""

import json
import os
import signal
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from blacktree.providers.docker.progress import Vertex

_ENGINES = frozenset({"dockerd", "buildkitd", "docker"})


class Execution(msgspec.Struct, frozen=True):
    """One step under way. `began` is the wall clock, seconds; `orphan`: no living engine is above it."""

    id: str
    command: str
    began: float
    pids: tuple[int, ...]
    orphan: bool


class _Process(msgspec.Struct, frozen=True):
    pid: int
    parent: int
    name: str


def executions(root: str) -> list[Execution]:
    """The steps that run under the engine whose data directory is `root`."""
    processes = _processes()
    home = os.path.join(root, "buildkit", "executor") + os.sep
    bundles: dict[str, str] = {}
    for process in processes.values():
        if process.name in ("runc", "crun", "buildkit-runc"):
            for argument in _arguments(process.pid):
                if argument.startswith(home):
                    bundles[os.path.basename(argument)] = argument
    for bundle in _directories(home):
        bundles.setdefault(os.path.basename(bundle), bundle)
    if not bundles:
        return []
    members = _members(processes, bundles)
    found = []
    for name, bundle in bundles.items():
        pids = members.get(name, [])
        if pids:
            orphan = not any(_has_engine_above(pid, processes) for pid in pids)
            found.append(Execution(name, *_command(bundle, pids[0]), tuple(pids), orphan))
    return found


def claim(found: Collection[Execution], builds: Iterable[tuple[str, Iterable[Vertex]]], key: str) -> list[Execution]:
    """Those executions that belong to the build `key` and to no other. `builds`: each build's vertexes under way.

    An execution belongs to the vertex whose text its command is and which began last before it. Two builds may share
    a vertex (same digest): the engine runs it once, and goes on with it while one of them wants it.
    """
    claims = [(name, vertex) for name, vertexes in builds for vertex in vertexes if vertex.begun is not None]
    owned = []
    for execution in found:
        fits = [
            (abs(execution.began - (vertex.begun or 0.0)), name, vertex.digest)
            for name, vertex in claims
            if _fits(execution.command, vertex.name) and (vertex.begun or 0.0) <= execution.began + 1
        ]
        if not fits:
            continue
        digest = min(fits)[2]
        owners = {name for _, name, each in fits if each == digest}
        if owners == {key}:
            owned.append(execution)
    return owned


def _fits(command: str, name: str) -> bool:
    """Whether a vertex of this name runs this command: BuildKit's names hold the text of RUN, with other spacing."""
    bare = "".join(char for char in command if char.isalnum())
    return "".join(char for char in name if char.isalnum()).endswith(bare) if bare else "RUN" in name


def alive(ids: Collection[str]) -> dict[str, list[int]]:
    """The living processes of these executions."""
    return _members(_processes(), ids) if ids else {}


def kill(execution_id: str) -> None:
    """Kill every process of an execution; each is held by a descriptor while it is looked at, so none other is hit."""
    for pid in alive([execution_id]).get(execution_id, []):
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if execution_id in _cgroup(pid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError:
            pass
        finally:
            os.close(descriptor)


def tidy(execution_id: str) -> None:
    """Remove an execution's cgroups where it has left them, and runc's note of it; best effort, for root only."""
    for path in Path("/sys/fs/cgroup").glob(f"**/buildkit/{execution_id}"):
        try:
            path.rmdir()
        except OSError:
            continue


def visible(pid: int, root: str) -> bool:
    """Whether an engine with this pid (its socket's listener) and data directory runs in sight of us.

    A socket from another process namespace has a listener of 0; one that leads into a virtual machine no directory.
    """
    return pid > 0 and os.path.exists(f"/proc/{pid}") and bool(root) and os.path.exists(root)


def _processes() -> dict[int, _Process]:
    found: dict[int, _Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    text = file.read(4096).decode("utf-8", "replace")
            except OSError:
                continue
            head, _, tail = text.rpartition(")")
            fields = tail.split()
            if fields[0] not in ("Z", "X"):
                pid = int(name)
                found[pid] = _Process(pid, int(fields[1]), head.partition("(")[2])
    return found


def _members(processes: Iterable[int], ids: Collection[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for pid in processes:
        groups = _cgroup(pid)
        if "buildkit" not in groups and "docker" not in groups:
            continue
        for each in ids:
            if each in groups:
                found.setdefault(each, []).append(pid)
    return found


def _has_engine_above(pid: int, processes: dict[int, _Process]) -> bool:
    for _ in range(100):
        process = processes.get(pid)
        if process is None:
            return False
        if process.name in _ENGINES:
            return True
        pid = process.parent
    return False


def _command(bundle: str, pid: int) -> tuple[str, float]:
    """The step's command (its last argument) and when it was made ready."""
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, "rb") as file:
            arguments = json.load(file)["process"]["args"]
        return str(arguments[-1]), os.stat(path).st_mtime
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        # Not readable for us: the first process still shows it, unless it has put another program in its place.
        arguments = _arguments(pid)
        try:
            began = os.stat(f"/proc/{pid}").st_ctime
        except OSError:
            began = 0.0
        return (arguments[-1] if arguments else ""), began


def _arguments(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


def _cgroup(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            return file.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""


def _directories(home: str) -> list[str]:
    try:
        return [each.path for each in os.scandir(home) if each.is_dir(follow_symlinks=False)]
    except OSError:
        return []

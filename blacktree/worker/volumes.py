"""Which volumes a replica may have: named ones, and paths of this machine under the roots that the worker allows."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from blacktree.errors import StepFailed
from blacktree.providers.containers import Mount
from blacktree.runspec import Volume

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


def mount_of(volume: Volume, roots: Sequence[str], engine_socket: str = "") -> Mount:
    """The mount of a volume, links resolved. Blocks a little. Raises `StepFailed` (code `volume_refused`)."""
    if not volume.source.startswith("/"):
        if not _NAME.match(volume.source):
            raise _refused(volume, "is neither a volume's name nor an absolute path", "use letters, digits, `_.-`")
        return Mount(volume=volume.source, target=volume.target, read_only=volume.read_only)
    if volume.target == "/run/secrets" or volume.target.startswith("/run/secrets/"):
        raise _refused(volume, "lies over /run/secrets, where the secrets are", "choose another target")
    if not roots:
        raise _refused(
            volume,
            "is a path of the worker's machine, and this worker allows none",
            "name a volume instead, or set `worker.volume_roots`",
        )
    real = os.path.realpath(volume.source)
    allowed = [os.path.realpath(root) for root in roots]
    if not any(Path(real).is_relative_to(root) for root in allowed):
        leads = f" leads to {real}, which" if real != os.path.normpath(volume.source) else ""
        raise _refused(
            volume, f"{leads} is not under what this worker allows ({', '.join(roots)})".strip(), "ask its operator"
        )
    if not os.path.exists(real):
        raise _refused(volume, "is not there", "make the directory on the worker's machine first")
    socket = os.path.realpath(engine_socket) if engine_socket else ""
    if socket and Path(socket).is_relative_to(real):
        raise _refused(volume, "holds the engine's socket, which no container may have", "mount a directory below it")
    return Mount(path=real, target=volume.target, read_only=volume.read_only)


def engine_socket(setting: str, environ: Mapping[str, str]) -> str:
    """The path of the engine's socket, as far as it is one."""
    place = setting or environ.get("DOCKER_HOST", "") or "/var/run/docker.sock"
    path = place.removeprefix("unix://")
    return path if path.startswith("/") else ""


def _refused(volume: Volume, why: str, advice: str) -> StepFailed:
    message = f"volume `{volume.source}` {why}"
    return StepFailed(message, code="volume_refused", again=False, step="volumes", advice=advice)

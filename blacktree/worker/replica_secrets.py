"""Secret values as files that are mounted into replicas; never in an environment, an argument or an image.

They lie in `$RUNTIME_DIRECTORY` where there is one (systemd: a tmpfs), else in the worker's state directory, below a
directory that only the worker's user can enter. Inside the container anybody may read them, whoever it runs as.
"""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from blacktree.providers.containers import Mount

TARGET = "/run/secrets"


class SecretFiles:
    """The secrets of this worker's replicas, a directory for each container. All calls block a little."""

    def __init__(self, state: Path, environ: Mapping[str, str]) -> None:
        runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
        self._home = (Path(runtime) if runtime else state) / "replica-secrets"

    def write(self, key: str, values: Mapping[str, bytes]) -> list[Mount]:
        """Write the files of one container, named by `key`; how they are mounted. Raises `OSError`."""
        if not values:
            return []
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home.chmod(0o700)
        directory = self._home / key
        directory.mkdir(mode=0o700, exist_ok=True)
        for name, value in values.items():
            path = directory / name
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
            with os.fdopen(handle, "wb") as file:
                file.write(value)
            path.chmod(0o444)
        return [
            Mount(path=str(directory.resolve() / name), target=f"{TARGET}/{name}", read_only=True) for name in values
        ]

    def remove(self, key: str) -> None:
        """The container is gone. Repeatable."""
        shutil.rmtree(self._home / key, ignore_errors=True)

    def keep(self, keys: Collection[str]) -> None:
        """Remove all but these."""
        if self._home.is_dir():
            for each in self._home.iterdir():
                if each.name not in keys:
                    shutil.rmtree(each, ignore_errors=True)

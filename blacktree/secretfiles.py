"""`SecretDirectory`: named secret values from files, one file each; never printed."""

import os
import re
import stat
from collections.abc import Iterable, Mapping

from blacktree.errors import StepFailed

MAXIMUM_BYTES = 500 * 1024  # what BuildKit takes for one secret
_NAME = re.compile(r"[A-Za-z0-9._-]{1,256}\Z")


class SecretDirectory:
    """A directory with a file per secret; the whole content is the value. Read anew each time: secrets rotate.

    A directory that is not there is empty. systemd's credentials serve only where they are named as this directory:
    other things than build secrets may lie there, such as the join token.
    """

    def __init__(self, path: str, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.path = path
        self._from_systemd = bool(path) and path == environ.get("CREDENTIALS_DIRECTORY")

    def __repr__(self) -> str:
        return f"SecretDirectory({self.path!r})"

    def names(self) -> list[str]:
        """The names of the secrets that are there (not whether they can be used)."""
        try:
            return sorted(name for name in os.listdir(self.path) if _fits(name)) if self.path else []
        except OSError:
            return []

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The values of these secrets. Blocking, quick. Raises `StepFailed`: `secret_missing`, `secret_unsafe`."""
        return {name: self._read(name) for name in names}

    def some(self, names: Iterable[str]) -> dict[str, bytes]:
        """As `read`, but only those that are here and can be used."""
        found = {}
        for name in names:
            try:
                found[name] = self._read(name)
            except StepFailed:
                continue
        return found

    def _read(self, name: str) -> bytes:
        if not self.path or not _fits(name):
            raise self._missing(name)
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            raise self._missing(name) from None
        try:
            # A symlink could lead to any file that the worker can read. A pipe must not make us wait.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            raise self._unsafe(name, f"cannot be opened ({error.strerror}); symlinks are not followed") from None
        finally:
            os.close(directory)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise self._unsafe(name, "is not a regular file")
            # systemd gives a service's own user access by an ACL, which shows as group bits.
            if status.st_mode & (0o007 if self._from_systemd else 0o077):
                raise self._unsafe(name, "can be read by others", advice=f"run: chmod 600 {self.path}/{name}")
            value = os.pread(file, MAXIMUM_BYTES + 1, 0)
        finally:
            os.close(file)
        if len(value) > MAXIMUM_BYTES:
            raise self._unsafe(name, f"has more than {MAXIMUM_BYTES} bytes")
        return value

    def _missing(self, name: str) -> StepFailed:
        where = f"nor in {self.path}" if self.path else "and no `secrets_directory` is configured here"
        return StepFailed(
            f"the secret `{name}` is not among the farm's, {where}",
            code="secret_missing",
            advice=f"give it to the farm: `blacktree secret set build {name}`; or put its value into a file of that"
            " name, mode 0600, in the orchestrator's or the worker's secrets directory",
        )

    def _unsafe(self, name: str, why: str, advice: str = "") -> StepFailed:
        return StepFailed(f"the secret `{name}` in {self.path} {why}", code="secret_unsafe", advice=advice)


def _fits(name: str) -> bool:
    return bool(_NAME.match(name)) and name not in (".", "..")

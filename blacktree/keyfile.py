"""Where the farm's key is: a file with checked mode, the environment, a systemd credential. Never the state directory.

A file may hold several keys, one a line: the first one seals, the others open what has not been sealed anew yet.
"""

import os
import stat
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

import msgspec

from blacktree.cipher import Key, parse_keys
from blacktree.errors import BadRequest

VARIABLE = "BLACKTREE_ORCHESTRATOR_SECRETS_KEY"
CREDENTIAL = "secrets-key"
_MOST_BYTES = 4096
_HOW = "make one with `blacktree secret new-key FILE` and name it in `orchestrator.secrets_key_file`"


class KeyPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where keys come from. `fixed`: from the environment, read once. `makes`: the file is made when first needed.

    `writes`: we may put another key into the file. `apart`: the state directory, below which no key may lie.
    Blocking, quick.
    """

    what: str = "nowhere"
    path: Path | None = None
    fixed: tuple[Key, ...] = ()
    makes: bool = False
    writes: bool = False
    credential: bool = False
    apart: Path | None = None

    def read(self) -> list[Key]:
        """The keys that are there now, the current one first; empty if there are none. Raises `BadRequest`."""
        if self.path is None:
            return list(self.fixed)
        if self.makes and not self.path.exists():
            return []
        return read_keys(self.path, credential=self.credential, apart=self.apart)


def take_variable(environ: MutableMapping[str, str]) -> str:
    """The key in the environment, taken out of it: no child process and no listing shows it from here on."""
    return environ.pop(VARIABLE, "")


def find_place(
    setting: str, variable: str, environ: Mapping[str, str], *, own: Path | None = None, apart: Path | None = None
) -> KeyPlace:
    """The setting `secrets_key_file`, else the environment, else systemd's credential, else `own` (made if need be).

    Raises `BadRequest` for a variable that holds no key.
    """
    if setting:
        return KeyPlace(what=f"the file {setting}", path=Path(setting), writes=True, apart=apart)
    if variable:
        try:
            return KeyPlace(what=f"the variable {VARIABLE}", fixed=tuple(parse_keys(variable)), apart=apart)
        except BadRequest as error:
            raise BadRequest(f"{VARIABLE}: {error.message}", code=error.code, advice=error.advice) from None
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", ""), CREDENTIAL)
    if environ.get("CREDENTIALS_DIRECTORY") and credential.exists():
        return KeyPlace(what=f"the credential {CREDENTIAL}", path=credential, credential=True, apart=apart)
    if own is not None:
        return KeyPlace(what=f"the file {own}", path=own, makes=True, writes=True, apart=apart)
    return KeyPlace(apart=apart)


def own_directory(environ: Mapping[str, str]) -> Path:
    """Where a farm of this user's may make its key: the XDG configuration directory."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    return Path(base) / "blacktree"


def read_keys(path: Path, *, credential: bool = False, apart: Path | None = None) -> list[Key]:
    """The keys in a file that nobody else can read. Raises `BadRequest` (code `secrets_key_file`) with advice."""
    if apart is not None and path.resolve().is_relative_to(apart.resolve()):
        raise _refused(path, f"lies in the state directory {apart}, beside what it seals", "put it somewhere else")
    try:
        # A pipe must not make us wait.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        advice = _HOW if isinstance(error, FileNotFoundError) else "give it to the user of the farm: chown"
        raise _refused(path, f"cannot be read: {error.strerror}", advice) from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "is not a regular file", _HOW)
        # systemd gives a service's own user access by an ACL, which shows as group bits.
        if found.st_mode & (0o007 if credential else 0o077):
            raise _refused(path, "can be read by others", f"run: chmod 600 {path}; if others may have seen it, rotate")
        if found.st_uid not in (os.geteuid(), 0):
            raise _refused(path, "belongs to another user", "chown it to the user of the farm, or to root")
        content = os.pread(file, _MOST_BYTES + 1, 0)
    finally:
        os.close(file)
    try:
        return parse_keys(content[:_MOST_BYTES].decode())
    except UnicodeDecodeError:
        raise _refused(path, "holds no key", _HOW) from None
    except BadRequest as error:
        raise _refused(path, error.message, error.advice) from None


def write_keys(path: Path, keys: list[Key], *, fresh: bool = False) -> None:
    """Put these keys into the file, whole or not at all, durable, mode 0600. Raises `BadRequest`.

    `fresh`: it must not exist yet; of two that make it at once the first one stays.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write("".join(f"{key.text()}\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                with suppress(FileExistsError):
                    os.link(draft, path)
            else:
                owner = path.stat() if path.exists() else None
                if owner is not None and owner.st_uid != os.geteuid():
                    os.chown(draft, owner.st_uid, owner.st_gid)
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise _refused(
            path,
            f"cannot be written: {error.strerror}",
            "let the user of the farm write there, or name another file in `orchestrator.secrets_key_file`",
        ) from None


def _refused(path: Path, why: str, advice: str) -> BadRequest:
    return BadRequest(f"the key file {path} {why}", code="secrets_key_file", advice=advice)

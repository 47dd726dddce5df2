"""A farm's state directory on this machine: made, locked, and its tokens and address where clients find them."""

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from blacktree.errors import BadRequest, Conflict

TOKEN_FILE = "token"
JOIN_TOKEN_FILE = "join-token"
SERVER_FILE = "server"
CERTIFICATE_FILE = "door-certificate"
LOCK_FILE = "farm.lock"

# A unix socket's path has at most 107 bytes (unix(7)); what we append to the base is at most 30.
_LONGEST_BASE = 70


@contextmanager
def open_state(path: Path) -> Iterator[None]:
    """The directory, made (mode 0700) if need be, and ours alone until this ends.

    Raises `Conflict` if another farm runs on it, `BadRequest` if it cannot be written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadRequest(
            f"the state directory {path} cannot be used: {error.strerror}",
            code="state_directory",
            advice="choose another with --state (or state_directory), or mend its owner and mode",
        ) from None
    try:
        _take(lock, path)
        yield
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> None:
    # Whoever asks `is_locked` holds the lock for a moment: that must not look like a second farm.
    for tries_left in range(20, -1, -1):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if tries_left == 0:
                raise Conflict(
                    f"another farm runs on the state directory {path}",
                    code="state_taken",
                    advice="stop it first, or give this one a directory of its own with --state DIR",
                ) from None
            time.sleep(0.02)


def is_locked(path: Path) -> bool:
    """Whether a farm runs on this state directory now."""
    try:
        lock = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def ensure_token(path: Path) -> str:
    """The token in this file; made at the first start, whole or not at all, mode 0600."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        _write(draft, secrets.token_urlsafe(32) + "\n")
        # A link, not a rename: of two that start at once one wins, and both use the winner's.
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return read_token(path)


def read_token(path: Path) -> str:
    """The token in this file. Raises `BadRequest` if it is missing, unreadable or empty."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRequest(f"cannot read the token file {path}: {why}", code="token_file") from None
    if not token:
        raise BadRequest(
            f"the token file {path} is empty", code="token_file", advice="remove it and start the farm again"
        )
    return token


def write_certificate(state: Path, pem: str) -> None:
    """Leave the door's own certificate (empty: it has none) where clients on this machine look for it."""
    if not pem:
        (state / CERTIFICATE_FILE).unlink(missing_ok=True)
        return
    draft = state / f".{CERTIFICATE_FILE}.{os.getpid()}"
    _write(draft, pem)
    draft.replace(state / CERTIFICATE_FILE)


def write_server(state: Path, url: str) -> None:
    """Leave the door's address where clients on this machine look for it."""
    draft = state / f".{SERVER_FILE}.{os.getpid()}"
    _write(draft, url + "\n")
    draft.replace(state / SERVER_FILE)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def runtime_base(environ: Mapping[str, str]) -> Path:
    """Where this user's farms keep their sockets: systemd's or the session's runtime directory, else below /tmp."""
    for base in (environ.get("RUNTIME_DIRECTORY", "").split(":")[0], environ.get("XDG_RUNTIME_DIR", "")):
        if base and len(base) <= _LONGEST_BASE and os.access(base, os.W_OK):
            return Path(base) / "blacktree"
    return Path(f"/tmp/blacktree-{os.getuid()}")


def runtime_directory(environ: Mapping[str, str], state: Path) -> Path:
    """A private directory for one farm's sockets, the same at each start; its link `state` tells clients of the farm.

    Raises `BadRequest` if someone else has put something there.
    """
    base = runtime_base(environ)
    own = base / hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]
    for each in (base, own):
        each.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(each):
            raise BadRequest(
                f"{each} is not a private directory of this user", code="runtime_directory", advice="remove it"
            )
    _sweep(base)
    link = own / "state"
    if not link.is_symlink() or link.resolve() != state.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(state.resolve())
    return own


def _is_private(path: Path) -> bool:
    """Whether nobody else can put anything there: below /tmp, anybody may have made it before us."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _sweep(base: Path) -> None:
    """Forget farms whose state directory is gone."""
    for own in base.iterdir():
        if (own / "state").is_symlink() and not (own / "state").exists():
            for left in own.iterdir():
                left.unlink(missing_ok=True)
            own.rmdir()


def running_farms(environ: Mapping[str, str]) -> list[Path]:
    """State directories of this user's farms that run now."""
    base = runtime_base(environ)
    try:
        # What somebody else has left there is a farm of theirs, which is shown no token.
        links = [own / "state" for own in base.iterdir()] if _is_private(base) else []
    except OSError:
        return []
    return [link.resolve() for link in links if link.is_symlink() and is_locked(link)]

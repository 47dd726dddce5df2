"""Who this worker is: a locked state directory, a secret made once, an incarnation per process, a label."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from blacktree.errors import StorageFailed
from blacktree.rpc.peer import Admission
from blacktree.services.core.workspace import lock_state_directory

SECRET_BYTES = 32


class LastAdmission(msgspec.Struct, frozen=True):
    """What is kept of the last admission: how long a predecessor's lease can still hold."""

    farm_id: str = ""
    lease_seconds: float = 0.0


class Identity:
    """`owner` labels everything this worker makes on an engine: no other worker has it, a restart keeps it."""

    def __init__(self, worker_id: str, state: Path, secret: str) -> None:
        self.worker_id = worker_id
        self.state = state
        self.secret = secret
        self.incarnation = secrets.token_hex(8)
        self.owner = f"{worker_id}-{hashlib.sha256(secret.encode()).hexdigest()[:16]}"

    def __repr__(self) -> str:
        return f"Identity({self.worker_id!r}, {self.incarnation!r})"

    def last_admission(self) -> LastAdmission:
        """From the process before this one; zeros if there was none."""
        try:
            return msgspec.json.decode((self.state / "admission").read_bytes(), type=LastAdmission)
        except FileNotFoundError:
            return LastAdmission()
        except (OSError, msgspec.DecodeError):
            # Unreadable: then the longest lease there is may still hold.
            return LastAdmission(lease_seconds=3600.0)

    def remember(self, admission: Admission) -> None:
        """Keep what the next process must know."""
        kept = LastAdmission(admission.farm_id, admission.lease_seconds)
        _write(self.state / "admission", msgspec.json.encode(kept))


@contextmanager
def open_identity(worker_id: str, state: Path) -> Iterator[Identity]:
    """Lock the state directory and read who we are, or make it.

    Raises `Conflict` (code `state_in_use`) when another process has it, `StorageFailed` when it cannot be used.
    """
    with lock_state_directory(state):
        try:
            secret = _secret(state / "secret")
        except OSError as error:
            raise StorageFailed(
                f"cannot keep the worker's secret in {state}: {error.strerror}",
                code="state_unusable",
                again=False,
                advice="make the state directory writable for this user",
            ) from None
        yield Identity(worker_id, state, secret)


def _secret(path: Path) -> str:
    try:
        kept = path.read_text(encoding="ascii").strip()
        if kept:
            return kept
    except FileNotFoundError:
        pass
    except UnicodeDecodeError:
        raise OSError(0, "the secret file is damaged; remove it") from None
    fresh = secrets.token_hex(SECRET_BYTES)
    _write(path, fresh.encode())
    return fresh


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, 0600."""
    draft = path.with_name(path.name + ".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(draft, path)

"""What a worker keeps of its replicas on disk: its orders without logins and secrets, what has failed for good, and
when the orchestrator last answered. So a restarted worker serves again before it has spoken with anybody."""

import os
import shutil
from pathlib import Path

import msgspec

from blacktree.rpc.replica import ReplicaName, ReplicaOrder, ReplicaOrders, ReplicaState
from blacktree.worker.lease import boottime

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """`failed`: replicas that used up their budget; a restart of the worker is no new beginning for them."""

    revision: int = 0
    orders: list[ReplicaOrder] = []
    failed: list[ReplicaState] = []


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    """When the last answered report was sent: CLOCK_BOOTTIME of this boot."""

    boot: str
    sent: float


class ReplicaStore:
    """Files in the worker's state directory. All calls block a little. `process`: the mark of this one."""

    def __init__(self, state: Path, process: str = "") -> None:
        self.home = state / "replicas"
        self._process = process

    def prepare(self) -> None:
        """Make the directory, and say in it whose it is now: a predecessor's guard has nothing to do any more."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self.home / "process", self._process.encode(), durable=False)

    def book(self, name: ReplicaName, generation: int) -> Path:
        """Where the output of one generation of a replica waits."""
        return self.home / "logs" / f"{name.deployment}.{name.version}.{name.index}.{generation}"

    def books(self) -> list[tuple[ReplicaName, int]]:
        """Whose output waits; a directory with another name is removed."""
        found = []
        for path in sorted((self.home / "logs").glob("*/")):
            try:
                deployment, version, index, generation = path.name.rsplit(".", 3)
                key = ReplicaName(deployment=deployment, version=int(version), index=int(index)), int(generation)
            except ValueError:
                key = None
            if key is not None and self.book(*key) == path:
                found.append(key)
            else:
                shutil.rmtree(path, ignore_errors=True)
        return found

    def read(self) -> Kept:
        """What was kept; nothing, if there is nothing that can be read."""
        try:
            return msgspec.json.decode((self.home / "orders").read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return Kept()

    def write(self, orders: ReplicaOrders, failed: list[ReplicaState]) -> None:
        """Keep these; whole or not at all. Raises `OSError`."""
        bare = [msgspec.structs.replace(order, logins={}, secrets={}) for order in orders.orders]
        body = msgspec.json.encode(Kept(revision=orders.revision, orders=bare, failed=failed))
        _write(self.home / "orders", body)

    def contact(self) -> float | None:
        """When the last answered report was sent, if that was in this boot."""
        try:
            kept = msgspec.json.decode((self.home / "contact").read_bytes(), type=Contact)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return kept.sent if kept.boot == _boot() and kept.sent <= boottime() else None

    def write_contact(self, sent: float) -> None:
        """Keep this moment."""
        _write(self.home / "contact", msgspec.json.encode(Contact(boot=_boot(), sent=sent)), durable=False)


def _boot() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _write(path: Path, content: bytes, *, durable: bool = True) -> None:
    draft = path.with_name(path.name + ".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(draft, path)

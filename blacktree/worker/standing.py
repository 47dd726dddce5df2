"""How this worker stands: whether it takes builds, and if not why. Facts come in, a refusal comes out."""

from pathlib import Path

import trio

from blacktree.config import WorkerConfig
from blacktree.platforms import family
from blacktree.providers.base import Health
from blacktree.rpc.peer import WorkerStatus
from blacktree.services.core.resources import free_bytes, shortage
from blacktree.worker.lease import Lease, boottime
from blacktree.worker.roster import Roster

DISK_SECONDS = 1.0


class Standing:
    """Everything that may stand against a new build, in the order in which it is told."""

    def __init__(self, config: WorkerConfig, state: Path, roster: Roster, lease: Lease) -> None:
        self._config = config
        self._state = state
        self._roster = roster
        self._lease = lease
        self.leaving = False
        # Only told back: who is drained is the orchestrator's to say, and what a heartbeat brought may be undone since.
        self.draining = False
        self.guarded = True
        self.suspect = "the worker has not swept its engine yet"
        self.health = Health(name="", refusal="the engine was not asked yet")
        self.left_open: set[str] = set()
        self.warm: list[str] = []
        self.built = True
        self._free_disk = 0
        self._shortage = ""
        self._disk_read_at = -DISK_SECONDS
        self._open = trio.Event()
        self._open.set()

    def refusal(self) -> tuple[str, str]:
        """`(code, reason)`; empty if builds are welcome. Busy slots are no refusal: see `full`."""
        if self.leaving:
            return "leaving", "the worker is shutting down"
        if not self._lease.ends or not self._lease.holds(boottime()):
            return "not_registered", "the worker's lease does not hold"
        if not self.guarded:
            return "unguarded", "the worker's guard process does not run"
        # Before what is suspected: an engine that cannot be reached is why nothing could be swept.
        if self.health.refusal:
            return "engine_refused", self.health.refusal
        if self.suspect:
            return "unproven", self.suspect
        self._look()
        return ("disk_full", self._shortage) if self._shortage else ("", "")

    @property
    def full(self) -> bool:
        return len(self._roster.building) >= self._config.slots

    def free_disk_bytes(self) -> int:
        """Of the state directory's file system; 0 if it cannot be told."""
        self._look()
        return self._free_disk

    @property
    def short(self) -> bool:
        """Whether a disk has too little room for a build."""
        self._look()
        return bool(self._shortage)

    def _look(self) -> None:
        """At the disks that builds fill: the worker's, and the engine's where that is on this machine."""
        if trio.current_time() < self._disk_read_at + DISK_SECONDS:
            return
        self._disk_read_at = trio.current_time()
        needed = self._config.minimum_free_disk_bytes
        try:
            self._free_disk = free_bytes(self._state)
        except OSError as error:
            self._free_disk = 0
            self._shortage = f"the disk of {self._state} cannot be asked: {error.strerror}" if needed else ""
            return
        self._shortage = shortage([self._state, *map(Path, self.health.directories)], needed)

    def status(self) -> WorkerStatus:
        """As the orchestrator is told."""
        code, reason = self.refusal()
        own = self._config.platforms
        # Whoever reads this has just been contacted: a lease that is being renewed is no reason.
        return WorkerStatus(
            slots=self._config.slots,
            busy=len(self._roster.building),
            refusal="" if code == "not_registered" else reason,
            draining=self.draining,
            free_disk_bytes=self.free_disk_bytes(),
            engine=f"{self.health.name} {self.health.version}".strip(),
            warm=self.warm,
            platforms=list(dict.fromkeys(filter(None, map(family, own)))) if own else self.health.platforms,
            emulated=[] if own else self.health.emulated,
        )

    def close_gate(self) -> None:
        """A sweep begins: a build that starts now could lose its things to it, so it waits."""
        self._open = trio.Event()

    def open_gate(self) -> None:
        self._open.set()

    async def gate(self) -> None:
        """Wait until no sweep is under way."""
        await self._open.wait()

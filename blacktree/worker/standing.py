"""How this worker stands: whether it takes builds, and if not why. Facts come in, a refusal comes out."""

from pathlib import Path

import trio

from blacktree.config import WorkerConfig
from blacktree.platforms import family
from blacktree.providers.base import Health
from blacktree.rpc.peer import WorkerStatus
from blacktree.services.core.resources import free_bytes, human_bytes
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
        free, needed = self.free_disk_bytes(), self._config.minimum_free_disk_bytes
        if free < needed:
            return "disk_full", (
                f"{human_bytes(free)} free on the disk of {self._state}, {human_bytes(needed)} are needed"
                " (free some, or lower `minimum_free_disk_bytes`)"
            )
        return "", ""

    @property
    def full(self) -> bool:
        return len(self._roster.building) >= self._config.slots

    def free_disk_bytes(self) -> int:
        """Of the state directory's file system; 0 if it cannot be told."""
        if trio.current_time() >= self._disk_read_at + DISK_SECONDS:
            self._disk_read_at = trio.current_time()
            try:
                self._free_disk = free_bytes(self._state)
            except OSError:
                self._free_disk = 0
        return self._free_disk

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

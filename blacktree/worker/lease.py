"""The worker's own count of its lease: when to stop its builds, when to be killed, when all is over. Pure.

It counts from the *sending* of the last answered contact, on CLOCK_BOOTTIME: a machine that slept has lost its lease.

With a lease of L seconds, counted from that sending:
- at L - min(L/3, 15) builds are stopped: what is left must hold a cancel and its proof (an engine needs well under a
  second, a provider may take 10), and a third still leaves room for a missed heartbeat (one every L/3);
- at L - min(L/10, 3) the guard kills the process, so that the engine sees closed connections and ends the builds
  before L;
- at L whatever is left of the attempts is thrown away.
"""

import time

MISSING = 0.0


def boottime() -> float:
    """Seconds on CLOCK_BOOTTIME: monotonic, and goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """What the last answered contact is still good for. `ends` is 0 before the first one."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._sent = MISSING

    def renew(self, sent: float, seconds: float | None = None) -> None:
        """An answer came to what was sent at `sent`. An older contact than the last one changes nothing."""
        if seconds is not None:
            self.seconds = seconds
        self._sent = max(self._sent, sent)

    def drop(self) -> None:
        """It no longer holds, e.g. because the orchestrator does not know us."""
        self._sent = MISSING

    @property
    def ends(self) -> float:
        return self._sent + self.seconds if self._sent else MISSING

    @property
    def stop_at(self) -> float:
        return self.ends - min(self.seconds / 3, 15.0) if self._sent else MISSING

    @property
    def kill_at(self) -> float:
        return self.ends - min(self.seconds / 10, 3.0) if self._sent else MISSING

    @property
    def heartbeat_seconds(self) -> float:
        return self.seconds / 3

    def holds(self, now: float) -> bool:
        """Whether builds may go on."""
        return now < self.stop_at

    def over(self, now: float) -> bool:
        """Whether nothing of our attempts is accepted any more."""
        return now >= self.ends

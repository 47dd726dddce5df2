"""What the kernel knows of processes: CPU seconds, memory, children. Linux only."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def cpu_seconds(*pids: int) -> float:
    """User and system time that these processes have used so far, in steps of 10 ms; the gone count nothing."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += tree(int(child))
    return found


def proportional_mib(pids: Iterable[int]) -> float:
    """PSS: shared pages are counted in parts, so that a sum over processes is what they take."""
    return sum(_kib(pid, "smaps_rollup", "Pss:") for pid in pids) / 1024


def resident_mib(pid: int) -> float:
    """RSS now."""
    return _kib(pid, "status", "VmRSS:") / 1024


def peak_mib(pid: int) -> float:
    """The largest RSS since the start or `forget_peak`."""
    return _kib(pid, "status", "VmHWM:") / 1024


def forget_peak(pid: int) -> None:
    """The peak starts anew (proc(5): clear_refs, 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _kib(pid: int, file: str, key: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1])
    return 0

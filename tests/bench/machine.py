"""What was measured on: cores, kernel, versions, and how busy the machine was with other things."""

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def facts() -> dict[str, str]:
    """For the head of the table."""
    found = {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": f"{len(os.sched_getaffinity(0))} x {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    for name in ("trio", "grpclib", "aio-pika", "msgspec", "celery"):
        found[name] = version(name)
    found["engine"] = _said("docker", "version", "--format", "{{.Server.Version}}")
    found["rabbitmq"] = _rabbitmq()
    return found


def load() -> float:
    """The one-minute load average."""
    return os.getloadavg()[0]


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _rabbitmq() -> str:
    with suppress(OSError):
        names = sorted(each.name for each in Path("/usr/lib/rabbitmq/lib").iterdir())
        return ", ".join(name.partition("-")[2] for name in names) or "-"
    return "-"


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "-"
    return done.stdout.strip() or "-"


def processor_time() -> list[int]:
    """Ticks of all processors by kind, as proc(5) lists them; empty where there is no such file."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            return [int(field) for field in file.readline().split()[1:]]
    except OSError:
        return []


def stolen(before: list[int], after: list[int]) -> float:
    """The part of the processors' time in between that a hypervisor gave to others: 0 to 1.

    >>> stolen([0] * 10, [60, 0, 10, 20, 0, 0, 0, 10, 0, 0])
    0.1
    """
    # user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user already.
    spent = [late - early for early, late in zip(before[:8], after[:8], strict=True)]
    return spent[7] / sum(spent) if len(spent) == 8 and sum(spent) else 0.0

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

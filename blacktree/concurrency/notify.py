"""systemd's notify protocol (sd_notify(3)), without a dependency."""

import os
import socket
import time


def notify(state: str) -> bool:
    """Send e.g. `READY=1` to `$NOTIFY_SOCKET`; False if there is none. Never raises: we can do without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            sock.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def reloading() -> bool:
    """`RELOADING=1` with the monotonic time that Type=notify-reload asks for."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear from us (half its limit), or None."""
    limit = os.environ.get("WATCHDOG_USEC")
    owner = os.environ.get("WATCHDOG_PID")
    if not limit or (owner and owner != str(os.getpid())):
        return None
    return int(limit) / 2e6

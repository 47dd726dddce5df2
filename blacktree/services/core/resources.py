"""What the machine has left, and when that is too little to accept a build."""

import os
from collections.abc import Iterable
from pathlib import Path

from blacktree.inodes import files_short


def shortage(directories: Iterable[Path], minimum_bytes: int) -> str:
    """Why no build can be accepted now, or `""`: one of these has less free than this, or no room for more files.

    Each file system is told once; 0: all is enough. What cannot be asked is none of this machine's. Asks the kernel
    and nobody else, so it does not wait.
    """
    reasons: dict[int, str] = {}
    for directory in directories if minimum_bytes else ():
        try:
            device, status = directory.stat().st_dev, os.statvfs(directory)
        except OSError:
            continue
        free = status.f_bavail * status.f_frsize
        if free < minimum_bytes:
            reasons.setdefault(
                device,
                f"{human_bytes(free)} free on the disk of {directory}, {human_bytes(minimum_bytes)} are needed"
                " (free some, or lower `minimum_free_disk_bytes`)",
            )
        elif files := files_short(status):
            reasons.setdefault(device, f"{files} on the disk of {directory} (remove some)")
    return "; ".join(reasons.values())


def free_bytes(directory: Path) -> int:
    """What an ordinary user may still write on this directory's file system."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def human_bytes(count: int) -> str:
    """`1.5 GiB`."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

"""What the machine has left, and when that is too little to accept a build."""

import os
from pathlib import Path

from blacktree.concurrency.threads import in_loose_thread


async def disk_refusal(directories: list[Path], minimum_bytes: int) -> str:
    """Why no build can be accepted now, or `""`. Give the state directory, and the engine's root if it is local.

    One line per file system; a directory that is not there yet is judged by its nearest parent.
    """
    return await in_loose_thread(lambda: _disk_refusal(directories, minimum_bytes))


def _disk_refusal(directories: list[Path], minimum_bytes: int) -> str:
    refusals: dict[int, str] = {}
    for directory in directories:
        try:
            there = _existing(directory)
            free = free_bytes(there)
            device = there.stat().st_dev
        except OSError as error:
            return f"the disk of {directory} cannot be asked: {error.strerror}"
        if free < minimum_bytes:
            refusals.setdefault(
                device,
                f"{human_bytes(free)} free on the disk of {directory}, {human_bytes(minimum_bytes)} are needed"
                " (free some, or lower `minimum_free_disk_bytes`)",
            )
    return "; ".join(refusals.values())


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


def _existing(directory: Path) -> Path:
    path = directory.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path

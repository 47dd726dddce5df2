"""Small file systems of their own, to be filled up."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, *options: str) -> Iterator[Path]:
    """A tmpfs at `place` with these mount options; the test is skipped where none may be mounted."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", ",".join(["mode=0700", *options]), "none", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def few_files(place: Path) -> Iterator[Path]:
    """One that has megabytes free and room for no more than a twentieth of its thousand files."""
    with small_disk(place, "size=64m", "nr_inodes=1000") as disk:
        for number in range(960):
            (disk / str(number)).touch()
        yield disk

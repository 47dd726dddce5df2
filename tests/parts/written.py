"""All that a farm has written, read while it goes on: files come, are packed, and go."""

from collections.abc import Iterator
from pathlib import Path


def contents(*places: Path) -> dict[Path, bytes]:
    """Every file at or below these places; a look during which one went is made again, for what took its place."""
    for _ in range(100):
        found: dict[Path, bytes] = {}
        try:
            for path in _files(places):
                found[path] = path.read_bytes()
        except FileNotFoundError:
            continue
        return found
    raise AssertionError(f"files come and go all the time below {places}")


def _files(places: tuple[Path, ...]) -> Iterator[Path]:
    for place in places:
        for path in [place] if place.is_file() else list(place.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path


def holders(value: bytes, *places: Path) -> list[Path]:
    """The files there that hold this value."""
    return [path for path, content in contents(*places).items() if value in content]

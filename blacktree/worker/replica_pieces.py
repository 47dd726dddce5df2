"""The numbered pieces of a replica's output, and the directory they are kept in until they are stored elsewhere."""

import re
import shutil
from pathlib import Path

import msgspec

from blacktree.providers.containers import LogPosition
from blacktree.rpc.replica import ReplicaLog


class Place(msgspec.Struct, frozen=True):
    """Where to go on reading: which container, which number its output bears, and the place in its log."""

    container: str
    attempt: int
    position: LogPosition | None = None


class Piece(msgspec.Struct, frozen=True):
    """`whole`: the pieces up to this one are complete, and reading goes on at `place`."""

    log: ReplicaLog
    place: Place | None
    whole: bool


class Mark(msgspec.Struct, frozen=True):
    """All pieces below `next_number` are stored elsewhere; reading goes on at `place`."""

    next_number: int
    place: Place | None


_encode = msgspec.msgpack.Encoder().encode
_decode_piece = msgspec.msgpack.Decoder(Piece).decode
_decode_mark = msgspec.msgpack.Decoder(Mark).decode
_FILE = re.compile(r"(\d+)\.piece\Z")


class PieceFiles:
    """The directory of one generation of one replica. All calls block a little."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def recall(self) -> tuple[Mark, list[Piece]]:
        """The number and place to go on with, and what the process before this one had sent and not heard of."""
        mark, kept = Mark(1, None), list[Piece]()
        try:
            mark = _decode_mark((self._directory / "mark").read_bytes())
        except (OSError, msgspec.DecodeError):
            pass
        try:
            files = [(int(found[1]), path) for path in self._directory.iterdir() if (found := _FILE.match(path.name))]
        except OSError:
            files = []
        found_ones: list[Piece] = []
        for number, path in sorted(files):
            try:
                piece = _decode_piece(path.read_bytes())
            except (OSError, msgspec.DecodeError):
                break
            if number == mark.next_number + len(found_ones):
                found_ones.append(piece)
            if found_ones and piece.whole:
                # What follows the last whole one was being written when the process ended, and was never sent.
                kept.extend(found_ones)
                mark = Mark(number + 1, piece.place)
                found_ones = []
        return mark, kept

    def write(self, pieces: list[Piece]) -> None:
        """Keep these. Raises `OSError`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for piece in pieces:
            _write(self._directory / f"{piece.log.number}.piece", _encode(piece))

    def forget(self, pieces: list[Piece], mark: Mark) -> None:
        """These are stored elsewhere; begin with `mark` the next time. Raises `OSError`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self._directory / "mark", _encode(mark))
        for piece in pieces:
            (self._directory / f"{piece.log.number}.piece").unlink(missing_ok=True)

    def remove(self) -> None:
        """Nothing more of it is wanted."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)

"""The engine's multiplexed stdout and stderr (Engine API, "attach to a container", stream format).

A frame: one byte for the stream (1 stdout, 2 stderr), three of zero, four of length, big-endian; then its content. In a
log with timestamps every frame is one entry and begins with its stamp and a blank.
"""

from datetime import UTC, datetime

from blacktree.errors import EngineLost
from blacktree.providers.containers import LogEntry, LogPosition
from blacktree.providers.docker.stream import Answer

HEAD = 8
MAX_FRAME_BYTES = 1 << 20  # the engine splits at 16 KiB
_STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}


class Frames:
    """Cuts bytes into frames. Pure."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """The frames that `data` completes. Raises `EngineLost` for what is no frame."""
        self._rest += data
        rest, at, found = self._rest, 0, []
        while len(rest) - at >= HEAD:
            size = int.from_bytes(rest[at + 4 : at + 8], "big")
            if rest[at] not in _STREAMS or size > MAX_FRAME_BYTES:
                raise EngineLost("the engine sent something that is no piece of a container's output", again=False)
            if len(rest) - at - HEAD < size:
                break
            found.append((_STREAMS[rest[at]], bytes(rest[at + HEAD : at + HEAD + size])))
            at += HEAD + size
        del rest[:at]
        return found


class FrameReader:
    """A log as entries, from a position on: see `LogReader`."""

    def __init__(self, answer: Answer, after: LogPosition | None) -> None:
        self._answer = answer
        self._frames = Frames()
        self._after = after
        self._stamp = ""
        self._count = 0
        self.missed = False

    async def next(self) -> list[LogEntry]:
        """See `LogReader`."""
        while True:
            chunk = await self._answer.chunk()
            if not chunk:
                self._check_anchor("")
                return []
            if entries := self.read(self._frames.feed(chunk)):
                return entries

    def read(self, frames: list[tuple[str, bytes]]) -> list[LogEntry]:
        """The entries of these frames, without those that were had before."""
        entries = []
        for stream, content in frames:
            stamp, _, data = content.partition(b" ")
            text = stamp.decode("ascii", "replace")
            self._count = self._count + 1 if text == self._stamp else 1
            if text != self._stamp:
                self._check_anchor(text)
            self._stamp = text
            if self._after is not None and text == self._after.stamp and self._count <= self._after.count:
                continue
            entries.append(LogEntry(stream, moment(text), data, LogPosition(text, self._count)))
        return entries

    def _check_anchor(self, stamp: str) -> None:
        """Called with the first stamp (empty: there is none): the log must begin where the last reading ended."""
        if self._stamp == "" and self._after is not None and stamp != self._after.stamp:
            self.missed = True


def moment(stamp: str) -> datetime:
    """An RFC 3339 stamp with nanoseconds, to the microsecond. Raises `EngineLost` for anything else."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{fraction[:6].ljust(6, '0')}").replace(tzinfo=UTC)
    except ValueError:
        raise EngineLost(f"the engine sent a log without times: {stamp[:40]!r}", again=False) from None

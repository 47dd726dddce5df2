"""The output of one replica on its way to the orchestrator: lines, in numbered pieces, each kept until it is stored.

What was not sent yet stays where it is, in the engine's own log, and is read only as fast as it is taken. A piece is
written to disk before it is sent for the first time, together with the place in the engine's log behind it: after a
restart of the worker the same pieces are sent again, and reading goes on from there. Nothing comes twice. What the
engine threw away meanwhile, or what a container had left to say when nobody took it, is told by a notice.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.concurrency.threads import in_thread
from blacktree.event import Lines, Notice, Record
from blacktree.providers.containers import LogEntry, LogPosition
from blacktree.rpc.replica import ReplicaLog, ReplicaName
from blacktree.services.core.masking import Masker
from blacktree.worker.replica_pieces import Mark, Piece, PieceFiles, Place
from blacktree.worker.replica_pipe import Pipe

log = structlog.get_logger()

PIECE_BYTES = 128 << 10
HELD_BYTES = 1 << 20
PIECE_RECORDS = 1000
LAST_LINES = 20
LAST_LINE_CHARACTERS = 500
# A line that has begun and does not end, or what may become a secret, holds up the rest for at most this long.
UNFINISHED_SECONDS = 2.0
_RECORD_BYTES = 64  # beside its text


class LogBook:
    """All output of one generation of one replica; `directory` is its own. Making one blocks a little."""

    def __init__(self, name: ReplicaName, generation: int, directory: Path) -> None:
        self._name = name
        self._generation = generation
        self._files = PieceFiles(directory)
        self._masker = Masker([])
        self._pipes: dict[str, Pipe] = {}
        self._waiting: deque[Record] = deque()
        self._held_bytes = 0
        self._sent: deque[Piece] = deque()
        self._next = 1
        self._read: Place | None = None
        self._clean: Place | None = None
        self._unclean_since: float | None = None
        self._taken = trio.Event()
        self._dropped = (0, 0)
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        mark, kept = self._files.recall()
        self._sent.extend(kept)
        self._held_bytes = sum(size_of(each.log.records) for each in kept)
        self._next, self._read, self._clean = mark.next_number, mark.place, mark.place

    @property
    def place(self) -> Place | None:
        """Where reading goes on."""
        return self._read

    @property
    def full(self) -> bool:
        return self._held_bytes >= HELD_BYTES

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._sent or self._waiting)

    async def room(self) -> None:
        """Wait until there is room for more."""
        while self.full:
            await self._taken.wait()

    def mask(self, values: Iterable[bytes]) -> None:
        """The values that must not show, before anything is read."""
        self._masker = Masker(values)

    def mask_text(self, text: str) -> str:
        return self._masker.mask_text(text)

    def begin(self, container: str, attempt: int) -> None:
        """The output of this container follows; the same again goes on."""
        if self._read is None or self._read.container != container:
            self._pipes = {}
            self._read = self._clean = Place(container, attempt)

    def feed(self, entries: list[LogEntry]) -> int:
        """The next entries; answers how many bytes they came to."""
        before = self._held_bytes
        at = 0
        while at < len(entries):
            first, until = entries[at], at
            while until < len(entries) and entries[until].stream == first.stream:
                until += 1
            self._put(first, b"".join(entry.data for entry in entries[at:until]))
            at = until
        if entries and self._read is not None:
            self._read = Place(self._read.container, self._read.attempt, entries[-1].position)
        self._settle()
        return self._held_bytes - before

    def drop(self, entries: list[LogEntry]) -> None:
        """These are not kept; they are counted, and `finish` tells of them."""
        lines, size = self._dropped
        data = [entry.data for entry in entries]
        self._dropped = (lines + sum(each.count(b"\n") for each in data), size + sum(map(len, data)))
        if entries and self._read is not None:
            self._read = Place(self._read.container, self._read.attempt, entries[-1].position)

    def missed(self) -> None:
        """The engine no longer has what comes next."""
        self.notice(
            "output_dropped",
            "output is missing here: the engine threw away what nobody had read in time (it keeps 30 MB a container)",
        )

    def notice(self, code: str, text: str) -> None:
        """Something the reader should know."""
        attempt = self._read.attempt if self._read is not None else 0
        self._add(Notice(now(), attempt, code, text))

    def finish(self) -> None:
        """The container's output is over: the last lines need no newline."""
        self._flush()
        lines, size = self._dropped
        if size:
            self._dropped = (0, 0)
            self.notice("output_dropped", f"{lines} lines ({size} bytes) were dropped: nobody took them in time")
        self._settle()

    def _put(self, entry: LogEntry, data: bytes) -> None:
        pipe = self._pipes.get(entry.stream)
        if pipe is None:
            pipe = self._pipes[entry.stream] = Pipe(self._masker)
        for text, goes_on in pipe.feed(data):
            self._line(entry, text, goes_on)

    def _line(self, entry: LogEntry, text: str, partial: bool) -> None:
        attempt = self._read.attempt if self._read is not None else 0
        self._add(Lines(entry.time, attempt, "", entry.stream, text, partial))
        self.last_lines.extend(line[:LAST_LINE_CHARACTERS] for line in text.rstrip("\n").split("\n")[-LAST_LINES:])

    def _add(self, record: Record) -> None:
        self._waiting.append(record)
        self._held_bytes += size_of([record])

    def _flush(self) -> None:
        for stream, pipe in self._pipes.items():
            for text, goes_on in pipe.finish():
                self._line(LogEntry(stream, now(), b"", LogPosition("", 0)), text, goes_on)

    def _settle(self) -> None:
        if not any(pipe.pending for pipe in self._pipes.values()):
            self._clean = self._read
            self._unclean_since = None
        elif self._unclean_since is None:
            self._unclean_since = trio.current_time()

    async def take(self, most_bytes: int) -> list[ReplicaLog]:
        """The next pieces to send, on disk by then: first those that were sent before. At most about `most_bytes`."""
        if not self._sent and (made := self._cut()):
            self._sent.extend(made)
            await self._on_disk(partial(self._files.write, made))
        size, pieces = 0, []
        for piece in self._sent:
            if size >= most_bytes:
                break
            pieces.append(piece.log)
            size += size_of(piece.log.records)
        return pieces

    def _cut(self) -> list[Piece]:
        """All that waits becomes pieces: the last one bears the place in the engine's log behind them all."""
        if not self._waiting:
            return []
        if self._clean != self._read:
            # Reading can go on only from where no line has begun and nothing is held back.
            waited = trio.current_time() - (self._unclean_since or 0.0)
            if waited < UNFINISHED_SECONDS and not self.full:
                return []
            self._flush()
            self._settle()
        made: list[Piece] = []
        while self._waiting:
            records: list[Record] = []
            size = 0
            while self._waiting and size < PIECE_BYTES and len(records) < PIECE_RECORDS:
                records.append(self._waiting.popleft())
                size += size_of(records[-1:])
            piece = ReplicaLog(name=self._name, generation=self._generation, number=self._next, records=records)
            made.append(Piece(piece, self._clean if not self._waiting else None, not self._waiting))
            self._next += 1
        return made

    async def stored(self, next_number: int) -> None:
        """The orchestrator has all pieces below this number, or does not want them."""
        if next_number > self._next:
            # It has more than we ever made: our state directory was lost, and we began to count anew.
            replace = msgspec.structs.replace
            old = list(self._sent)
            new = [
                replace(piece, log=replace(piece.log, number=number)) for number, piece in enumerate(old, next_number)
            ]
            self._sent = deque(new)
            self._next = next_number + len(new)
            await self._on_disk(partial(self._files.forget, old, Mark(next_number, None)))
            await self._on_disk(partial(self._files.write, new))
            return
        gone: list[Piece] = []
        while self._sent and self._sent[0].log.number < next_number:
            gone.append(self._sent.popleft())
        if gone:
            self._held_bytes -= sum(size_of(each.log.records) for each in gone)
            self._taken.set()
            self._taken = trio.Event()
            await self._on_disk(partial(self._files.forget, gone, Mark(gone[-1].log.number + 1, gone[-1].place)))

    async def _on_disk(self, change: Callable[[], None]) -> None:
        try:
            await in_thread(change)
        except OSError as error:
            # It goes on: what is missing on disk comes twice if the worker ends before it is stored.
            log.warning("output of a replica is not kept", name=repr(self._name), reason=error.strerror)

    def remove(self) -> None:
        """Nothing more of it is wanted."""
        self._files.remove()


def size_of(records: Iterable[Record]) -> int:
    """About how many bytes these are in a message."""
    return sum(len(record.text.encode()) + _RECORD_BYTES for record in records if isinstance(record, Lines | Notice))

"""One writer, many readers: the newest slices of a sequence, encoded once and shared. Nobody waits for a reader."""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import trio

MOST_SHARED = 8


class Piece(Protocol):
    """A run of a numbered sequence, in bytes that can be joined with its neighbour's."""

    @property
    def body(self) -> bytes: ...

    @property
    def first_seq(self) -> int: ...

    @property
    def next_seq(self) -> int: ...


P = TypeVar("P", bound=Piece)


class _Reading(Generic[P]):
    """A look into the store that is under way; `found` stays None if it failed."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.found: P | None = None


class Fanout(Generic[P]):
    """A bounded window on the end of a sequence. A reader that fell out of it reads from the store instead.

    There too, readers at the same place share what one of them has read.
    """

    def __init__(self, *, window_bytes: int = 4 << 20) -> None:
        self._window = window_bytes
        self._pieces: deque[tuple[int, int, bytes]] = deque()
        self._bytes = 0
        self._changed = trio.Event()
        self._joined: dict[tuple[int, int], bytes] = {}
        self._shared: OrderedDict[int, P] = OrderedDict()
        self._reading: dict[tuple[int, int], _Reading[P]] = {}
        self.readers = 0
        self.next_seq = 0
        self.ended = False

    def put(self, first_seq: int, next_seq: int, body: bytes) -> None:
        """Append a piece and wake the readers."""
        self._pieces.append((first_seq, next_seq, body))
        self._bytes += len(body)
        self.next_seq = next_seq
        self._joined.clear()
        while self._bytes > self._window and len(self._pieces) > 1:
            self._bytes -= len(self._pieces.popleft()[2])
        self.wake()

    def reset(self, next_seq: int) -> None:
        """Forget the window: what lies before `next_seq` is in the store."""
        self._pieces.clear()
        self._joined.clear()
        self._bytes = 0
        self.next_seq = next_seq

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.wake()

    def wake(self) -> None:
        """Let every reader look again."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait(self) -> None:
        """Until the next `put`, `end` or `wake`."""
        await self._changed.wait()

    def take(self, seq: int, *, max_bytes: int) -> tuple[int, bytes] | None:
        """What follows `seq`: the number after it and its bytes, joined by commas; None if that is not in the window.

        Readers that stand at the same place share one object.
        """
        pieces = self._pieces
        if not pieces or seq < pieces[0][0]:
            return None
        # Readers are nearly always at the last few pieces: look from the end.
        start = len(pieces)
        while start > 0 and pieces[start - 1][0] >= seq:
            start -= 1
        if start == len(pieces) or pieces[start][0] != seq:
            return None
        end, size = start, 0
        while end < len(pieces) and (size == 0 or size + len(pieces[end][2]) <= max_bytes):
            size += len(pieces[end][2])
            end += 1
        next_seq = pieces[end - 1][1]
        if end - start == 1:
            return next_seq, pieces[start][2]
        key = (seq, next_seq)
        body = self._joined.get(key)
        if body is None:
            body = self._joined[key] = b",".join(pieces[index][2] for index in range(start, end))
        return next_seq, body

    async def share(self, seq: int, read: Callable[[], Awaitable[P]]) -> P:
        """What `read` gives for `seq`, read once for all who ask at about the same time."""
        # What was begun before the last `put` may lack what this asker knows to be there.
        key = (seq, self.next_seq)
        if (reading := self._reading.get(key)) is not None:
            await reading.done.wait()
        if reading is not None and reading.found is not None:
            return reading.found
        if (found := self._shared.get(seq)) is not None:
            await trio.lowlevel.checkpoint()
            return found
        reading = self._reading[key] = _Reading()
        try:
            reading.found = found = await read()
        finally:
            if self._reading.get(key) is reading:
                del self._reading[key]
            reading.done.set()
        if self.readers > 1 and found.next_seq > seq:
            self._shared[seq] = found
            if len(self._shared) > MOST_SHARED:
                self._shared.popitem(last=False)
        return found

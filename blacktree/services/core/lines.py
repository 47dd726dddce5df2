"""Bytes as they came, in any split, become batches of whole lines of text."""

import codecs

from blacktree.event import MAX_LINE_BYTES


class LineSplitter:
    """Splits one stream into lines; `feed` and `finish` answer with a list of `(text, partial)`.

    `text` is one or many lines, each ending with a newline, none with more than `limit` bytes of UTF-8 before it;
    `partial` marks a single line that goes on in the next text. CRLF becomes a newline, a lone carriage return and
    all other control characters stay; what is not UTF-8 becomes U+FFFD. The result does not depend on how the stream
    was split, and at most `limit` bytes and a chunk are held.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._tail = bytearray()

    @property
    def pending(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._tail)

    def feed(self, data: bytes) -> list[tuple[str, bool]]:
        """The lines that `data` completes, and the pieces of one that grew over the limit."""
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._tail += data
            # One byte more than the limit may still be the carriage return of a CRLF.
            return self._cut_tail() if len(self._tail) > self._limit + 1 else []
        complete = bytes(self._tail) + data[:end] if self._tail else data[:end]
        self._tail = bytearray(data[end:])
        if b"\r" in complete:
            complete = complete.replace(b"\r\n", b"\n")
        lines = self._lines(complete)
        if len(self._tail) > self._limit + 1:
            lines += self._cut_tail()
        return lines

    def finish(self) -> list[tuple[str, bool]]:
        """The last line, if it had no end. The splitter is as new afterwards."""
        rest, self._tail = bytes(self._tail), bytearray()
        return self._lines(rest + b"\n") if rest else []

    def _lines(self, complete: bytes) -> list[tuple[str, bool]]:
        try:
            text = complete.decode()
        except UnicodeDecodeError:
            text = complete.decode("utf-8", "replace")
            complete = text.encode()  # the limit counts what will be stored
        limit, size = self._limit, len(complete)
        batches: list[tuple[str, bool]] = []
        start = taken = 0
        while start < size:
            # One search a window, not one a line: it misses only where a line is over the limit.
            end = complete.rfind(b"\n", start, start + limit + 1)
            if end >= 0:
                start = end + 1
                continue
            if start > taken:
                batches.append((complete[taken:start].decode(), False))
            line_end = complete.index(b"\n", start)
            while line_end - start > limit:
                cut = _character_start(complete, start + limit)
                batches.append((complete[start:cut].decode() + "\n", True))
                start = cut
            taken = start
        if taken == 0:
            return [(text, False)]
        if taken < size:
            batches.append((complete[taken:].decode(), False))
        return batches

    def _cut_tail(self) -> list[tuple[str, bool]]:
        # Not final: a character cut by the end of the chunk stays as it is until its rest comes.
        text, used = codecs.utf_8_decode(self._tail, "replace", False)
        valid = text.encode()
        batches: list[tuple[str, bool]] = []
        start = 0
        while len(valid) - start > self._limit + 1:
            cut = _character_start(valid, start + self._limit)
            batches.append((valid[start:cut].decode() + "\n", True))
            start = cut
        self._tail = bytearray(valid[start:]) + self._tail[used:]
        return batches


def _character_start(valid: bytes, at: int) -> int:
    """`at`, moved back to where a character of valid UTF-8 begins."""
    while valid[at] & 0xC0 == 0x80:
        at -= 1
    return at

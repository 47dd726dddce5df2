"""Cutting records to what a reader asked for: from exactly this number (or byte) on, and not more than it can take."""

from collections.abc import Iterator

import msgspec

from blacktree.event import Lines, Record, span


def plain(record: Record) -> bytes:
    """The record's bytes in the plain log; a partial line goes on in the next record, so it brings no newline."""
    if type(record) is not Lines:
        return b""
    return (record.text[:-1] if record.partial else record.text).encode()


def split(record: Record, most_bytes: int) -> Iterator[Record]:
    """The record in pieces of about `most_bytes` of text, cut between lines, so that one block is never large."""
    if type(record) is not Lines or len(record.text) <= most_bytes // 4:
        yield record
        return
    lines = record.text.split("\n")
    lines.pop()
    start, size = 0, 0
    for index, line in enumerate(lines):
        length = len(line.encode()) + 1
        if size and size + length > most_bytes:
            yield msgspec.structs.replace(record, text="\n".join(lines[start:index]) + "\n")
            start, size = index, 0
        size += length
    yield msgspec.structs.replace(record, text="\n".join(lines[start:]) + "\n") if start else record


class Reading:
    """What one `read` gives: filled in order of the numbers until `full`."""

    def __init__(self, from_seq: int, limit: int, max_bytes: int) -> None:
        self.position = max(1, from_seq)
        self.taken: list[tuple[int, Record]] = []
        self._left = max(1, limit)
        self._room = max(1, max_bytes)

    @property
    def full(self) -> bool:
        """Whether nothing more may be taken."""
        return self._left <= 0 or self._room <= 0

    def take(self, first_seq: int, record: Record) -> None:
        """Take what fits of a record that covers `position`; one that ends before it is passed over."""
        if self.full or first_seq + span(record) <= self.position:
            return
        if type(record) is not Lines:
            self._put(record, 1, 64)
            return
        start = self.position - first_seq
        size = len(record.text.encode()) if start == 0 and span(record) <= self._left else self._room + 1
        if size <= self._room:
            # As nearly always: no look at single lines.
            self._put(record, span(record), size)
            return
        lines = record.text.split("\n")
        lines.pop()
        size = 0
        end = start
        while end < len(lines) and end - start < self._left and (size < self._room or end == start):
            length = len(lines[end].encode()) + 1
            if end > start and size + length > self._room:
                # The next line belongs to the next page, which is therefore the end of this one.
                self._room = size
                break
            size += length
            end += 1
        whole = start == 0 and end == len(lines)
        cut = record if whole else msgspec.structs.replace(record, text="\n".join(lines[start:end]) + "\n")
        self._put(cut, end - start, size)

    def _put(self, record: Record, count: int, size: int) -> None:
        self.taken.append((self.position, record))
        self.position += count
        self._left -= count
        self._room -= size

"""Many websocket readers of one job in one process, as cheap as Python allows: raw sockets on one epoll.

`python -m tests.bench.reader_client URL JOB COUNT stamps|- RECORD|-`, the token in `BENCH_TOKEN`. Says `{}` when every
reader has its answer, and at the end what all of them got. Every reader checks that no number is missing or double.
"""

import base64
import json
import os
import select
import socket
import sys
import time
from typing import BinaryIO
from urllib.parse import urlsplit

from tests.bench.figure import percentile

CHUNK = 1 << 18
LIMIT_SECONDS = 120.0
_LOG, _SEQ, _END = b'"type":"log"', b'{"seq":', b'"method":"job.end"'


class Reader:
    """One connection: what is half received, and which number comes next."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.rest = bytearray()
        self.next_seq = 1
        self.lines = 0
        self.gaps = 0
        self.bytes = 0
        self.answered = False
        self.ended = False


class Crowd:
    """All readers."""

    def __init__(self, stamps: bool, record: BinaryIO | None) -> None:
        self._stamps = stamps
        self._record = record
        self._known: dict[bytes, tuple[int, int, int, int, list[int]]] = {}
        self._arrivals: list[tuple[float, list[int]]] = []
        self.first = 0.0
        self.last = 0.0

    def receive(self, reader: Reader, *, recorded: bool) -> None:
        """Take what there is."""
        data = reader.connection.recv(CHUNK)
        now = time.time()
        if not data:
            raise SystemExit("the server hung up on a reader")
        reader.bytes += len(data)
        if recorded and self._record is not None:
            self._record.write(data)
        reader.rest += data
        at = 0
        while (frame := _frame(reader.rest, at)) is not None:
            kind, start, end = frame
            at = end
            if kind == 1:
                self.take_text(reader, bytes(reader.rest[start:end]), now)
            elif kind == 9:
                reader.connection.sendall(masked(10, bytes(reader.rest[start:end])))
            elif kind == 8:
                raise SystemExit("the server closed a reader")
        del reader.rest[:at]

    def take_text(self, reader: Reader, text: bytes, now: float) -> None:
        """One text message of the server."""
        if b'"job.events"' not in text[:64]:
            reader.answered = True
            reader.ended = reader.ended or _END in text[:64]
            return
        if text not in self._known:
            # Readers get equal bytes: looked at once, compared ever after.
            self._known[text] = self._look(text)
        first, last, events, lines, stamps = self._known[text]
        if first != reader.next_seq or last - first + 1 != events:
            reader.gaps += 1
        reader.next_seq = last + 1
        reader.lines += lines
        if lines:
            self.first = self.first or now
            self.last = now
            if stamps:
                self._arrivals.append((now, stamps))

    def _look(self, text: bytes) -> tuple[int, int, int, int, list[int]]:
        # Quotes within a line are escaped, so these marks are only found where they mean something.
        begin = text.find(_SEQ) + len(_SEQ)
        final = text.rfind(_SEQ) + len(_SEQ)
        stamps = [int(each.partition(b"@")[0]) for each in text.split(b'"line":"@')[1:]] if self._stamps else []
        return _number(text, begin), _number(text, final), text.count(_SEQ), text.count(_LOG), stamps

    def latencies(self) -> list[float]:
        """Milliseconds from print to arrival, of every line at every reader."""
        return [now * 1000 - stamp / 1000 for now, stamps in self._arrivals for stamp in stamps]


def _number(text: bytes, start: int) -> int:
    return int(text[start : text.index(b",", start)])


def _frame(data: bytearray, at: int) -> tuple[int, int, int] | None:
    """Opcode, start and end of the payload of a whole frame from a server (RFC 6455, 5.2), or None."""
    if len(data) < at + 2:
        return None
    size, start = data[at + 1] & 127, at + 2
    if size > 125:
        width = 2 if size == 126 else 8
        if len(data) < start + width:
            return None
        size, start = int.from_bytes(data[start : start + width], "big"), start + width
    return (data[at] & 15, start, start + size) if len(data) >= start + size else None


def masked(kind: int, payload: bytes) -> bytes:
    """A client's frame; the mask is zero, which is a mask too. For payloads of less than 64 KiB."""
    size = len(payload)
    head = bytes([128 | kind, 128 | size]) if size < 126 else bytes([128 | kind, 254]) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


def _opened(url: str, job_id: str, token: str) -> Reader:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /ws HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n"
    connection.sendall(head.encode())
    seen = b""
    while b"\r\n\r\n" not in seen:
        piece = connection.recv(1)
        if not piece:
            raise SystemExit(f"refused: {seen!r}")
        seen += piece
    if b" 101 " not in seen.partition(b"\r\n")[0]:
        raise SystemExit(f"refused: {seen!r}")
    request = {"jsonrpc": "2.0", "id": 1, "method": "job.watch", "params": {"id": job_id, "from_seq": 1}}
    connection.sendall(masked(1, json.dumps(request).encode()))
    connection.setblocking(False)
    return Reader(connection)


def main(url: str, job_id: str, count: int, stamps: bool, record: str) -> None:
    """See the module."""
    token = os.environ["BENCH_TOKEN"]
    readers = [_opened(url, job_id, token) for _ in range(count)]
    by_number = {reader.connection.fileno(): reader for reader in readers}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    with open(os.devnull if record == "-" else record, "wb") as file:
        crowd = Crowd(stamps, None if record == "-" else file)
        deadline = time.monotonic() + LIMIT_SECONDS
        said = False
        while not all(reader.ended for reader in by_number.values()):
            if time.monotonic() > deadline:
                raise SystemExit("not every reader got the end in time")
            for number, _ in poll.poll(1.0):
                reader = by_number[number]
                crowd.receive(reader, recorded=reader is readers[0])
                if reader.ended:
                    poll.unregister(number)
                    del by_number[number]
            if not said and all(reader.answered for reader in readers):
                said = True
                print("{}", flush=True)
    found = {
        "first": crowd.first,
        "last": crowd.last,
        "fewest": min(reader.lines for reader in readers),
        "most": max(reader.lines for reader in readers),
        "gaps": sum(reader.gaps for reader in readers),
        "bytes_each": readers[0].bytes,
    }
    if latencies := crowd.latencies():
        found |= {
            "p50_ms": percentile(latencies, 0.5),
            "p99_ms": percentile(latencies, 0.99),
            "most_ms": max(latencies),
        }
        found |= {"samples": len(latencies)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "stamps", sys.argv[5])

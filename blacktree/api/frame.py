"""Websocket text frames of a server (RFC 6455, section 5.2), and those of job events, made once for all readers."""

from collections import OrderedDict

from blacktree.orchestrator.control import Slice

_KEPT_BYTES = 8 << 20


def close_frame(code: int) -> bytes:
    """A close frame without a reason."""
    return b"\x88\x02" + code.to_bytes(2, "big")


GOING_AWAY = close_frame(1001)


def text_frame(*parts: bytes) -> bytes:
    """One final, unmasked text frame with these bytes, which must be UTF-8."""
    size = sum(map(len, parts))
    if size < 126:
        head = bytes((0x81, size))
    elif size < 1 << 16:
        head = b"\x81\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x81\x7f" + size.to_bytes(8, "big")
    return b"".join((head, *parts))


class Frames:
    """The newest frames of job events. Readers of one job get the same slices, and most have the same watch number."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], tuple[bytes, bytes]] = OrderedDict()
        self._bytes = 0

    def of(self, piece: Slice, watch: int) -> bytes:
        """The `job.events` notification of a slice for a watch of this number."""
        key = (id(piece.body), watch)
        found = self._kept.get(key)
        if found is not None:
            return found[1]
        head = b'{"jsonrpc":"2.0","method":"job.events","params":{"watch":%d,"events":[' % watch
        frame = text_frame(head, piece.body, b"]}}")
        # The body is kept beside its frame, so that its identity stays its own.
        self._kept[key] = (piece.body, frame)
        self._bytes += len(frame)
        while self._bytes > _KEPT_BYTES or len(self._kept) > 256:
            _, (_, old) = self._kept.popitem(last=False)
            self._bytes -= len(old)
        return frame

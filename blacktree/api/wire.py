"""`Wire`: one accepted connection, owned by the door: every send is whole, has a deadline, and can be cut short."""

import contextlib
import socket
from collections.abc import Callable

import trio

from blacktree.api.backlog import Backlog

_SEND_BUFFER_BYTES = 256 * 1024


class Wire(trio.abc.HalfCloseableStream):
    """A TCP stream whose first bytes may be put back, shared by HTTP, trio-websocket and raw frames.

    A send is shielded from cancellation so that no frame is ever cut in two; it ends early only by `abort` or when the
    peer takes nothing for `send_seconds`, and then the connection is over. Closing is always forceful.
    """

    secure = False

    def __init__(self, stream: trio.SocketStream, *, send_seconds: float) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._send_seconds = send_seconds
        self._turn = trio.Lock()
        self._back = b""
        self._closed = False
        self._ended = False
        self.farewell = b""
        self.backlog = Backlog()
        self.heard_at = trio.current_time()
        self.sent_bytes = 0
        try:
            self.peer = str(self._socket.getpeername()[0])
        except OSError:
            # Gone already.
            self.peer = ""
        # Bounded kernel buffers: a thousand stalled readers must not hold gigabytes.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # The kernel notices a vanished peer (or a window that stays shut) even while we only send pings.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(send_seconds * 1000)))
        # The same descriptor without Trio around it, for the many sends that need no waiting.
        self._plain = socket.socket(fileno=self._socket.fileno())

    @property
    def port(self) -> int:
        """The local port the peer came to."""
        return int(self._socket.getsockname()[1])

    def put_back(self, data: bytes) -> None:
        """These bytes are received first, again."""
        self._back = data + self._back

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As any stream. Raises `trio.ClosedResourceError` after `abort` and `aclose`."""
        if self._ended:
            raise trio.ClosedResourceError("this side was ended")
        if self._back:
            await trio.lowlevel.checkpoint()
            limit = len(self._back) if max_bytes is None else max_bytes
            data, self._back = self._back[:limit], self._back[limit:]
            return data
        data = await self._receive(max_bytes or 65536)
        self.heard_at = trio.current_time()
        return data

    async def _receive(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, in turn with other senders. Raises `trio.BrokenResourceError` or `ClosedResourceError`."""
        async with self._turn:
            await self._push(data)

    async def send_turn(self, data: bytes, *, unless: Callable[[], bool]) -> None:
        """As `send_all`, but asks `unless` when it is our turn; if that is so, raises `trio.ClosedResourceError`.

        No checkpoint when the kernel takes everything at once: with a thousand readers that is most of the cost.
        """
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            with self.backlog.waiting(self, len(data)):
                await self._turn.acquire()
        try:
            if unless():
                raise trio.ClosedResourceError("this conversation was closed")
            await self._push(data)
        finally:
            self._turn.release()

    async def guard(self) -> None:
        """To run beside whatever uses the wire: when that is cancelled, say farewell if there is room, and close.

        Without it a shielded send could hold a shutdown for as long as the peer pleases.
        """
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(0.3, shield=True):
                if self.farewell:
                    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        async with self._turn:
                            await self._push(self.farewell, seconds=0.3)
            self.abort()

    async def _push(self, data: bytes | bytearray | memoryview, seconds: float | None = None) -> None:
        if self._closed or self._ended:
            raise trio.ClosedResourceError("this connection was closed")
        rest = memoryview(data)[self._send_now(data) :]
        if rest:
            await self._push_slowly(rest, self._send_seconds if seconds is None else seconds)
        self.sent_bytes += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As any stream."""
        await self._stream.wait_send_all_might_not_block()

    def _send_now(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._plain.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            # A broken pipe is for good: later readers and senders must not wait for it.
            self.abort()
            raise trio.BrokenResourceError("the peer went away") from error

    async def _push_slowly(self, rest: memoryview, seconds: float) -> None:
        with trio.CancelScope(shield=True) as scope:
            while rest:
                scope.deadline = trio.current_time() + seconds
                await trio.lowlevel.wait_writable(self._plain)
                if sent := self._send_now(rest):
                    # It had to wait and went on: the peer reads, if slowly.
                    self.heard_at = trio.current_time()
                    rest = rest[sent:]
        if scope.cancelled_caught:
            self.abort()
            raise trio.BrokenResourceError(f"the peer read nothing for {seconds} s")

    async def send_eof(self) -> None:
        """Say that nothing more comes; what the peer still sends can be read."""
        async with self._turn:
            self._shut()

    def _shut(self) -> None:
        if not self._closed:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.abort()

    async def last_words(self, data: bytes) -> None:
        """Send something short although the protocol is done, if there is room."""
        self._ended = False
        try:
            await self._push(data, seconds=0.3)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._ended = True

    async def linger(self, seconds: float, limit: int) -> None:
        """After a refusal: end our side and read what was under way, else a reset would eat the answer."""
        self._shut()
        with trio.move_on_after(seconds):
            try:
                while limit > 0:
                    data = await self._stream.receive_some(65536)
                    if not data:
                        return
                    limit -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                return

    def abort(self) -> None:
        """Close now, without asking; whoever sends or receives is woken with `trio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            # Trio's close wakes whoever waits for the descriptor, and is the only one to close it.
            self._plain.detach()
            self._socket.close()

    async def aclose(self) -> None:
        """The protocol is done: nothing is sent or received any more. The door closes the socket after lingering."""
        self._ended = True
        await trio.lowlevel.checkpoint()

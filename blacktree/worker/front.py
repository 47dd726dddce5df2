"""A front port: takes TCP connections and leads each to one of the places behind it.

The places are replaced in one step: who connects afterwards goes to the new ones, who is connected stays where they
are. A connection that no place takes is tried on the others; while there is none at all it waits a little, so that a
restart costs time and not errors. Bytes go both ways with the receiver's speed, and each direction ends by itself.
"""

import errno
import resource
import socket
import sys
from collections.abc import Callable, Hashable, Sequence

import msgspec
import structlog
import trio

log = structlog.get_logger()

MOST_CONNECTIONS = 4096
WAIT_SECONDS = 10.0
CONNECT_SECONDS = 3.0
AGAIN_SECONDS = 0.05
CHUNK_BYTES = 64 << 10
BACKLOG = 1024
# Out of descriptors, e.g.: not a reason to end, nor to spin.
ACCEPT_AGAIN_SECONDS = 0.1
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPROTO})


class Place(msgspec.Struct, frozen=True):
    """Where a connection can be led; `key` says whose it is."""

    key: Hashable
    host: str
    port: int


def most_connections() -> int:
    """How many connections all fronts may have at once: two descriptors each, half of what this process may have."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, descriptors // 4) if descriptors != resource.RLIM_INFINITY else sys.maxsize


class Traffic:
    """How many connections each key has, over all fronts of a worker, and how many clients there may be."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most_connections() if most is None else most
        self.clients = 0
        self._told = False
        self._left = trio.Event()
        self._open: dict[Hashable, int] = {}
        self._fewer = trio.Event()

    async def room(self) -> None:
        """Wait until one more client may come. Each port that waits for one may go beyond by one.

        The first wait is logged."""
        while self.clients >= self._most:
            if not self._told:
                self._told = True
                log.warning(
                    "front ports take no more connections for now: they have half of the descriptors",
                    connections=self.clients,
                    advice="raise the limit of open files (`ulimit -n`, LimitNOFILE)",
                )
            await self._left.wait()

    def come(self) -> None:
        """A client was accepted; `leave` when it is gone."""
        self.clients += 1

    def leave(self) -> None:
        self.clients -= 1
        self._left.set()
        self._left = trio.Event()

    def count(self, key: Hashable) -> int:
        """Connections of this key now."""
        return self._open.get(key, 0)

    def begin(self, key: Hashable) -> None:
        self._open[key] = self._open.get(key, 0) + 1

    def end(self, key: Hashable) -> None:
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]
            self._fewer.set()
            self._fewer = trio.Event()

    async def none(self, key: Hashable) -> None:
        """Wait until this key has none."""
        while key in self._open:
            await self._fewer.wait()


class Front:
    """One listening port. `places` may be set at any time."""

    def __init__(self, address: str, port: int, traffic: Traffic) -> None:
        self.address = address
        self.port = port
        self._traffic = traffic
        self._places: tuple[Place, ...] = ()
        self._turn = 0
        self._changed = trio.Event()
        self._room = trio.CapacityLimiter(MOST_CONNECTIONS)

    @property
    def places(self) -> tuple[Place, ...]:
        return self._places

    def lead_to(self, places: Sequence[Place]) -> None:
        """From now on new connections go here."""
        if tuple(places) != self._places:
            self._places = tuple(places)
            self._changed.set()
            self._changed = trio.Event()

    async def open(self) -> list[trio.SocketListener]:
        """Listen. Raises `OSError`: the port is taken, the address is not this machine's, …"""
        return await trio.open_tcp_listeners(self.port, host=self.address, backlog=BACKLOG)

    async def serve(self, listeners: Sequence[trio.SocketListener], connections: trio.Nursery) -> None:
        """Accept until cancelled, then listen no more. Connections live on in `connections`."""
        try:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, connections)
        finally:
            for listener in listeners:
                listener.socket.close()

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        while True:
            holder = object()
            # Full: who comes now waits in the backlog.
            await self._room.acquire_on_behalf_of(holder)
            try:
                await self._traffic.room()
                client = await listener.accept()
            except BaseException as error:
                self._room.release_on_behalf_of(holder)
                if not isinstance(error, OSError) or error.errno not in _PASSING:
                    raise
                log.warning("front accepts nothing", port=self.port, reason=error.strerror)
                await trio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            self._traffic.come()
            connections.start_soon(self._serve, client, lambda holder=holder: self._room.release_on_behalf_of(holder))

    async def _serve(self, client: trio.SocketStream, done: Callable[[], None]) -> None:
        place: Place | None = None
        server: trio.SocketStream | None = None
        try:
            found = await self._connect()
            if found is not None:
                place, server = found
                _keep_alive(client)
                _keep_alive(server)
                await _join(client, server)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one connection's end is nobody else's business
        finally:
            client.socket.close()
            if server is not None:
                server.socket.close()
            if place is not None:
                self._traffic.end(place.key)
            self._traffic.leave()
            done()

    async def _connect(self) -> tuple[Place, trio.SocketStream] | None:
        """A connection to one of the places, counted for its key; None if there was none in time."""
        with trio.move_on_after(WAIT_SECONDS):
            while True:
                changed = self._changed
                for place in self._in_turn():
                    self._traffic.begin(place.key)
                    server = None
                    try:
                        with trio.move_on_after(CONNECT_SECONDS):
                            server = await _dial(place)
                    except OSError:
                        pass  # it has just died; the next one may live
                    finally:
                        if server is None:
                            self._traffic.end(place.key)
                    if server is not None:
                        return place, server
                with trio.move_on_after(AGAIN_SECONDS if self._places else WAIT_SECONDS):
                    await changed.wait()
        return None

    def _in_turn(self) -> list[Place]:
        """The places, each time beginning with another one of those with the fewest connections."""
        self._turn += 1
        places = self._places
        if not places:
            return []
        at = self._turn % len(places)
        return sorted(places[at:] + places[:at], key=lambda place: self._traffic.count(place.key))


async def _dial(place: Place) -> trio.SocketStream:
    # Not open_tcp_stream: places are addresses, and there are no names to be looked up for every connection.
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    raw = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await raw.connect((place.host, place.port))
        return trio.SocketStream(raw)
    except BaseException:
        raw.close()
        raise


def _keep_alive(stream: trio.SocketStream) -> None:
    """A peer that vanished is noticed within two minutes."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


async def _join(client: trio.SocketStream, server: trio.SocketStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, client, server, nursery)
        nursery.start_soon(_pump, server, client, nursery)


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, both: trio.Nursery) -> None:
    """One direction to its end, which is passed on as the end of this direction only."""
    try:
        while data := await source.receive_some(CHUNK_BYTES):
            await sink.send_all(data)
        await sink.send_eof()
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel_scope.cancel()

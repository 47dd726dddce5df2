"""A cable between a client and a server that can be cut and joined again."""

import contextlib
import socket
import threading
from types import TracebackType

from tests.parts.ports import free_port


class Between:
    """Hands bytes on, to and from the server at `url`; `url` of this is where clients come."""

    def __init__(self, url: str) -> None:
        host, _, port = url.partition("://")[2].partition(":")
        self._server = (host, int(port))
        # One that can be had again: while the cable is cut, clients knock at it.
        self._port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{self._port}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = True

    def __enter__(self) -> "Between":
        self._accept(self._listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def cut(self) -> None:
        """Every connection breaks and no new one is taken."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._whole = False
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Connections are taken again, at the same place."""
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._accept(self._listener)

    def _accept(self, listener: socket.socket) -> None:
        threading.Thread(target=self._take, args=(listener,), daemon=True).start()

    def _take(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._server)
                with self._lock:
                    if not self._whole:
                        # Taken the moment before the cut.
                        client.close()
                        server.close()
                        return
                    self._open |= {client, server}
                threading.Thread(target=self._hand_on, args=(client, server), daemon=True).start()
                threading.Thread(target=self._hand_on, args=(server, client), daemon=True).start()

    def _hand_on(self, come: socket.socket, go: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := come.recv(65536):
                go.sendall(data)
        with self._lock:
            for each in (come, go):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                if each is come:
                    each.close()
                    self._open.discard(each)

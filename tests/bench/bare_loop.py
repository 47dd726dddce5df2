"""The floor of fan-out: a loop over an epoll that sends recorded bytes to so many readers, and nothing else.

`python -m tests.bench.bare_loop FILE READERS`; says its address, then sends once all readers have asked.
"""

import json
import select
import socket
import sys
from pathlib import Path

PIECE = 64 * 1024
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def main(path: str, readers: int) -> None:
    """Ends when everything has been sent and the readers have hung up."""
    data = memoryview(Path(path).read_bytes())
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        print(json.dumps({"url": f"http://127.0.0.1:{server.getsockname()[1]}"}), flush=True)
        connections = [_greeted(server) for _ in range(readers)]
    for each in connections:
        _until(each, b"}")  # the request to watch: masked, so only its coming counts
        each.setblocking(False)
    left = {each.fileno(): (each, 0) for each in connections}
    poll = select.epoll()
    for number in left:
        poll.register(number, select.EPOLLOUT)
    while left:
        for number, _ in poll.poll():
            each, offset = left[number]
            offset += each.send(data[offset : offset + PIECE])
            left[number] = (each, offset)
            if offset == len(data):
                poll.unregister(number)
                del left[number]
    for each in connections:
        each.setblocking(True)
        while each.recv(4096):
            pass


def _greeted(server: socket.socket) -> socket.socket:
    connection, _ = server.accept()
    _until(connection, b"\r\n\r\n")
    connection.sendall(HEAD)
    return connection


def _until(connection: socket.socket, mark: bytes) -> None:
    seen = b""
    while mark not in seen:
        piece = connection.recv(4096)
        if not piece:
            raise SystemExit("a reader hung up")
        seen += piece
        if mark == b"}":
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

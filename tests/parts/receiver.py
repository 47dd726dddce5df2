"""Somebody who is told: an HTTP server on loopback that checks signatures as Standard Webhooks' own libraries do."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = b"a key of some bytes, 32 of them.."
SECRET = b"whsec_" + base64.b64encode(KEY)


@dataclass
class Taken:
    """One request, whatever it was answered."""

    path: str
    id: str
    body: bytes
    status: int
    genuine: bool
    headers: dict[str, str] = field(repr=False)

    @property
    def value(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """`script`: answers by path, given before 204 (`location` with those of redirects); `held`: paths that hang."""

    def __init__(self) -> None:
        self.all: list[Taken] = []
        self.script: dict[str, list[int]] = {}
        self.held: dict[str, threading.Event] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # the farm was ended in the middle of it
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.answer(self.path, headers, body)
                if (held := receiver.held.get(self.path)) is not None:
                    held.wait(60)
                text = b"" if status == 204 else b"as the test\x1b[31m wants"
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-length", str(len(text)))
                    if 300 <= status < 400:
                        self.send_header("location", "/elsewhere")
                    self.end_headers()
                    self.wfile.write(text)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A farm that was ended left its connection."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> int:
        script = self.script.get(path, [])
        status = script.pop(0) if script else 204
        id = headers.get("webhook-id", "")
        self.all.append(Taken(path, id, body, status, genuine(headers, body), headers))
        return status

    def taken(self, path: str = "/hook") -> list[Taken]:
        """What was answered 2xx there, in order."""
        return [each for each in list(self.all) if each.path == path and each.status == 204]

    def types(self, path: str = "/hook") -> list[str]:
        return [each.value["type"] for each in self.taken(path)]


def genuine(headers: dict[str, str], body: bytes) -> bool:
    """By the specification, with nothing of the farm's own code."""
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
        return False
    content = headers["webhook-id"].encode() + b"." + stamp.encode() + b"." + body
    wanted = "v1," + base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    return wanted in headers.get("webhook-signature", "").split(" ")


@contextmanager
def open_receiver() -> Iterator[Receiver]:
    """A receiver on loopback."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        for held in receiver.held.values():
            held.set()
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join(5)

"""A small registry of our own on loopback that misbehaves where a test says so. Docker's engine can push to it.

It keeps everything in memory, and does what real ones differ in: it deletes tags, keeps tags immutable, asks for
tokens that expire.
"""

import base64
import contextlib
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Rule:
    """What happens to requests whose `METHOD path` fits; the first that fits and is not used up counts.

    `how`: `answer` (status, headers, body), `hang` (no answer until the end), `cut` (half an answer, then the end of
    the connection), `garbage` (no HTTP), `refuse` (the connection is closed), `hold` (goes on once `released` is set),
    `pretend` (answers then, and does nothing).
    """

    pattern: str
    how: str = "answer"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1_000_000
    released: threading.Event = field(default_factory=threading.Event)

    def fits(self, line: str) -> bool:
        return self.times > 0 and re.search(self.pattern, line) is not None


def error_body(code: str, message: str) -> bytes:
    """As registries say what is wrong. Without a detail Docker 20.10 tries it again for minutes."""
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {"odd": True}}]}).encode()


class OddRegistry:
    """One registry. `login` asks for `user:password`, by tokens where `tokens` is on; `uses` is how often a token is
    taken before it has expired. `requests` are `METHOD path`, in their order."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.login = ""
        self.tokens = False
        self.uses = 1_000_000
        self.immutable = False
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.requests: list[str] = []
        self.authorizations: list[str] = []
        self.asked_tokens = 0
        self.puts: list[tuple[str, str]] = []
        self.arrived = threading.Event()
        self._lock = threading.Lock()
        self._uploads: dict[str, bytes] = {}
        self._tokens: dict[str, int] = {}
        self._closing = threading.Event()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def serve(self) -> None:
                registry.serve(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None: ...  # clients go away by design

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def rule(self, pattern: str, how: str = "answer", **more: object) -> Rule:
        """Set one; the newest goes first."""
        made = Rule(pattern, how, **more)
        self.rules.insert(0, made)
        return made

    def count(self, pattern: str) -> int:
        """How many requests fitted."""
        return sum(re.search(pattern, line) is not None for line in list(self.requests))

    # Serving

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        line = f"{request.command} {request.path}"
        self.arrived.set()
        with self._lock:
            self.requests.append(line)
            self.authorizations.append(request.headers.get("Authorization", ""))
            rule = next((each for each in self.rules if each.fits(line)), None)
            if rule is not None:
                rule.times -= 1
        if rule is not None and rule.how == "hold":
            self._hold(rule)
        elif rule is not None:
            self._misbehave(request, rule)
            return
        body = self._body(request)
        parts = urlsplit(request.path)
        if parts.path == "/token":
            self._give_token(request)
        elif self._let_in(request):
            with self._lock:
                status, headers, answer = self._answer(
                    request.command, parts.path, parse_qs(parts.query), request, body
                )
            self._send(request, status, headers, answer)

    def _hold(self, rule: Rule) -> None:
        while not rule.released.wait(0.02) and not self._closing.is_set():
            pass

    def _misbehave(self, request: BaseHTTPRequestHandler, rule: Rule) -> None:
        request.close_connection = True
        match rule.how:
            case "hang":
                self._closing.wait(120)
            case "garbage":
                request.wfile.write(b"220 mail.example ESMTP\r\n\x00\xff nothing that you know\r\n\r\n")
            case "cut":
                request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
            case "pretend":
                self._body(request)
                self._hold(rule)
                self._send(request, rule.status, rule.headers, rule.body)
            case "answer":
                self._body(request)
                self._send(request, rule.status, rule.headers, rule.body)

    def _body(self, request: BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Transfer-Encoding") != "chunked":
            return request.rfile.read(int(request.headers.get("Content-Length") or 0))
        parts: list[bytes] = []
        while size := int(request.rfile.readline().strip() or b"0", 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        return b"".join(parts)

    def _send(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if body.startswith(b"{") and "Content-Type" not in headers:
            request.send_header("Content-Type", "application/json")
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    # Who may

    def _give_token(self, request: BaseHTTPRequestHandler) -> None:
        if self.login and request.headers.get("Authorization") != self._basic():
            self._send(request, 401, {}, error_body("UNAUTHORIZED", "wrong password"))
            return
        token = secrets.token_hex(8)
        with self._lock:
            self.asked_tokens += 1
            self._tokens[token] = self.uses
        self._send(request, 200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode())

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(self.login.encode()).decode()

    def _let_in(self, request: BaseHTTPRequestHandler) -> bool:
        given = request.headers.get("Authorization", "")
        if self.tokens:
            with self._lock:
                left = self._tokens.get(given.removeprefix("Bearer "), 0)
                if left > 0:
                    self._tokens[given.removeprefix("Bearer ")] = left - 1
                    return True
            challenge = f'Bearer realm="http://{self.host}/token",service="odd"'
        elif not self.login or given == self._basic():
            return True
        else:
            challenge = 'Basic realm="odd"'
        headers = {"WWW-Authenticate": challenge, "Docker-Distribution-Api-Version": "registry/2.0"}
        self._send(request, 401, headers, error_body("UNAUTHORIZED", "authentication required"))
        return False

    # What it keeps

    def _answer(
        self, method: str, path: str, query: dict[str, list[str]], request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if path == "/v2/":
            return 200, {"Docker-Distribution-Api-Version": "registry/2.0"}, b"{}"
        found = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests)/([^/]*)", path)
        if found is None:
            return 404, {}, error_body("UNSUPPORTED", path)
        repository, kind, name = found.groups()
        if kind == "blobs/uploads":
            return self._upload(method, repository, name, query, body)
        if kind == "blobs":
            blob = self.blobs.get(name)
            if blob is None:
                return 404, {}, error_body("BLOB_UNKNOWN", name)
            return 200, {"Docker-Content-Digest": name, "Content-Length": str(len(blob))}, blob
        return self._manifest(method, repository, name, request.headers.get("Content-Type", ""), body)

    def _upload(
        self, method: str, repository: str, name: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        name = name or secrets.token_hex(8)
        self._uploads[name] = self._uploads.get(name, b"") + body
        headers = {
            "Location": f"/v2/{repository}/blobs/uploads/{name}",
            "Docker-Upload-UUID": name,
            "Range": f"0-{max(0, len(self._uploads[name]) - 1)}",
        }
        if method != "PUT":
            return 202, headers, b""
        blob = self._uploads.pop(name)
        digest = query.get("digest", [""])[0]
        if digest != f"sha256:{hashlib.sha256(blob).hexdigest()}":
            return 400, {}, error_body("DIGEST_INVALID", digest)
        self.blobs[digest] = blob
        return 201, {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}, b""

    def _manifest(
        self, method: str, repository: str, name: str, media: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        tag = f"{repository}:{name}"
        digest = name if name.startswith("sha256:") else self.tags.get(tag, "")
        match method:
            case "PUT":
                digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                if self.immutable and self.tags.get(tag, digest) != digest:
                    return 400, {}, error_body("TAG_INVALID", f"tag {name} already exists and is immutable")
                self.manifests[digest] = (media, body)
                self.puts.append((name, digest))
                if not name.startswith("sha256:"):
                    self.tags[tag] = digest
                return 201, {"Docker-Content-Digest": digest, "Location": f"/v2/{repository}/manifests/{digest}"}, b""
            case "DELETE":
                if name.startswith("sha256:"):
                    raise AssertionError("a digest was deleted")
                if self.tags.pop(tag, None) is None:
                    return 404, {}, error_body("MANIFEST_UNKNOWN", name)
                return 202, {}, b""
        if digest not in self.manifests:
            return 404, {}, error_body("MANIFEST_UNKNOWN", name)
        media, body = self.manifests[digest]
        return 200, {"Content-Type": media, "Docker-Content-Digest": digest, "Content-Length": str(len(body))}, body


@contextmanager
def odd_registry() -> Iterator[OddRegistry]:
    """One that runs, and is ended on leaving."""
    made = OddRegistry()
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(5)

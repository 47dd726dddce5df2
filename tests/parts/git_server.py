"""Real git hosts on loopback: smart HTTP by `git http-backend` (Basic auth, hanging, garbage, slow), `git daemon`."""

import base64
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.parts.ports import free_port

ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
    "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
}


def git(directory: Path, *words: str, stdin: bytes | None = None) -> str:
    """Run git as a user would, in `directory`; what it printed."""
    argv = ["git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(argv, cwd=directory, env=ENVIRONMENT, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "replace").strip()


def make_repository(path: Path, files: dict[str, str | bytes] | None = None) -> Path:
    """A repository with a work tree, branch main, and one commit."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    commit_files(path, files or {"Dockerfile": "FROM scratch\n"})
    return path


def commit_files(path: Path, files: dict[str, str | bytes], message: str = "a change") -> str:
    """Write files and commit everything; the commit's id."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(path, "add", "-A")
    git(path, "commit", "-q", "--allow-empty", "-m", message)
    return git(path, "rev-parse", "HEAD")


class GitServer:
    """What is below `root` by smart HTTP. The attributes may be changed while it runs.

    `hang` answers nothing, `garbage` answers nonsense, `delay` sleeps between chunks of an answer (seconds),
    `status` answers with this code, `login` asks for `user:password`. `requests` lists the paths asked for.
    """

    def __init__(self, root: Path, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.root = root
        self.hang = False
        self.garbage = False
        self.delay = 0.0
        self.status = 0
        self.redirect = ""
        self.login = ""
        self.requests: list[str] = []
        self.arrived = threading.Event()
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                server.serve(self)

            def do_POST(self) -> None:
                server.serve(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def shutdown_request(self, request: Any) -> None:
                if isinstance(request, ssl.SSLSocket):
                    # TLS wants its own good-bye.
                    with suppress(OSError):
                        request.unwrap()
                super().shutdown_request(request)

            def handle_error(self, request: object, client_address: object) -> None: ...  # clients go away by design

        self._server = Server((host, 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://{host}:{self.port}"

    def run(self) -> None:
        """Serve until `stop`; in a thread."""
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """End it, hanging answers too."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.requests.append(request.path)
        self.arrived.set()
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.headers.get("Transfer-Encoding") == "chunked":
            while size := int(request.rfile.readline(), 16):
                body += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
        if self.hang:
            self.closing.wait()
            return
        if self.redirect:
            request.send_response(301)
            request.send_header("Location", self.redirect + request.path)
            request.end_headers()
            return
        if self.garbage or self.status:
            request.send_response(self.status or 200)
            request.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            request.end_headers()
            request.wfile.write(b"<html>this is no git\0\xff" * 10)
            return
        expected = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and request.headers.get("Authorization") != expected:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        self._backend(request, body)

    def _backend(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        path, _, query = request.path.partition("?")
        environment = ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
        status = next((value for name, value in headers if name == "Status"), "200")
        request.send_response(int(status.split()[0]))
        for name, value in headers:
            if name != "Status":
                request.send_header(name, value)
        request.end_headers()
        step = 256 if self.delay else len(content) or 1
        for at in range(0, len(content), step):
            request.wfile.write(content[at : at + step])
            request.wfile.flush()
            if self.delay and self.closing.wait(self.delay):
                return


@contextmanager
def git_server(root: Path, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[GitServer]:
    """A running `GitServer`; with `tls` it is https."""
    server = GitServer(root, tls, host)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(5)


@contextmanager
def git_daemon(root: Path) -> Iterator[str]:
    """`git daemon` over `root`; yields `git://127.0.0.1:PORT`."""
    port = free_port()
    argv = ["git", "-c", "safe.directory=*", "daemon", "--listen=127.0.0.1", f"--port={port}", "--export-all"]
    argv += ["--reuseaddr", f"--base-path={root}", str(root)]
    process = subprocess.Popen(argv, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 40
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 20).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "git daemon did not start"
                time.sleep(0.02)
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(40)

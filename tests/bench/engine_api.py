"""The engine's API with nothing around it: a tar in, the answer read and thrown away, over its unix socket."""

import http.client
import io
import json
import socket
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode

CHUNK = 1 << 16


class EngineConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def context(files: Mapping[str, bytes]) -> bytes:
    """A build context of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@contextmanager
def begun(path: str, body: bytes, *, classic: bool = False, no_cache: bool = False, **more: str) -> Iterator[Any]:
    """A build whose answer is still to be read; leaving closes the connection, which ends the build."""
    query = {"rm": "1", "forcerm": "1", **({} if classic else {"version": "2"}), **more}
    if no_cache:
        query["nocache"] = "1"
    with closing(EngineConnection(path)) as connection:
        headers = {"Content-Type": "application/x-tar"}
        connection.request("POST", f"/v1.41/build?{urlencode(query)}", body, headers)
        with closing(connection.getresponse()) as answer:
            if answer.status != 200:
                raise RuntimeError(f"the engine answered {answer.status}: {answer.read(500)!r}")
            yield answer


def build(path: str, body: bytes, **options: Any) -> int:
    """Build to the end; answers how many bytes it said. Raises RuntimeError if the build failed."""
    size, tail = 0, b""
    with begun(path, body, **options) as answer:
        while chunk := answer.read1(CHUNK):
            size += len(chunk)
            tail = (tail + chunk)[-2000:]
    if b'"errorDetail"' in tail:
        raise RuntimeError(f"the engine's own build failed: {tail[-500:]!r}")
    return size


def push(path: str, image: str, tag: str) -> None:
    """Push to the end, the answer read and thrown away. Raises RuntimeError if it failed."""
    tail = b""
    with closing(EngineConnection(path)) as connection:
        # The header is wanted also where there is no login: `{}`.
        connection.request("POST", f"/v1.41/images/{image}/push?tag={tag}", headers={"X-Registry-Auth": "e30="})
        with closing(connection.getresponse()) as answer:
            while chunk := answer.read1(CHUNK):
                tail = (tail + chunk)[-2000:]
    if b'"errorDetail"' in tail or b'"aux"' not in tail:
        raise RuntimeError(f"the engine's own push failed: {tail[-500:]!r}")


def remove_images(path: str, label: str) -> None:
    """Those that bear this label; they are the bench's own."""
    for image in _call(path, "GET", f"/images/json?{urlencode({'filters': json.dumps({'label': [label]})})}"):
        _call(path, "DELETE", f"/images/{image['Id']}?force=1")


def _call(path: str, method: str, target: str) -> Any:
    with closing(EngineConnection(path)) as connection:
        connection.request(method, f"/v1.41{target}")
        return json.loads(connection.getresponse().read() or b"null")

"""AWS's API as moto plays it, in a process of its own on loopback."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.parts.ports import free_port

ACCOUNT = "123456789012"
PASSWORD = f"{ACCOUNT}-auth-token"
"""What moto's ECR tokens say: user `AWS` with this password, expired since 2015."""


@contextlib.contextmanager
def moto_server(*, authenticated: bool = False) -> Iterator[str]:
    """Its address. `authenticated`: calls need credentials that were made there (else any will do)."""
    with tempfile.TemporaryDirectory(prefix="bt-moto-") as directory:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        program = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
        environ = os.environ | ({"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if authenticated else {})
        with Path(directory, "log").open("wb") as log:
            process = subprocess.Popen(program, stdout=log, stderr=log, env=environ)
        try:
            limit = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/moto-api/", timeout=20):
                    break
                assert process.poll() is None, Path(directory, "log").read_text()
                assert time.monotonic() < limit, Path(directory, "log").read_text()
                time.sleep(0.05)
            yield url
        finally:
            process.kill()
            process.wait(40)


def reset(url: str) -> None:
    """Forget everything."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=40):
        pass

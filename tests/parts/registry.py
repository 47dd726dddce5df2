"""A real image registry on loopback (docker-registry), with or without a password."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.parts.ports import free_port


@dataclass(frozen=True)
class Registry:
    """`host` is what stands before the slash of an image's name."""

    host: str


def can_start_registries() -> bool:
    """Whether `registry` can work here."""
    return shutil.which("docker-registry") is not None


@contextlib.contextmanager
def registry(users: dict[str, str] | None = None) -> Iterator[Registry]:
    """A registry of the test's own; with `users` (name to password) it lets nobody else in."""
    with tempfile.TemporaryDirectory(prefix="bt-registry-") as directory:
        port = free_port()
        config = Path(directory, "config.yml")
        text = (
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: 127.0.0.1:{port}}}\n"
        )
        if users:
            import bcrypt

            lines = [
                f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(5)).decode()}" for name, word in users.items()
            ]
            Path(directory, "htpasswd").write_text("\n".join(lines) + "\n")
            text += f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n"
        config.write_text(text)
        with Path(directory, "log").open("wb") as log:
            process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
        try:
            limit = time.monotonic() + 40
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 20):
                    break
                assert process.poll() is None, Path(directory, "log").read_text()
                assert time.monotonic() < limit, Path(directory, "log").read_text()
                time.sleep(0.02)
            yield Registry(f"127.0.0.1:{port}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(40)

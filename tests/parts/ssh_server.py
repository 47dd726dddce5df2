"""A real sshd on loopback: keys, port and configuration of its own, for the user that runs the tests."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts.ports import free_port

START_SECONDS = 40.0


def require_sshd() -> str:
    """The program. Skips the test where it is missing; on CI that is a failure."""
    found = shutil.which("sshd", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI"):
        pytest.fail("sshd is not installed")
    if found is None:
        pytest.skip("sshd is not installed")
    return found


def make_key(path: Path) -> str:
    """A key pair; the public half as it stands in files."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


class SshServer:
    """Takes `key` and nothing else. `known` is the line that a known-hosts file needs of it."""

    def __init__(self, program: str, directory: Path) -> None:
        self.user = getpass.getuser()
        self.key = directory / "user_key"
        (directory / "authorized_keys").write_text(make_key(self.key) + "\n")
        host_key = make_key(directory / "host_key")
        self.port = free_port()
        self.known = f"[127.0.0.1]:{self.port} {host_key}\n"
        self.log = directory / "log"
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": directory / "host_key",
            "AuthorizedKeysFile": directory / "authorized_keys",
            "PidFile": "none",
            # The directory of a test belongs to whoever runs it, and lies where anyone may write.
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
        }
        (directory / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants an empty directory of root's
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(directory / "config")], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def url(self, path: Path) -> str:
        """A repository on this machine, as this server gives it."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 20) as stream:
                    assert stream.recv(4) == b"SSH-"
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)


@contextmanager
def ssh_server(directory: Path) -> Iterator[SshServer]:
    """A running `SshServer`."""
    program = require_sshd()
    directory.mkdir()
    server = SshServer(program, directory)
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(40)

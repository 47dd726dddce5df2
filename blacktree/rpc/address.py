"""Where a daemon listens: `host:port`, `[v6]:port` or `unix:/path`."""

import errno
import os
import re
import socket
import stat
from typing import NamedTuple

from blacktree.errors import BadRequest

# sockaddr_un has 108 bytes, one for the closing zero: unix(7).
MAX_PATH_BYTES = 107
_HOST_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[^\]]+)?)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>\d{1,5})")


class Address(NamedTuple):
    """`path` is empty for TCP; `host` and `port` are for TCP only."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Raises `BadRequest` (code `invalid_config`) for anything else."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise _invalid(f"`{text}` is no address", "write unix:/absolute/path")
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise _invalid(
                f"the socket path {path} has {len(os.fsencode(path))} bytes, the system allows {MAX_PATH_BYTES}",
                "use a shorter path",
            )
        return Address("", 0, path)
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise _invalid(f"`{text}` is no address", "write host:port, [IPv6]:port or unix:/path")
    return Address(match["six"] or match["host"], int(match["port"]), "")


def bind(address: Address) -> list[socket.socket]:
    """Listening sockets, non-blocking; a socket file that nobody serves any more is replaced, mode 0600.

    Raises `BadRequest` (code `cannot_listen`) with advice.
    """
    try:
        return [_bind_unix(address.path)] if address.path else _bind_tcp(address)
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one, such as `a..b`
        advice = {
            "EADDRINUSE": "another program listens there; stop it or choose another port",
            "EACCES": "choose a port from 1024 on, or a directory this user may write",
            "EADDRNOTAVAIL": "this machine has no such address",
            "ENOENT": "make the directory first",
        }.get(errno.errorcode.get(getattr(error, "errno", None) or 0, ""), "check the address")
        raise BadRequest(
            f"cannot listen on {address}: {getattr(error, 'strerror', None) or error}",
            code="cannot_listen",
            advice=advice,
        ) from None


def _bind_tcp(address: Address) -> list[socket.socket]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # An IPv6 address means that address, whatever the system's default is.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return [sock]


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # The file must never be there with other rights, not even for a moment: bind, then rights, then listen.
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # not ours to remove; bind says that it is in use
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return


def actual(address: Address, sockets: list[socket.socket]) -> str:
    """The address as bound: the real port where 0 was asked for."""
    if address.path:
        return str(address)
    return str(Address(address.host, sockets[0].getsockname()[1], ""))


def _invalid(message: str, advice: str) -> BadRequest:
    return BadRequest(message, code="invalid_config", advice=advice)


def identity(address: Address) -> tuple[int, int]:
    """What tells our socket file from one that another process put there later; zeros for TCP."""
    if not address.path:
        return 0, 0
    found = os.lstat(address.path)
    return found.st_dev, found.st_ino


def release(address: Address, mine: tuple[int, int]) -> None:
    """Remove the socket file if it is still ours."""
    try:
        if address.path and identity(address) == mine:
            os.unlink(address.path)
    except OSError:
        pass  # gone already, or its directory is

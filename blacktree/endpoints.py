"""Addresses in the settings: where to listen, and the broker's; checked as soon as they are read. Pure."""

import re
from urllib.parse import urlsplit

from blacktree.errors import BadRequest

_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\s\[\]]*)):(?P<port>\d{1,5})\Z")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[::1]:PORT` or `:PORT` (every interface: an empty host). Raises `BadRequest`."""
    found = _ADDRESS.match(address)
    if found is None or int(found["port"]) > 65535:
        raise BadRequest(
            f"{address[:200]!r} is not HOST:PORT",
            path="orchestrator.listen",
            code="invalid_config",
            advice="write it like 127.0.0.1:8080; port 0 takes any that is free",
        )
    return found["six"] or found["name"] or "", int(found["port"])


def check_broker_url(url: str) -> None:
    """Raises `BadRequest`, without the password in it."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise BadRequest(
            "the broker's URL is not amqp://user:password@host[:port]/[vhost] (or amqps://)", path="broker_url"
        )

"""Who is asking, when a proxy asks for them: forwarded headers are believed from trusted addresses alone."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from blacktree.errors import BadRequest

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PAIR = re.compile(r"(?P<name>[A-Za-z]+)=(?:\"(?P<quoted>[^\"]*)\"|(?P<plain>[^;,\s]*))")


class Proxies:
    """`trusted`: addresses or networks; the headers by name. `Forwarded` (RFC 7239) is read in its own form."""

    def __init__(self, trusted: Sequence[str], for_header: str, proto_header: str) -> None:
        """Raises `BadRequest` for what is no address."""
        self._trusted = [_network(text) for text in trusted]
        self._for = for_header.lower()
        self._proto = proto_header.lower()

    def seen(self, headers: Mapping[str, str], peer: str, secure: bool) -> tuple[str, bool]:
        """The client's address, and whether it came by TLS."""
        if not self._trusted or not self._is_trusted(peer):
            return peer, secure
        if self._proto == "forwarded":
            protos = _forwarded(headers.get("forwarded", ""), "proto")
        else:
            protos = [part.strip() for part in headers.get(self._proto, "").split(",") if part.strip()]
        if protos:
            secure = protos[-1].lower() == "https"
        if self._for == "forwarded":
            hops = _forwarded(headers.get("forwarded", ""), "for")
        else:
            hops = [part.strip() for part in headers.get(self._for, "").split(",") if part.strip()]
        address = peer
        # From the nearest on: what a proxy that is not trusted says of those behind it may be anything.
        for hop in reversed(hops):
            if (found := _bare(hop)) is None:
                break
            address = found
            if not self._is_trusted(address):
                break
        return address, secure

    def _is_trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._trusted)


@lru_cache(4096)
def plain_address(text: str) -> str:
    """An address as it is shown and counted: IPv4 within IPv6 is IPv4."""
    address = _address(text)
    return text if address is None else str(address)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise BadRequest(
            f"door.trusted_proxies: {text[:80]!r} is no address",
            path="door.trusted_proxies",
            code="invalid_config",
            advice="write addresses or networks, such as 127.0.0.1 or 10.0.0.0/8",
        ) from None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _bare(hop: str) -> str | None:
    """`192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80` or `2001:db8::1` as an address alone."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = _address(text)
    return None if address is None else str(address)


def _forwarded(value: str, name: str) -> list[str]:
    return [
        found["quoted"] if found["quoted"] is not None else found["plain"]
        for found in _PAIR.finditer(value)
        if found["name"].lower() == name
    ]

"""A command's connection to the farm's door."""

import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from blacktree.cli.server import Endpoint, endpoint
from blacktree.cli.state import CERTIFICATE_FILE
from blacktree.cli.wording import printed
from blacktree.client import Client

T = TypeVar("T")


def say(text: str) -> None:
    """A word about the connection, never on stdout."""
    print(f"blacktree: {printed(text, sys.stderr)}", file=sys.stderr, flush=True)


def outage_told(tell: Callable[[str], None]) -> Callable[[str], None]:
    """What a client calls when its server goes away in the middle."""
    return lambda reason: tell(f"{reason}; trying again")


def open_farm(where: Endpoint, tell: Callable[[str], None] = say) -> Client:
    """The client of this farm; to be entered."""
    return Client(where.url, where.token, on_outage=outage_told(tell), ssl_context=trust_in(where))


def trust_in(where: Endpoint) -> ssl.SSLContext | None:
    """For a farm of this machine exactly the certificate in its state directory, under any name; else None: what
    OpenSSL trusts (`SSL_CERT_FILE`, `SSL_CERT_DIR`)."""
    if where.state is None or not where.url.startswith("https:"):
        return None
    path = where.state / CERTIFICATE_FILE
    if not path.exists():
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    context.load_verify_locations(path)
    return context


def ask(question: Callable[[Client], Awaitable[T]]) -> T:
    """One question to the farm that the current command means. Raises the tree of `blacktree.errors`."""
    return trio.run(_ask, endpoint(), question)


async def _ask(where: Endpoint, question: Callable[[Client], Awaitable[T]]) -> T:
    async with open_farm(where) as farm:
        return await question(farm)

"""One health check of one replica: an answer in words, empty if it is well."""

import h11
import trio

from blacktree.errors import BlacktreeError, NotFound
from blacktree.providers.containers import Container, Containers
from blacktree.runspec import Health, HttpCheck

# The engine's proxy takes a connection before it knows whether anybody listens, and closes it when nobody does.
LISTENING_SECONDS = 0.1
MAX_HEAD_BYTES = 64 << 10


class Unasked(Exception):
    """The check could not be made, which says nothing of the replica: the engine is away, or cannot."""


def check_ports(health: Health) -> set[int]:
    """The ports that a check needs published."""
    return {check.port for check in (health.http, health.tcp) if check is not None}


async def probe(health: Health, container: Container, containers: Containers) -> str:
    """Why it is not healthy now; empty if it is. Takes at most `timeout_seconds`. Raises `Unasked`."""
    with trio.move_on_after(health.timeout_seconds):
        if health.command is not None:
            return await _command(health.command, health.timeout_seconds, container, containers)
        for check in (health.http, health.tcp):
            if check is not None:
                place = container.ports.get(check.port)
                if place is None:
                    return f"port {check.port} is not published"
                return await (_http(check, place) if isinstance(check, HttpCheck) else _tcp(check.port, place))
        return ""
    return f"no answer to its check within {health.timeout_seconds:g} s"


async def _command(argv: list[str], seconds: float, container: Container, containers: Containers) -> str:
    try:
        ran = await containers.run(container.id, argv, seconds)
    except NotFound as error:
        return str(error)
    except BlacktreeError as error:
        # The engine is away, or says no for reasons of its own.
        raise Unasked(str(error)) from None
    if ran.exit_code is None:
        return f"its check did not end within {seconds:g} s"
    if ran.exit_code == 0:
        return ""
    said = ran.output.decode("utf-8", "replace").strip().splitlines()
    return f"its check ended with code {ran.exit_code}" + (f": {said[-1][:200]}" if said else "")


async def _tcp(port: int, place: tuple[str, int]) -> str:
    try:
        async with await trio.open_tcp_stream(*place) as stream:
            with trio.move_on_after(LISTENING_SECONDS):
                if not await stream.receive_some(1):
                    return f"nobody listens on port {port}: the connection was closed at once"
            return ""
    except (OSError, trio.BrokenResourceError) as error:
        return f"nobody listens on port {port}: {_why(error)}"


async def _http(check: HttpCheck, place: tuple[str, int]) -> str:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    fields = [("Host", f"localhost:{check.port}"), ("User-Agent", "blacktree-health"), ("Connection", "close")]
    try:
        stream = await trio.open_tcp_stream(*place)
    except OSError as error:
        return f"nobody listens on port {check.port}: {_why(error)}"
    try:
        request = connection.send(h11.Request(method="GET", target=check.path, headers=fields)) or b""
        await stream.send_all(request + (connection.send(h11.EndOfMessage()) or b""))
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                ok = 200 <= event.status_code < 400
                return "" if ok else f"GET {check.path} on port {check.port} answers {event.status_code}"
            elif not isinstance(event, h11.InformationalResponse):
                return f"port {check.port} closed the connection without an answer"
    except (OSError, trio.BrokenResourceError) as error:
        return f"port {check.port} broke the connection off: {_why(error)}"
    except h11.RemoteProtocolError as error:
        return f"port {check.port} does not answer in HTTP: {error}"
    except h11.LocalProtocolError as error:
        return f"the path of its check is none that HTTP can ask for: {error}"
    finally:
        # Forcefully: a graceful end would wait for a server that may hang.
        await trio.aclose_forcefully(stream)


def _why(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__

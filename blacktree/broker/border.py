"""The border to RabbitMQ: whatever aiormq, TLS or the socket raise leaves as `BrokerLost`, in one table."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ConnectionNotImplemented,
    InvalidFrameError,
    MethodNotImplemented,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
)
from yarl import URL

from blacktree.broker.topology import EXCHANGE, QueueSpec
from blacktree.errors import BrokerLost

# StopAsyncIteration: how aiormq says that a connection was closed before a word came over it.
FOREIGN = (AMQPError, ChannelInvalidStateError, OSError, EOFError, StopAsyncIteration)


@contextmanager
def border(url: URL | None = None) -> Iterator[None]:
    """What aiormq, TLS and the socket raise leaves as `BrokerLost`. A call cut by a closing channel ends in a bare
    Exception or in CancelledError: the latter is ours only if someone cancelled this very task."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise lost(error, url) from error
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, FOREIGN):
            raise
        raise lost(error, url) from error


async def within_border(function: Callable[[], Awaitable[None]]) -> None:
    """Await this function at the border."""
    with border():
        await function()


def refuses_channel_limit(error: BaseException) -> bool:
    """Whether this, as the answer to a channel-wide limit, says that RabbitMQ has none; not that it is just gone."""
    if isinstance(error, ChannelClosed | ConnectionNotImplemented | MethodNotImplemented):
        return True
    return isinstance(error, AMQPError) and any(word in str(error) for word in ("global_qos", "deprecated"))


def outcome(future: "asyncio.Future[object]") -> BrokerLost:
    """Why a connection or channel is over, from its `closing`."""
    return lost(asyncio.CancelledError() if future.cancelled() else future.exception())


def not_declared(spec: QueueSpec, error: Exception) -> BrokerLost:
    """RabbitMQ refused the declaration of this queue."""
    if isinstance(error, ChannelAccessRefused):
        return BrokerLost(
            f"RabbitMQ does not let this user declare {spec.name} ({error})",
            code="queue_refused",
            advice="give it configure, write and read permissions",
        )
    arguments = ", ".join(f"{name}={value}" for name, value in spec.arguments.items()) or "none"
    return BrokerLost(
        f"{spec.name} or the exchange {EXCHANGE} was declared before with other arguments ({error})",
        code="queue_differs",
        advice=f"empty and delete it in RabbitMQ, it is then made again (durable, arguments: {arguments})",
    )


def lost(error: BaseException | type[BaseException] | None, url: URL | None = None) -> BrokerLost:
    """The table: what was raised, as a sentence with advice and without the password."""
    if isinstance(error, BrokerLost):
        return error
    where = f"{url.host}:{url.port or (5671 if url.scheme == 'amqps' else 5672)}" if url is not None else "RabbitMQ"
    cause = error.__cause__ if isinstance(error, AMQPError) and isinstance(error.__cause__, OSError) else error
    user = url.user if url is not None else "this user"
    match cause:
        case ProbableAuthenticationError() | AuthenticationError():
            text, advice = f"{where} refused the user {user}", "correct user and password in broker_url"
        case InvalidFrameError() if "OpenOk" in str(cause) and "Connection.Close" in str(cause):
            # aiormq keeps the reply's text to itself.
            text = f"{where} refused the virtual host {_virtual_host(url)!r} or this user's access to it"
            advice = "make it and give the user its permissions, or correct the path of broker_url"
        case ssl.SSLCertVerificationError():
            text = f"{where}'s certificate is not trusted: {cause.verify_message}"
            advice = "correct the host name, or name its authority: ?cafile=/path/ca.pem in broker_url"
        case ssl.SSLError():
            text, advice = f"no TLS with {where}: {cause.reason}", "is this port one for amqps?"
        case socket.gaierror():
            text, advice = f"{where}: {cause.strerror}", "correct the host name in broker_url"
        case ConnectionRefusedError():
            text, advice = f"nothing listens at {where}", "start RabbitMQ or correct broker_url"
        case TimeoutError():
            text, advice = f"{where} did not answer in time", "is it overloaded or behind a firewall?"
        case ProtocolSyntaxError():
            text, advice = f"{where} does not speak AMQP 0-9-1", "correct the port in broker_url"
        case ChannelNotFoundEntity():
            text, advice = f"{where}: {cause}", ""
        case None | asyncio.CancelledError() | StopAsyncIteration() | type() | Exception(args=()):
            text, advice = "the connection to RabbitMQ was closed", ""
        case _:
            text, advice = f"the connection to {where} was lost: {str(cause) or type(cause).__name__}", ""
    if url is not None and url.password:
        text = text.replace(url.password, "***")
    return BrokerLost(text, advice=advice)


def _virtual_host(url: URL | None) -> str:
    return (url.path.removeprefix("/") if url is not None else "") or "/"

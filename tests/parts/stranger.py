"""A plain AMQP client that knows nothing of Blacktree: publishes bytes, takes bytes. In a thread of its own."""

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aio_pika
import trio
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.frame import FrameTypes, marshal
from pamqp.header import ContentHeader

EXCHANGE = "blacktree.direct"
KEY = "worker.execute"


class Got(NamedTuple):
    """A message that was taken."""

    body: bytes
    message_id: str
    headers: dict[str, Any]

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        return str(self.headers["x-blacktree-reason"])


class Stranger:
    """Whoever else talks to this RabbitMQ."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def publish(self, *bodies: Any, key: str = KEY, **properties: Any) -> None:
        """Publish each, persistent and confirmed; what is not bytes goes as JSON."""
        await trio.to_thread.run_sync(lambda: asyncio.run(self._publish(bodies, key, properties)))

    async def take(self, queue: str, count: int = 1, seconds: float = 40) -> list[Got]:
        """So many messages; fails if they do not come."""
        return await trio.to_thread.run_sync(lambda: asyncio.run(self._take(queue, count, seconds)))

    async def rest(self, queue: str) -> list[Got]:
        """What lies there now."""
        return await trio.to_thread.run_sync(lambda: asyncio.run(self._take(queue, 1 << 30, 0)))

    async def publish_bytes_as_text(self, body: bytes) -> None:
        """With a message id and a header name that are no UTF-8, which no decent library lets one send."""
        await trio.to_thread.run_sync(self._publish_odd, body)

    def _publish_odd(self, body: bytes) -> None:
        url = urlsplit(self._url)
        assert url.port
        mark = "MARKMARK"
        properties = Basic.Properties(message_id=mark, delivery_mode=2, headers={mark: 1})
        login = Connection.StartOk({}, "PLAIN", f"\0{url.username}\0{url.password}", "en_US")
        with socket.create_connection((url.hostname, url.port), 40) as stream:
            reader = stream.makefile("rb")

            def say(*frames: FrameTypes, channel: int = 0) -> None:
                data = b"".join(marshal(each, channel) for each in frames)
                stream.sendall(data.replace(mark.encode(), b"\xff\xfeodd\xff\xfe\xfd"))
                begin = reader.read(7)
                reader.read(int.from_bytes(begin[3:], "big") + 1)

            stream.sendall(b"AMQP\x00\x00\x09\x01")
            say()
            say(login)
            say(Connection.TuneOk(2047, 131072, 60), Connection.Open("/"))
            say(Channel.Open(), channel=1)
            publish = Basic.Publish(exchange=EXCHANGE, routing_key=KEY)
            head = ContentHeader(0, len(body), properties)
            say(publish, head, ContentBody(body), Channel.Close(200, "", 0, 0), channel=1)
            reader.close()

    async def _publish(self, bodies: Sequence[Any], key: str, properties: dict[str, Any]) -> None:
        async with await aio_pika.connect(self._url) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(EXCHANGE, ensure=False)
            for body in bodies:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                message = aio_pika.Message(data, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **properties)
                await exchange.publish(message, routing_key=key)

    async def _take(self, queue: str, count: int, seconds: float) -> list[Got]:
        got: list[Got] = []
        async with await aio_pika.connect(self._url) as connection:
            channel = await connection.channel()
            place = await channel.get_queue(queue, ensure=False)
            limit = asyncio.get_running_loop().time() + seconds
            while len(got) < count:
                message = await place.get(no_ack=True, fail=False)
                if message is not None:
                    got.append(Got(message.body, message.message_id or "", dict(message.headers)))
                elif asyncio.get_running_loop().time() > limit:
                    break
                else:
                    await asyncio.sleep(0.02)
        if seconds:
            assert len(got) == count, got
        return got

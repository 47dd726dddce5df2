"""A plain aio-pika client: puts messages on a queue and takes what comes on another, with the wall time of each."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

IN_FLIGHT = 64
EXCHANGE = "blacktree.direct"


@asynccontextmanager
async def open_channel(url: str) -> AsyncIterator[AbstractChannel]:
    """A connection of its own, publisher confirms on."""
    connection = await aio_pika.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def publish(exchange: AbstractExchange, key: str, bodies: Sequence[bytes]) -> None:
    """Persistent and confirmed, 64 in flight."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def put(body: bytes) -> None:
        async with room:
            await exchange.publish(aio_pika.Message(body, delivery_mode=2), routing_key=key)

    await asyncio.gather(*(put(body) for body in bodies))


async def until_queue(url: str, name: str, seconds: float = 20) -> None:
    """Wait until somebody has declared this queue."""
    async with asyncio.timeout(seconds):
        while True:
            async with open_channel(url) as channel:
                try:
                    await channel.get_queue(name)
                    return
                except ChannelNotFoundEntity:
                    pass
            await asyncio.sleep(0.05)


class Results:
    """What has come on `status.queue`: when, by job id, and whether it says success."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.failed: list[str] = []
        self._more = asyncio.Event()

    async def take(self, message: AbstractIncomingMessage) -> None:
        """The queue's consumer."""
        self.times.setdefault(str(message.message_id), time.time())
        if b'"success":true' not in message.body:
            self.failed.append(str(message.message_id))
        self._more.set()

    async def until(self, count: int, seconds: float) -> list[float]:
        """Wait for so many; answers when each came, in order."""
        async with asyncio.timeout(seconds):
            while len(self.times) < count:
                self._more.clear()
                await self._more.wait()
        return sorted(self.times.values())


def job(identity: str, **build_args: str) -> bytes:
    """A job as it may be put on `execute.queue` directly."""
    spec: dict[str, Any] = {"repository": "https://git.example/team/app.git"}
    if build_args:
        spec["build_args"] = build_args
    return json.dumps({"id": identity, "spec": spec}).encode()

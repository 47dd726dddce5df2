"""The floor: consume and acknowledge with aio-pika, no more. `python -m tests.bench.raw_consumer URL QUEUE COUNT`."""

import asyncio
import json
import sys
import time

from aio_pika.abc import AbstractIncomingMessage

from tests.bench.amqp import open_channel

PREFETCH = 16


async def main(url: str, queue_name: str, count: int) -> None:
    """Says when the first and the last message had been acknowledged."""
    times: list[float] = []
    done = asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        await message.ack()
        times.append(time.time())
        if len(times) >= count:
            done.set()

    async with open_channel(url) as channel:
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(queue_name)
        await queue.consume(take)
        await done.wait()
    print(json.dumps({"first": times[0], "last": times[-1]}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

"""The channel that publishes: groups, each confirmed as a whole; asyncio.

`basic_publish` costs some 350 us a message, most of it futures and their callbacks. This keeps the same books of the
channel (tags, confirmations, ids) for a whole group and writes it in one piece.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError, PublishError

from blacktree.broker.base import Message
from blacktree.broker.border import border
from blacktree.broker.frames import new_message_id, publish_frames
from blacktree.broker.line import write
from blacktree.broker.topology import QueueSpec
from blacktree.errors import BrokerLost

CONFIRM_SECONDS = 30.0


class Publisher:
    """One group at a time; nobody else uses the channel. `declare` makes a queue that turned out to be missing."""

    def __init__(self, channel: Channel, declare: Callable[[QueueSpec], Awaitable[None]]) -> None:
        self._channel = channel
        self._declare = declare
        self._confirms: list[asyncio.Future[object]] = []
        self._is_blocked = False

    @property
    def closing(self) -> "asyncio.Future[object]":
        """Done when the channel is."""
        return self._channel.closing

    def block(self, on: bool) -> None:
        """RabbitMQ's alarm is on: what waits for a confirm, and what comes, fails at once."""
        self._is_blocked = on
        if on:
            self.fail(BrokerLost("RabbitMQ's memory or disk alarm is on", advice="give it room"))

    async def publish(self, messages: Sequence[tuple[QueueSpec, Message]]) -> None:
        """Publish all and wait for all confirms; what was unroutable is declared and tried once more."""
        with border():
            async with asyncio.timeout(CONFIRM_SECONDS):
                returned = await self._publish_once(messages)
                if not returned:
                    return
                for spec in {spec.name: spec for spec, _ in returned}.values():
                    await self._declare(spec)
                returned = await self._publish_once(returned)
        if returned:
            names = ", ".join(sorted({spec.name for spec, _ in returned}))
            raise BrokerLost(f"RabbitMQ cannot route to {names}", code="unroutable", advice="see its bindings")

    async def _publish_once(self, messages: Sequence[tuple[QueueSpec, Message]]) -> list[tuple[QueueSpec, Message]]:
        channel = self._channel
        if channel.is_closed:
            raise BrokerLost("RabbitMQ's connection is gone")
        if self._is_blocked:
            raise BrokerLost("RabbitMQ's memory or disk alarm is on", advice="give it memory or disk")
        loop = asyncio.get_running_loop()
        ids = [message.message_id or new_message_id() for _, message in messages]
        payload = []
        self._confirms = []
        for (spec, message), message_id in zip(messages, ids, strict=True):
            channel.delivery_tag += 1
            confirm = loop.create_future()
            channel.confirmations[channel.delivery_tag] = confirm
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
            payload.append(publish_frames(channel.number, spec, message, message_id, channel.max_content_size))
            self._confirms.append(confirm)
        await write(channel, b"".join(payload))
        returned_ids = set()
        try:
            for confirm, message_id in zip(self._confirms, ids, strict=True):
                try:
                    await confirm
                except PublishError:
                    returned_ids.add(message_id)
                except DeliveryError:
                    raise BrokerLost("RabbitMQ refused a message") from None
        finally:
            for message_id in ids:
                channel.message_id_delivery_tag.pop(message_id, None)
            self.fail(BrokerLost("given up"))
        # aiormq knows a returned message by its id alone; of several with one id, each may be the one.
        return [each for each, message_id in zip(messages, ids, strict=True) if message_id in returned_ids]

    def fail(self, error: BrokerLost) -> None:
        """Nothing will be confirmed any more."""
        for confirm in self._confirms:
            if not confirm.done():
                confirm.set_exception(error)
            if not confirm.cancelled():
                confirm.exception()  # seen: asyncio need not complain

"""What goes over AMQP's wire, as bytes made in one piece for a whole group, and which tags one ack can cover."""

import secrets
from collections.abc import Collection, Iterable

from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from blacktree.broker.base import Message
from blacktree.broker.topology import EXCHANGE, QueueSpec

PERSISTENT = 2


def publish_frames(channel: int, spec: QueueSpec, message: Message, message_id: str, body_limit: int) -> bytes:
    """One persistent, mandatory message. `body_limit`: the largest body of one frame, in bytes."""
    properties = commands.Basic.Properties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        priority=message.priority,
        message_id=message_id,
        headers=dict(message.headers) or None,
    )
    body = message.body
    parts = [
        marshal(commands.Basic.Publish(exchange=EXCHANGE, routing_key=spec.key, mandatory=True), channel),
        marshal(ContentHeader(properties=properties, body_size=len(body)), channel),
    ]
    parts += [marshal(ContentBody(body[at : at + body_limit]), channel) for at in range(0, len(body), body_limit)]
    return b"".join(parts)


def new_message_id() -> str:
    """A message that comes back unroutable is known by its id, so each one needs one."""
    return secrets.token_hex(8)


def settle_frames(channel: int, outstanding: Iterable[int], acks: Collection[int], requeues: Collection[int]) -> bytes:
    """Settle these tags. `outstanding`: all tags not settled before, these included, in ascending order.

    One `multiple` acknowledgement covers the longest run from the oldest; it comes after the requeues, so that it
    never covers one of them.
    """
    parts = [marshal(commands.Basic.Nack(delivery_tag=tag, requeue=True), channel) for tag in sorted(requeues)]
    upto, single = plan_acks([tag for tag in outstanding if tag not in requeues], acks)
    if upto is not None:
        parts.append(marshal(commands.Basic.Ack(delivery_tag=upto, multiple=True), channel))
    parts += [marshal(commands.Basic.Ack(delivery_tag=tag), channel) for tag in single]
    return b"".join(parts)


def plan_acks(outstanding: Iterable[int], acks: Collection[int]) -> tuple[int | None, list[int]]:
    """The tag up to which all can be acknowledged at once, and those left to be acknowledged one by one."""
    upto: int | None = None
    for tag in outstanding:
        if tag not in acks:
            break
        upto = tag
    return upto, sorted(tag for tag in acks if upto is None or tag > upto)

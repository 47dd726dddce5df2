"""Messages whose properties cannot be read, made readable: their body counts, and all else is as if it were not there.

AMQP lets anybody publish a message id that is no UTF-8, or a time beyond the year 9999. RabbitMQ delivers that, pamqp
refuses the whole frame, and aiormq gives up the connection: the next one would get the same message, for ever.
"""

import struct

from pamqp.commands import Basic
from pamqp.header import ContentHeader

_read = ContentHeader.unmarshal


def _read_what_can_be(self: ContentHeader, data: bytes) -> None:
    try:
        _read(self, data)
    except (ValueError, TypeError, OverflowError, OSError, KeyError, IndexError, struct.error):
        if len(data) < 14:
            raise
        self.properties = Basic.Properties()


def bear_odd_properties() -> None:
    """From now on, in this process. Repeatable. pamqp has no place to hand in a reader of one's own."""
    ContentHeader.unmarshal = _read_what_can_be  # type: ignore[method-assign]  # the library has no hook for it

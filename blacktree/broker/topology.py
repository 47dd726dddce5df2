"""The queues, their bindings and arguments: contract.md section 6 as plain values."""

import msgspec

from blacktree.broker.base import DEAD_QUEUE, EVENT_QUEUE, STATUS_QUEUE
from blacktree.errors import BadRequest

EXCHANGE = "blacktree.direct"
REASON_HEADER = "x-blacktree-reason"
REASON_LIMIT = 1000
MAXIMUM_PRIORITY = 10

_EXECUTE = "execute.queue"
_DEAD_KEY = "worker.dead"

Argument = str | int


class QueueSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue is declared (always durable, classic) and the key it is bound with."""

    name: str
    key: str
    arguments: dict[str, Argument] = {}
    maximum: int | None = None


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """What one farm declares. `events`: whether there is an `event.queue`."""

    status_maximum: int
    event_maximum: int
    events: bool

    def queue(self, name: str) -> QueueSpec:
        """Raises `BadRequest` (code `unknown_queue`) for a queue that the farm does not have."""
        if name == _EXECUTE or (name.startswith(f"{_EXECUTE}.") and len(name) > len(_EXECUTE) + 1):
            arguments: dict[str, Argument] = {
                "x-max-priority": MAXIMUM_PRIORITY,
                "x-dead-letter-exchange": EXCHANGE,
                "x-dead-letter-routing-key": _DEAD_KEY,
            }
            return QueueSpec(name=name, key="worker.execute" + name.removeprefix(_EXECUTE), arguments=arguments)
        if name == DEAD_QUEUE:
            return QueueSpec(name=name, key=_DEAD_KEY)
        if name == STATUS_QUEUE:
            return _bounded(name, "api.result", self.status_maximum)
        if name == EVENT_QUEUE and self.events:
            return _bounded(name, "api.event", self.event_maximum)
        hint = "set queue.events to have it" if name == EVENT_QUEUE else ""
        raise BadRequest(f"there is no queue {name!r}", path="queue", code="unknown_queue", advice=hint)

    def standing(self) -> list[QueueSpec]:
        """The queues that are there from the start; the dead letters' first, so that nothing falls beside it."""
        names = [DEAD_QUEUE, _EXECUTE, STATUS_QUEUE, *([EVENT_QUEUE] if self.events else [])]
        return [self.queue(name) for name in names]


def _bounded(name: str, key: str, maximum: int) -> QueueSpec:
    arguments: dict[str, Argument] = {"x-max-length": maximum, "x-overflow": "drop-head"}
    return QueueSpec(name=name, key=key, arguments=arguments, maximum=maximum)

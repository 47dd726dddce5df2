"""`Lane`: what waits for one target of notifications, and which of it is to be sent when. Memory only, no I/O."""

import math
from collections import OrderedDict, deque

import trio

from blacktree.notification import Target
from blacktree.orchestrator.notifycontrol import Tried

KEPT = 100


class Waiting:
    """A message that its target has not taken yet. Its body is on record under `name`; it came at `since` (Trio's)."""

    __slots__ = ("due", "failures", "id", "name", "since", "type")

    def __init__(self, id: str, name: str, type: str, since: float) -> None:
        self.id = id
        self.name = name
        self.type = type
        self.since = since
        self.due = -math.inf
        self.failures = 0


class Lane:
    """Messages are sent one at a time, the oldest first; one that the target refuses lets others by, a target that is
    away holds them all."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.waiting: OrderedDict[str, Waiting] = OrderedDict()
        self.tried: deque[Tried] = deque(maxlen=KEPT)
        self.sending: Waiting | None = None
        self.failures = 0
        self.resume = -math.inf
        self.wake = trio.Event()
        self.gone = False
        self.unsaved = False
        self.overfull = False

    def put(self, message: Waiting) -> None:
        """One more; one that is here already stays as it is."""
        if message.id not in self.waiting:
            self.waiting[message.id] = message
            self.stir()

    def oldest(self) -> Waiting:
        """The first of those that wait; not the one that is under way, unless there is no other."""
        return next(
            (each for each in self.waiting.values() if each is not self.sending), next(iter(self.waiting.values()))
        )

    def stir(self) -> None:
        """Look again."""
        self.wake.set()

    def again(self) -> None:
        """Try everything now: the target was changed."""
        self.resume = -math.inf
        self.failures = 0
        for message in self.waiting.values():
            message.due = -math.inf
        self.stir()

    def next(self, time: float) -> tuple[Waiting | None, float]:
        """What is to be sent now, else None and until when there is nothing to do."""
        if not self.waiting:
            return None, math.inf
        if self.resume > time:
            return None, self.resume
        soonest = math.inf
        for message in self.waiting.values():
            if message.due <= time:
                return message, time
            soonest = min(soonest, message.due)
        return None, soonest

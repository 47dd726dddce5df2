"""`Budget`: how many bytes of requests may lie in memory at once that nobody has vouched for yet."""

from collections import Counter
from collections.abc import Callable, Mapping

import trio

from blacktree.errors import Unavailable

SLOW_SECONDS = 2.0
"""A body that takes longer makes way for others when there is no room."""


class Budget:
    """Shared by all connections. Bodies that are still coming after `SLOW_SECONDS` are cut off, the oldest first, when
    another needs the room; so slow ones hold what is there only as long as nobody wants it. One network holds at most
    `most_each`, so that there is always room for another's. `who`: the network that headers and a peer stand for."""

    def __init__(self, most: int, most_each: int, who: Callable[[Mapping[str, str], str], str]) -> None:
        self._left = most
        self._most_each = most_each
        self._who = who
        self._taken: Counter[str] = Counter()
        self._shares: dict[Share, None] = {}

    def share(self, headers: Mapping[str, str], peer: str) -> "Share":
        """For one request, which holds nothing yet."""
        return Share(self, self._who(headers, peer))

    def take(self, share: "Share", size: int) -> None:
        """Raises `Unavailable` if there is no room."""
        self._shares.setdefault(share)
        if size > self._room(share):
            self._make_room(share, size)
        if size > self._room(share):
            raise _full()
        self._left -= size
        self._taken[share.network] += size
        share.taken += size

    def _room(self, share: "Share") -> int:
        return min(self._left, self._most_each - self._taken[share.network])

    def _make_room(self, share: "Share", size: int) -> None:
        """Cut off slow ones: those of the same network if that has its part, else anybody's."""
        before = trio.current_time() - SLOW_SECONDS
        slow = [each for each in self._shares if each is not share and each.scope is not None and each.since <= before]
        own = [each for each in slow if each.network == share.network]
        if size > self._most_each - self._taken[share.network] + sum(each.taken for each in own):
            return
        if size > self._left + sum(each.taken for each in slow):
            return
        for each in own:
            if size <= self._most_each - self._taken[share.network]:
                break
            each.cut_off()
        for each in slow:
            if size <= self._left:
                break
            if each.taken:
                each.cut_off()

    def give_back(self, share: "Share") -> None:
        """What it took is gone."""
        self._shares.pop(share, None)
        self._left += share.taken
        self._taken[share.network] -= share.taken
        if not self._taken[share.network]:
            del self._taken[share.network]
        share.taken = 0


class Share:
    """What one request holds. `scope`: what its body comes in, while it comes."""

    def __init__(self, budget: Budget, network: str) -> None:
        self._budget = budget
        self.network = network
        self._cut = False
        self.since = trio.current_time()
        self.taken = 0
        self.scope: trio.CancelScope | None = None

    def take(self, size: int) -> None:
        """See `Budget.take`."""
        self.check()
        self._budget.take(self, size)

    def check(self) -> None:
        """Raises `Unavailable` if it was cut off."""
        if self._cut:
            raise _full()

    def cut_off(self) -> None:
        """End its body. Its bytes count as gone: they are before anything else is read."""
        assert self.scope is not None
        self._cut = True
        self.scope.cancel()
        self._budget.give_back(self)

    def give_back(self) -> None:
        """See `Budget.give_back`."""
        self._budget.give_back(self)


def _full() -> Unavailable:
    return Unavailable("too many large requests at once", code="too_many_requests")

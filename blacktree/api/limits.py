"""How often somebody may ask: token buckets, one for each token and for each address."""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

import trio

from blacktree.config import DoorConfig
from blacktree.errors import Unavailable

MOST_KEYS = 20_000


class Buckets:
    """One bucket for each key, full at first: `rate` drops a second, up to `burst`. A rate of 0 limits nothing."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = trio.current_time) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one drop; 0, or how many seconds until there is one."""
        if not self._rate:
            return 0.0
        now = self._clock()
        level, since = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        wait = 0.0 if level >= 1.0 else (1.0 - level) / self._rate
        self._levels[key] = (level if wait else level - 1.0, now)
        # The one that was asked longest ago is the fullest but for a few: to forget it gives away little.
        while len(self._levels) > MOST_KEYS:
            self._levels.popitem(last=False)
        return wait

    def check(self, key: str, what: str) -> None:
        """As `take`. Raises `Unavailable` (code `rate_limited`)."""
        if wait := self.take(key):
            raise Unavailable(
                f"too many {what}",
                code="rate_limited",
                advice="ask again after `retry_after` seconds",
                retry_after_seconds=math.ceil(wait * 100) / 100,
            )


class Limits:
    """The door's buckets."""

    def __init__(self, config: DoorConfig) -> None:
        def buckets(rate: float) -> Buckets:
            return Buckets(rate, rate * config.burst_seconds)

        self._tokens = buckets(config.token_requests_per_second)
        self._addresses = buckets(config.address_requests_per_second)
        self._refusals = buckets(config.refusals_per_second)

    def arrived(self, address: str) -> None:
        """A request from here. Raises `Unavailable`."""
        self._addresses.check(network_of(address), "requests from this address")

    def known(self, token: str) -> None:
        """A request with this token. Raises `Unavailable`."""
        self._tokens.check(token, "requests with this token")

    def refused(self, address: str) -> None:
        """Somebody from here showed no token, or none of ours. Raises `Unavailable` instead of telling them so."""
        self._refusals.check(network_of(address), "requests without a valid token from this address")


@lru_cache(4096)
def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the half that a provider gives away as one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)

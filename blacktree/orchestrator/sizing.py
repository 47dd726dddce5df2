"""The pure part of scaling: from how a pool stands to what is to be started, drained, kept after all, or removed."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from blacktree.config import ScaledPool

NEVER = -math.inf

HandState = Literal["starting", "working", "draining", "lost", "ended"]


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of the scaler's. Times are on Trio's clock.

    `starting`: it exists and has not taken builds yet; `working`: it has; `draining`: it takes nothing more; `lost`:
    it joined once and its lease has run out; `ended`: only its remains are there. `since`: when this state (or, of a
    working one, its idleness) was first seen. `ours`: the scaler drained it, so the scaler may take that back.
    """

    id: str
    state: HandState
    busy: int = 0
    slots: int = 1
    since: float = 0.0
    ours: bool = False


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at `time`. `queued` jobs could start now, the oldest of them for `oldest_seconds`.

    `others_free` are free slots of workers that are not the scaler's. `last_change`: when the pool last grew or shrank.
    """

    time: float
    queued: int = 0
    oldest_seconds: float = 0.0
    others_free: int = 0
    has_others: bool = False
    hands: Sequence[Hand] = ()
    last_change: float = NEVER


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, by id where it is about a worker; `remove` maps ids to the reason. `wanted` is the size aimed at."""

    start: int = 0
    keep: Sequence[str] = ()
    drain: Sequence[str] = ()
    remove: dict[str, str] = {}
    wanted: int = 0


def decide(rules: ScaledPool, now: Situation) -> Plan:
    """The next step. Never more than `maximum` workers exist by it, and none that has a build is removed."""
    remove = {hand.id: why for hand in now.hands if (why := _over(rules, hand, now.time))}
    staying = [hand for hand in now.hands if hand.id not in remove]
    active = [hand for hand in staying if hand.state in ("starting", "working")]
    missing = _missing(rules, now, active)
    kept: list[str] = []
    start = 0
    if missing > 0:
        kept = [hand.id for hand in staying if hand.state == "draining" and hand.ours][
            : min(missing, max(0, rules.maximum - len(active)))
        ]
        # What is being removed still exists: it counts until it is gone.
        start = max(0, min(missing - len(kept), rules.maximum - len(now.hands)))
    drained = [] if missing > 0 else _superfluous(rules, now, active)
    return Plan(
        start=start, keep=kept, drain=drained, remove=remove, wanted=len(active) + len(kept) + start - len(drained)
    )


def _over(rules: ScaledPool, hand: Hand, time: float) -> str:
    """Why this one is to be removed; empty if it stays."""
    match hand.state:
        case "ended":
            return "it has ended"
        case "starting" if time - hand.since >= rules.start_seconds:
            return f"it was not ready within {rules.start_seconds:g} s"
        case "lost" if time - hand.since >= rules.start_seconds:
            return f"it is silent, and has not come back within {rules.start_seconds:g} s"
        case "draining" if hand.busy == 0:
            return "it is drained and idle"
    return ""


def _missing(rules: ScaledPool, now: Situation, active: Sequence[Hand]) -> int:
    """How many workers more there should be; the minimum knows no cool-down."""
    below = max(0, rules.minimum - len(active))
    free = now.others_free + sum(max(0, hand.slots - hand.busy) for hand in active)
    short = math.ceil(max(0, now.queued - free) / rules.slots)
    nobody = not active and not now.has_others
    patient = now.oldest_seconds < rules.wait_seconds and not nobody
    if patient or now.time - now.last_change < rules.up_cooldown_seconds:
        short = 0
    return min(max(below, short), max(0, rules.maximum - len(active)))


def _superfluous(rules: ScaledPool, now: Situation, active: Sequence[Hand]) -> list[str]:
    """Who is to be drained: what is over the maximum at once, what is idle after the cool-down."""
    by_use = sorted(active, key=lambda hand: (hand.busy, hand.state == "working", hand.since, hand.id))
    over = max(0, len(active) - rules.maximum)
    rest = by_use[over:]
    idle = [
        hand
        for hand in rest
        if hand.state == "working" and hand.busy == 0 and now.time - hand.since >= rules.idle_seconds
    ]
    if now.queued or now.time - now.last_change < rules.down_cooldown_seconds:
        idle = []
    spare = max(0, len(rest) - rules.minimum)
    return [hand.id for hand in (*by_use[:over], *idle[:spare])]

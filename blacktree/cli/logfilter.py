"""Which events of a log are asked for: by text, by step, by time. Pure; it learns the steps' names as they pass."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from blacktree.cli.wording import Event

# Clocks of the farm's machines differ: where to begin is looked for this much earlier.
SKEW_SECONDS = 120.0
_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_BEYOND = set("|()[]\\")
_SPECIAL = set(".^$*+?{}")


class Wanted(NamedTuple):
    """What is asked for; nothing means everything."""

    pattern: re.Pattern[str] | None = None
    step: str = ""
    since: datetime | None = None

    @property
    def literal(self) -> str:
        """Text that every matching line holds, case aside: what the server can look for. Empty if there is none."""
        return literal_in(self.pattern.pattern) if self.pattern is not None else ""


class LogFilter:
    """`passes` for each event, in order."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._since = wanted.since
        self._steps: set[tuple[int, str]] = set()
        self.names: list[str] = []

    @property
    def step_seen(self) -> bool:
        """Whether the step that is asked for was met, if one is."""
        return not self._wanted.step or bool(self._steps)

    def know(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """Steps that began before what is read."""
        for step in steps:
            self._meet(step["attempt"], step["step"], step["name"])

    def passes(self, event: Event) -> bool:
        """Whether this event is asked for."""
        step = event.get("step")
        if step and event["type"] in ("step_started", "step_finished"):
            self._meet(event["attempt"], step, event["name"])
        elif step and step == self._wanted.step:
            self._steps.add((event["attempt"], step))
        pattern = self._wanted.pattern
        if pattern is not None and (event["type"] != "log" or not pattern.search(_COLOURS.sub("", event["line"]))):
            return False
        if self._wanted.step and (not step or (event["attempt"], step) not in self._steps):
            return False
        return self._since is None or datetime.fromisoformat(event["time"]) >= self._since

    def _meet(self, attempt: int, step: str, name: str) -> None:
        if name not in self.names:
            self.names.append(name)
        if named(self._wanted.step, step, name):
            self._steps.add((attempt, step))


def named(asked: str, step: str, name: str) -> bool:
    """Whether a person who asks for `asked` means this step: its id, its name, or a part of its name, case aside."""
    return bool(asked) and (asked == step or asked.lower() in name.lower())


def literal_in(pattern: str) -> str:
    """The longest text that any match of a regular expression holds for sure; empty where that is not plain to see.

    >>> literal_in("colou?r of .*paint")
    'r of '
    """
    if _BEYOND & set(pattern):
        return ""
    runs = [""]
    skip = False
    for char in pattern:
        if skip:
            skip = char != "}"
        elif char in "*?{":
            # What stands before may be there no time at all.
            runs[-1] = runs[-1][:-1]
            runs.append("")
            skip = char == "{"
        elif char in _SPECIAL:
            runs.append("")
        else:
            runs[-1] += char
    longest = max(runs, key=len)
    return longest if 2 <= len(longest) <= 1000 else ""

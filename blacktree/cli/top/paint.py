"""Rows of exactly one width from words that may come from anywhere: no escape, no line break, no direction mark."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.cells import cell_len
from rich.text import Text

from blacktree.cli.wording import shown

# Marks that turn the direction of what follows, and the breaks of line that are no newline.
_TURNS = re.compile("[\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b")
STATES = {
    "running": "cyan",
    "assigned": "cyan",
    "canceling": "yellow",
    "queued": "blue",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "canceled": "yellow",
    "free": "green",
    "busy": "cyan",
    "draining": "yellow",
    "dead": "red",
}


def clean(value: object) -> str:
    """Any words on one line, without anything that a terminal would obey."""
    text = shown(str(value).replace("\n", " ").replace("\t", " "), terminal=True)
    return _TURNS.sub("\ufffd", _COLOURS.sub("", text)).encode("utf-8", "replace").decode()


def coloured(line: str) -> Text:
    """A log's line: colours stay, all else that a terminal would obey goes."""
    text = shown(line.replace("\n", " ").expandtabs(8), terminal=True)
    text = _TURNS.sub("\ufffd", text).encode("utf-8", "replace").decode()
    return Text.from_ansi(text, no_wrap=True, end="")


def fit(text: Text | str, width: int, style: str = "") -> Text:
    """A row of exactly `width` cells; what is too long ends with `…`."""
    row = Text(text, no_wrap=True, end="") if isinstance(text, str) else text.copy()
    if style:
        row.stylize_before(style)
    row.truncate(max(0, width), overflow="ellipsis")
    # A wide character may have left half a place.
    row.append(" " * max(0, width - cell_len(row.plain)))
    row.no_wrap, row.overflow, row.end = True, "crop", "\n"
    return row


def split(left: Text, right: Text, width: int) -> Text:
    """Words at both ends of a row; those at the right give way."""
    room = width - left.cell_len - 1
    if room < right.cell_len:
        if room < 8:
            return fit(left, width)
        right = fit(right, room)
    return fit(Text.assemble(left, " " * (width - left.cell_len - right.cell_len), right), width)


def table(heads: Sequence[str], rows: Iterable[Sequence[Text]], widths: Sequence[int], width: int) -> list[Text]:
    """Aligned rows below their heads; a column of width 0 is left out."""
    made = []
    for cells in ([Text(head, style="bold") for head in heads], *rows):
        row = Text(no_wrap=True, end="")
        for cell, room in zip(cells, widths, strict=True):
            if room > 0:
                row.append("  " if row.plain else "")
                row.append_text(fit(cell, room))
        made.append(fit(row, width))
    return made


def window(index: int, count: int, rows: int) -> int:
    """Where a list begins when only `rows` of it fit, so that `index` is among them, in the middle if may be."""
    return max(0, min(index - rows // 2, count - rows))


def span(begin: str | None, end: str | None, now: datetime) -> str:
    """How long from one RFC 3339 moment to another, or to now: `8s`, `4m05`, `2h10`, `3d`; empty without the first."""
    if not begin:
        return ""
    until = datetime.fromisoformat(end) if end else now
    passed = max(0, int((until - datetime.fromisoformat(begin)).total_seconds()))
    if passed < 60:
        return f"{passed}s"
    if passed < 3600:
        return f"{passed // 60}m{passed % 60:02d}"
    if passed < 86400:
        return f"{passed // 3600}h{passed % 3600 // 60:02d}"
    return f"{passed // 86400}d"


def state_word(state: str) -> Text:
    """A state in its colour."""
    return Text(clean(state).replace("_", " "), style=STATES.get(state, ""))

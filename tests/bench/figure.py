"""`Figure`: one measured number, what stands beside it, what it should reach; and the table of them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table. `reached` is None where nothing is asked for; `details` go to the JSON only."""

    row: str
    name: str
    value: float
    unit: str
    beside: str = ""
    beside_value: float | None = None
    target: str = ""
    reached: bool | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The value over what stands beside it."""
        return self.value / self.beside_value if self.beside_value else None


@dataclass(frozen=True)
class Failed:
    """A row that could not be measured (to its end), and why."""

    row: str
    reason: str


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest-rank percentile.

    >>> percentile([4, 1, 3, 2], 0.5), percentile([4, 1, 3, 2], 0.99), percentile([7], 0.01)
    (2, 4, 7)
    """
    ordered = sorted(values)
    rank = -(-len(ordered) * part // 1)
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


def median(values: Sequence[float]) -> float:
    """The lower median: a value that was measured."""
    return percentile(values, 0.5)


def short(value: float) -> str:
    """A number for people: three digits or whole.

    >>> short(0.01234), short(1.234), short(98.76), short(12345.6)
    ('0.0123', '1.23', '98.8', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(figure: Figure) -> dict[str, Any]:
    """For the file."""
    return asdict(figure) | {"ratio": figure.ratio}


def table(figures: Iterable[Figure], failures: Iterable[Failed] = ()) -> str:
    """A Markdown table, readable as it is."""
    head = ["figure", "Blacktree", "beside", "ratio", "to reach", "reached"]
    rows = [_cells(figure) for figure in figures]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [_line(head, widths), _line(["-" * width for width in widths], widths)]
    lines += [_line(row, widths) for row in rows]
    notes = [f"{figure.row}: {figure.name}: {figure.note}" for figure in figures if figure.note]
    lines += ["", *notes] if notes else []
    lines += [f"{failure.row}: NOT MEASURED: {failure.reason}" for failure in failures]
    return "\n".join(lines)


def _cells(figure: Figure) -> list[str]:
    beside = f"{short(figure.beside_value)} {figure.beside}" if figure.beside_value is not None else figure.beside
    reached = {True: "yes", False: "NO", None: ""}[figure.reached]
    ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
    name = f"{figure.row}: {figure.name}"
    return [name, f"{short(figure.value)} {figure.unit}".strip(), beside, ratio, figure.target, reached]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

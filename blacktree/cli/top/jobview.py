"""One job as rows: what it is, its steps, its log. Pure."""

from bisect import bisect_right
from datetime import datetime

from rich.cells import cell_len
from rich.text import Text

from blacktree.cli.top.jobsview import address, took, waited
from blacktree.cli.top.paint import clean, coloured, fit, span, state_word
from blacktree.cli.top.state import JobPage, Line, Step
from blacktree.cli.wording import seconds, stamp

_STYLES = {"head": "bold", "bad": "bold red", "note": "yellow", "state": "cyan"}


def rows_above(page: JobPage, height: int) -> int:
    """How many rows stand above the log."""
    return _heads(page, height) + _step_count(page, height) + (1 if height >= 10 else 0)


def job_rows(page: JobPage, width: int, height: int, now: datetime) -> list[Text]:
    """All of it."""
    rows = [fit(row, width) for row in _facts(page, now)[: _heads(page, height)]]
    rows += [fit(_step(step, now), width) for step in _chosen_steps(page, _step_count(page, height))]
    if height >= 10:
        rows.append(fit(Text("─" * width, style="dim"), width))
    return [*rows, *_log(page, width, max(0, height - len(rows)))]


def _heads(page: JobPage, height: int) -> int:
    return 1 if height < 8 else 2 if height < 14 or not _trouble(page) else 3


def _step_count(page: JobPage, height: int) -> int:
    if height < 8:
        return 1 if height > 4 and page.steps else 0
    return min(len(page.steps), height // 3)


def _facts(page: JobPage, now: datetime) -> list[Text]:
    job = page.job
    if not job:
        return [Text(" …"), Text(""), Text("")]
    first = Text.assemble(" ", state_word(job["state"]), f"  {address(job)}")
    if job.get("commit"):
        first.append(f"  {clean(job['commit'])[:12]}", style="dim")
    parts = [f"waited {waited(job, now)}"]
    if job.get("started_at"):
        parts.append(f"took {took(job, now)}")
    if job.get("worker_id"):
        parts.append(f"worker {clean(job['worker_id'])}")
    if job.get("attempt", 0) > 1:
        parts.append(f"attempt {job['attempt']}")
    image = job.get("image") or {}
    if image.get("reference"):
        parts.append(clean(image["reference"]))
    return [first, Text(" " + " · ".join(parts), style="dim"), Text(f" {_trouble(page)}", style="yellow")]


def _trouble(page: JobPage) -> str:
    job = page.job
    error = job.get("error") or {}
    parts = [job.get("waiting"), error.get("message"), error.get("advice"), job.get("cancel_reason")]
    return clean("; ".join(str(part) for part in parts if part))


def _chosen_steps(page: JobPage, room: int) -> list[Step]:
    """Those that run or failed if not all fit, then the newest."""
    if len(page.steps) <= room:
        return list(page.steps)
    order = sorted(range(len(page.steps)), key=lambda at: (page.steps[at].ok is True, -at))
    return [page.steps[at] for at in sorted(order[:room])]


def _step(step: Step, now: datetime) -> Text:
    name = clean(step.name)
    if step.cached:
        return Text.assemble((" ✓ ", "green"), name, ("  cached", "cyan"))
    if step.ok is None:
        return Text.assemble((" ▸ ", "cyan"), name, (f"  {span(step.began, None, now)} {clean(step.progress)}", "dim"))
    mark = (" ✓ ", "green") if step.ok else (" ✗ ", "bold red")
    return Text.assemble(mark, name, (f"  {seconds(step.seconds or 0.0)}", "dim"))


def _log(page: JobPage, width: int, height: int) -> list[Text]:
    lines = page.log.lines
    if not lines or height < 1:
        word = page.failed or ("" if page.ready else "…") or ("…" if page.log.asking else "nothing printed yet")
        return [fit(Text(f" {clean(word)}", style="dim"), width)][:height]
    bottom = len(lines) - 1
    if page.anchor is not None:
        bottom = max(0, bisect_right(lines, page.anchor, key=lambda line: line.seq) - 1)
    bottom = max(bottom, min(height, len(lines)) - 1)
    rows: list[Text] = []
    for at in range(bottom, -1, -1):
        if len(rows) >= height:
            break
        rows = [*_wrapped(page, lines[at], width), *rows]
    return [fit(row, width) for row in rows[-height:]]


def _wrapped(page: JobPage, line: Line, width: int) -> list[Text]:
    text = coloured(line.text)
    if line.kind != "log":
        text.stylize_before(_STYLES[line.kind])
    if page.times:
        text = Text.assemble((f"{clean(stamp(line.time))[11:23]} ", "dim"), text)
    if not page.wrap or text.cell_len <= width:
        return [text]
    return _pieces(text, width)


def _pieces(text: Text, width: int) -> list[Text]:
    """The text cut into rows of so many cells, wherever that is."""
    cuts: list[int] = []
    used = 0
    for at, char in enumerate(text.plain):
        size = cell_len(char)
        if used + size > width:
            cuts.append(at)
            used = 0
        used += size
    return list(text.divide(cuts))

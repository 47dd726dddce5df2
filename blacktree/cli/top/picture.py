"""The state as rows of text: exactly as many as the screen has, each exactly as wide. Pure."""

from datetime import datetime

from rich.text import Text

from blacktree.cli.top.farmview import farm_rows
from blacktree.cli.top.jobsview import jobs_rows
from blacktree.cli.top.jobview import job_rows, rows_above
from blacktree.cli.top.paint import clean, fit, split
from blacktree.cli.top.state import ACTIVE, State, Wish

HELP = (
    ("jobs", ""),
    ("↑ ↓ PgUp PgDn", "choose a job"),
    ("Enter", "its steps and log"),
    ("/", "filter: repository, ref, state, worker, id …"),
    ("Esc", "no filter"),
    ("c", "cancel it (asks first)"),
    ("r", "retry it: a new job"),
    ("Tab, 1, 2", "jobs, farm"),
    ("farm", ""),
    ("↑ ↓", "choose a worker"),
    ("d", "drain it: takes nothing more; again: undo"),
    ("Enter", "its jobs"),
    ("one job", ""),
    ("↑ ↓ PgUp PgDn", "read back; at the end it follows again"),
    ("Home, g", "from the beginning"),
    ("End, f", "follow"),
    ("w, t", "wrap lines, show times"),
    ("Esc, q", "back"),
    ("everywhere", ""),
    ("^Z ^L", "suspend, draw again"),
    ("q, ^C", "leave"),
)


def picture(state: State, now: datetime) -> list[Text]:
    """The whole screen."""
    width, height = state.width, state.height
    body = max(0, height - 2)
    if state.help:
        rows = _help(width)
    elif state.page is not None:
        rows = job_rows(state.page, width, body, now)
    elif state.view == "farm":
        rows = farm_rows(state, body, now)
    else:
        rows = jobs_rows(state, body, now)
    rows = [fit(row, width) for row in rows[:body]]
    rows += [fit("", width) for _ in range(body - len(rows))]
    return [_head(state), *rows, _foot(state)][:height]


def log_height(state: State) -> int:
    """How many rows of a job's log are in sight."""
    if state.page is None:
        return 1
    body = max(0, state.height - 2)
    return max(1, body - rows_above(state.page, body))


def _head(state: State) -> Text:
    left = Text.assemble((" blacktree ", "bold"))
    for name in ("jobs", "farm"):
        here = state.view == name and state.page is None
        left.append(f" {name} ", style="reverse" if here else "dim")
    if state.page is not None:
        left.append(f" {clean(state.page.id)} ", style="reverse")
    if state.trouble:
        right = Text(f"✗ {clean(state.trouble)} ", style="bold red")
        if state.width < 60:
            right = Text("✗ lost ", style="bold red")
    else:
        running = sum(job["state"] in ACTIVE for job in state.jobs.values())
        waiting = sum(state.queue.get("queued", {}).values())
        right = Text.assemble(f"{running} running  {waiting} waiting  ", ("● ", "green"), f"{clean(state.server)} ")
        if state.width < 70:
            right = Text.assemble(f"{running}/{waiting} ", ("● ", "green"))
    return split(left, right, state.width)


def _foot(state: State) -> Text:
    if state.asked is not None:
        return fit(Text(f" {_question(state.asked)} y/n", style="bold yellow"), state.width)
    if state.typing:
        return fit(Text.assemble((" / ", "bold"), clean(state.words), ("▏", "blink")), state.width)
    if state.message:
        return fit(Text(f" {clean(state.message)}", style="bold yellow"), state.width)
    page = state.page
    if page is not None:
        keys = "Esc back  ↑↓ scroll  f follow  w wrap  t times  c cancel  r retry  ? help"
        if page.anchor is not None:
            behind = page.log.end - page.anchor - 1
            news = Text(f" paused, {behind} newer · f follows ", style="black on yellow")
            return split(news, Text(keys, style="dim"), state.width)
    elif state.view == "farm":
        keys = "↑↓ worker  d drain/undo  Enter its jobs  Tab jobs  ? help  q quit"
    else:
        keys = "↑↓ job  Enter open  / filter  c cancel  r retry  Tab farm  ? help  q quit"
    return fit(Text(f" {keys}", style="dim"), state.width)


def _question(wish: Wish) -> str:
    return f"cancel job {clean(wish.subject)}?"


def _help(width: int) -> list[Text]:
    rows = []
    for keys, what in HELP:
        if not what:
            rows.append(Text(f" {keys}", style="bold"))
        else:
            rows.append(Text.assemble((f"   {keys:<15}", "cyan"), what))
    return [fit(row, width) for row in rows]

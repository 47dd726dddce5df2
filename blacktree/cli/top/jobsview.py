"""The list of jobs as rows. Pure."""

from datetime import datetime

from rich.text import Text

from blacktree.cli.top.paint import clean, fit, span, state_word, table, window
from blacktree.cli.top.state import Job, State

HEADS = ("JOB", "STATE", "REPOSITORY", "COMMIT", "WORKER", "WAITED", "TOOK")


def jobs_rows(state: State, height: int, now: datetime) -> list[Text]:
    """Heads, as many jobs as fit, and what there is to say of the chosen one."""
    listed = state.listed()
    notes = _notes(state, len(listed))
    if height < 6:
        notes = notes[:1]
    room = max(1, height - 1 - len(notes))
    chosen = state.job_at()
    at = next((index for index, job in enumerate(listed) if chosen is not None and job["id"] == chosen["id"]), 0)
    first = window(at, len(listed), room)
    shown = listed[first : first + room]
    rows = table(HEADS, [_cells(job, now) for job in shown], _widths(state.width, shown), state.width)
    if shown:
        rows[1 + at - first].stylize("reverse")
    rows += [fit("", state.width)] * (room - len(shown))
    return [*rows, *notes]


def _cells(job: Job, now: datetime) -> list[Text]:
    return [
        Text(clean(job["id"])),
        state_word(job["state"]),
        Text(address(job)),
        Text(clean((job["commit"] or "")[:12]), style="dim"),
        Text(clean(job["worker_id"] or "")),
        Text(waited(job, now)),
        Text(took(job, now)),
    ]


def _widths(width: int, jobs: list[Job]) -> list[int]:
    """The room of each column; the least telling ones go first where it is narrow."""
    ids = max([len(clean(job["id"])) for job in jobs] or [3])
    workers = max([6, *(len(clean(job["worker_id"] or "")) for job in jobs)])
    state = 9
    if width < 40:
        return [max(4, min(ids, width - state - 2)), min(state, width), 0, 0, 0, 0, 0]
    left = width - min(ids, 20) - state - 4
    widths = {"commit": 0, "worker": 0, "waited": 0, "took": 0}
    wanted = (("took", 6), ("waited", 6), ("worker", min(workers, 20)), ("commit", 12))
    for name, room in wanted:
        # What a job is called must stay readable.
        if left - room - 2 >= 18:
            widths[name] = room
            left -= room + 2
    return [
        min(ids, 20),
        state,
        max(0, left),
        widths["commit"],
        widths["worker"],
        widths["waited"],
        widths["took"],
    ]


def _notes(state: State, count: int) -> list[Text]:
    notes = []
    job = state.job_at()
    if job is not None:
        why = job.get("waiting") or (job.get("error") or {}).get("message") or job.get("cancel_reason") or ""
        word = "waits" if job.get("waiting") else "why"
        if why:
            notes.append(fit(Text.assemble((f" {word}: ", "bold"), clean(why)), state.width))
    if state.words or state.typing:
        of = f" {count} of {len(state.jobs)} jobs: {clean(state.words)}"
        notes.append(fit(Text(of, style="dim"), state.width))
    elif not state.jobs:
        notes.append(fit(Text(" no jobs yet: blacktree build", style="dim"), state.width))
    return notes


def address(job: Job) -> str:
    """Repository and ref for a person: the scheme says little."""
    spec = job["spec"]
    repository = clean(spec["repository"]).partition("://")[2] or clean(spec["repository"])
    ref = clean(spec.get("ref") or "")
    return f"{repository} {ref}".strip()


def waited(job: Job, now: datetime) -> str:
    """From its creation to its first start, or to its end without one."""
    return span(job["created_at"], job["started_at"] or job["finished_at"], now)


def took(job: Job, now: datetime) -> str:
    """From its start to its end."""
    return span(job["started_at"], job["finished_at"], now)

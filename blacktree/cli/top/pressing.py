"""What a key does: to the state, and what else must be done. Pure."""

from bisect import bisect_right

from msgspec.structs import replace

from blacktree.cli.top.picture import log_height
from blacktree.cli.top.state import JobPage, Log, State, Wish

_ENDED = ("succeeded", "failed", "canceled", "timed_out", "lost")
_STRETCH = 1000
_LONGEST_FILTER = 200

Pressed = tuple[State, list[Wish]]


def pressed(state: State, key: str) -> Pressed:
    """The next state, and the wishes that follow."""
    state = replace(state, message="")
    if key == "^c":
        return state, [Wish("quit")]
    if key == "^z":
        return state, [Wish("suspend")]
    if key == "^l":
        return state, [Wish("redraw")]
    if state.help:
        return replace(state, help=False), []
    if state.asked is not None:
        wishes = [state.asked] if key in ("y", "Y") else []
        return replace(state, asked=None, message="" if wishes else "left alone"), wishes
    if state.typing:
        return _typed(state, key), []
    if key == "?":
        return replace(state, help=True), []
    if state.page is not None:
        return _on_page(state, state.page, key)
    if key == "q":
        return state, [Wish("quit")]
    if key in ("tab", "back tab"):
        return replace(state, view="farm" if state.view == "jobs" else "jobs"), []
    if key in ("1", "2"):
        return replace(state, view="jobs" if key == "1" else "farm"), []
    return _on_jobs(state, key) if state.view == "jobs" else _on_farm(state, key)


def _typed(state: State, key: str) -> State:
    if key == "enter":
        return replace(state, typing=False)
    if key == "escape":
        return replace(state, typing=False, words="")
    if key == "backspace":
        return replace(state, words=state.words[:-1])
    if key == "^u":
        return replace(state, words="")
    if len(key) == 1:
        return replace(state, words=(state.words + key)[:_LONGEST_FILTER], chosen_job="")
    return state


def _on_jobs(state: State, key: str) -> Pressed:
    if key == "/":
        return replace(state, typing=True), []
    if key == "escape":
        return replace(state, words=""), []
    job = state.job_at()
    if key in ("enter", "right", "l") and job is not None:
        return replace(state, page=JobPage(id=job["id"], job=job)), [Wish("open", job["id"])]
    if key in ("c", "r"):
        return _job_wish(state, key)
    ids = [each["id"] for each in state.listed()]
    at = ids.index(job["id"]) if job is not None and job["id"] in ids else 0
    return replace(state, chosen_job=_moved(ids, at, key, state.height - 5)), []


def _on_farm(state: State, key: str) -> Pressed:
    worker = state.worker_at()
    if worker is None:
        return state, []
    if key == "d":
        return state, [Wish("undrain" if worker["state"] == "draining" else "drain", worker["id"])]
    if key in ("enter", "right", "l"):
        return replace(state, view="jobs", words=worker["id"], chosen_job=""), []
    ids = [each["id"] for each in state.workers]
    at = ids.index(worker["id"])
    return replace(state, chosen_worker=_moved(ids, at, key, state.height // 2)), []


def _moved(ids: list[str], at: int, key: str, page: int) -> str:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page, " ": page}
    steps |= {"home": -len(ids), "g": -len(ids), "end": len(ids), "G": len(ids)}
    return ids[max(0, min(at + steps.get(key, 0), len(ids) - 1))] if ids else ""


def _job_wish(state: State, key: str) -> Pressed:
    job = state.job_at()
    if job is None:
        return state, []
    done = job["state"] in _ENDED
    if key == "c" and done:
        return replace(state, message=f"job {job['id']} has ended: nothing to cancel"), []
    if key == "c":
        return replace(state, asked=Wish("cancel", job["id"])), []
    if not done:
        return replace(state, message=f"job {job['id']} has not ended: nothing to retry"), []
    return state, [Wish("retry", job["id"])]


def _on_page(state: State, page: JobPage, key: str) -> Pressed:
    if key in ("q", "escape", "left", "h", "backspace"):
        return replace(state, page=None), [Wish("close")]
    if key in ("c", "r"):
        return _job_wish(state, key)
    if key in ("w", "t"):
        changed = replace(page, wrap=not page.wrap) if key == "w" else replace(page, times=not page.times)
        return replace(state, page=changed), []
    if key in ("f", "end", "G"):
        return _resumed(state, page)
    rows = log_height(state)
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -rows, "b": -rows, "page down": rows, " ": rows}
    if key in ("home", "g"):
        return _to_the_beginning(state, page, rows)
    if key not in steps or not page.log.lines:
        return state, []
    return _scrolled(state, page, steps[key], rows)


def _resumed(state: State, page: JobPage) -> Pressed:
    if page.log.next == page.log.end:
        return replace(state, page=replace(page, anchor=None)), []
    # What was printed meanwhile is too much to read through: the page begins anew at the end.
    return replace(state, page=replace(page, anchor=None, ready=False)), [Wish("end", page.id)]


def _to_the_beginning(state: State, page: JobPage, rows: int) -> Pressed:
    if page.log.first == 1:
        return _scrolled(state, page, -len(page.log.lines), rows)
    log = Log(first=1, next=1, end=page.log.end, asking=True)
    return replace(state, page=replace(page, log=log, anchor=1)), [Wish("newer", page.id, 1)]


def _scrolled(state: State, page: JobPage, step: int, rows: int) -> Pressed:
    lines, log = page.log.lines, page.log
    seqs = [line.seq for line in lines]
    at = len(lines) - 1 if page.anchor is None else max(0, bisect_right(seqs, page.anchor) - 1)
    # At the top the first line is the first row.
    least = min(rows, len(lines)) - 1
    to = max(least, min(at + step, len(lines) - 1))
    at_end = to == len(lines) - 1 and log.next == log.end
    whole = log.first == 1 and len(lines) <= rows
    page = replace(page, anchor=None if at_end and (step > 0 or whole) else lines[to].seq)
    wishes: list[Wish] = []
    if not log.asking:
        if step < 0 and log.first > 1 and to - rows < _STRETCH // 4:
            wishes = [Wish("older", page.id, log.first)]
        elif step > 0 and log.next < log.end and len(lines) - to < _STRETCH // 4:
            wishes = [Wish("newer", page.id, log.next)]
    if wishes:
        page = replace(page, log=replace(log, asking=True))
    return replace(state, page=page), wishes

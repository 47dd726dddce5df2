"""What the farm says, put into the state. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from blacktree.cli.top.state import ACTIVE, WAITING, Job, JobPage, Line, Log, State, Step
from blacktree.cli.wording import Event, progress_text, seconds, shown, state_text

MOST_JOBS = 1000
MOST_EVENTS = 200
MOST_LINES = 4000
LONGEST_LINE = 10_000


def farm(state: State, change: Mapping[str, Any]) -> State:
    """A change of the farm, or the whole of it."""
    # After an outage jobs may have ended unheard: what is told anew takes the place of what was known.
    if change.get("whole"):
        state = replace(state, jobs={}, message="connected again" if state.lost else "")
    state = replace(state, trouble="")
    state = jobs(state, change.get("jobs", ()))
    if "workers" in change:
        state = replace(state, workers=tuple(sorted(change["workers"], key=lambda worker: str(worker["id"]))))
    return replace(state, queue=change["queue"]) if "queue" in change else state


def jobs(state: State, found: Iterable[Job]) -> State:
    """Jobs as they are now."""
    known = state.jobs | {job["id"]: job for job in found}
    if len(known) > MOST_JOBS:
        ended = [job for job in known.values() if job["state"] not in (*ACTIVE, *WAITING)]
        ended.sort(key=lambda job: str(job["created_at"]))
        for job in ended[: len(known) - MOST_JOBS]:
            del known[job["id"]]
    page = state.page
    if page is not None and page.id in known:
        page = replace(page, job=known[page.id])
    return replace(state, jobs=known, page=page)


def in_turn(found: list[Job], asked: Mapping[str, int]) -> list[Job]:
    """Whom to ask about first: those that ran when they were last heard of, then those that waited; of each kind
    whoever was asked about longest ago, by `asked`, so that where there are many nobody is passed over for ever."""
    return sorted(found, key=lambda job: (job["state"] in WAITING, asked.get(job["id"], 0)))


def lost(state: State, reason: str) -> State:
    """The farm is not heard any more."""
    return replace(state, trouble=reason, lost=state.lost + 1)


def farm_events(state: State, events: Sequence[dict[str, Any]]) -> State:
    """What happened to the farm itself."""
    return replace(state, events=(*state.events, *events)[-MOST_EVENTS:])


def opened(page: JobPage, job: Job, first: int) -> JobPage:
    """The job's page begins with event `first`."""
    steps = tuple(
        Step(
            attempt=step["attempt"],
            step=step["step"],
            name=step["name"],
            began=step.get("started_at") or "",
            cached=step["cached"],
            seconds=step["seconds"],
            ok=step["ok"],
        )
        for step in job.get("steps", ())
    )
    log = Log(first=first, next=first, end=first)
    return replace(page, job=job, steps=steps, log=log, anchor=None, ready=True, failed="")


def printed(page: JobPage, events: Sequence[Event]) -> JobPage:
    """Events of the job as they happen."""
    if not events:
        return page
    page = _told(page, events)
    log = page.log
    end = events[-1]["seq"] + 1
    if log.next != log.end or (page.anchor is not None and len(log.lines) >= MOST_LINES):
        # Somebody reads elsewhere: what comes is fetched when it is wanted.
        return replace(page, log=replace(log, end=end))
    lines = (*log.lines, *_lines(page, events))
    first = log.first
    if len(lines) > MOST_LINES and page.anchor is None:
        lines = lines[-MOST_LINES // 2 :]
        first = lines[0].seq
    return replace(page, log=replace(log, lines=lines, first=first, next=end, end=end))


def fetched(page: JobPage, events: Sequence[Event], first: int) -> JobPage:
    """A stretch that was asked for, from event `first` on: it goes before or behind what is there."""
    log = replace(page.log, asking=False)
    lines = tuple(_lines(page, events))
    next_seq = events[-1]["seq"] + 1 if events else first
    if first < log.first <= next_seq:
        both = (*(line for line in lines if line.seq < log.first), *log.lines)
        log = replace(log, lines=both, first=first)
        if len(both) > 2 * MOST_LINES:
            log = replace(log, lines=both[:MOST_LINES], next=both[MOST_LINES].seq)
    elif log.first <= first <= log.next < next_seq:
        both = (*log.lines, *(line for line in lines if line.seq >= log.next))
        log = replace(log, lines=both, next=next_seq, end=max(log.end, next_seq))
        if len(both) > 2 * MOST_LINES:
            log = replace(log, lines=both[-MOST_LINES:], first=both[-MOST_LINES].seq)
    return replace(page, log=log)


def ended(page: JobPage, job: Job) -> JobPage:
    """The job has ended; nothing more comes."""
    return replace(page, job=job)


def _told(page: JobPage, events: Sequence[Event]) -> JobPage:
    steps = {(step.attempt, step.step): step for step in page.steps}
    job = page.job
    for event in events:
        key = (event["attempt"], event.get("step", ""))
        match event["type"]:
            case "step_started":
                steps = {each: step for each, step in steps.items() if each[0] == event["attempt"]}
                steps[key] = Step(attempt=key[0], step=key[1], name=event["name"], began=event["time"])
            case "step_finished":
                step = steps.get(key) or Step(attempt=key[0], step=key[1], name=event["name"])
                taken = {"seconds": event["seconds"], "cached": bool(event["cached"]), "ok": bool(event["ok"])}
                steps[key] = replace(step, progress="", **taken)
            case "progress" if key in steps:
                steps[key] = replace(steps[key], progress=progress_text(event))
            case "state":
                job = {**job, "state": event["to"]}
    return replace(page, steps=tuple(steps.values()), job=job)


def _lines(page: JobPage, events: Iterable[Event]) -> Iterable[Line]:
    for event in events:
        seq, time = event["seq"], event["time"]
        match event["type"]:
            case "log":
                yield Line(seq, time, "log", shown(event["line"], terminal=True)[:LONGEST_LINE])
            case "step_started":
                yield Line(seq, time, "head", f"==> {event['name']}")
            case "step_finished":
                if event.get("cached"):
                    mark = "cached"
                else:
                    mark = f"{'done' if event.get('ok') else 'FAILED'} in {seconds(event['seconds'])}"
                kind = "head" if event.get("ok") or event.get("cached") else "bad"
                yield Line(seq, time, kind, f"==> {event['name']}: {mark}")
            case "state":
                yield Line(seq, time, "state", f"==> {state_text(event)}")
            case "notice":
                yield Line(seq, time, "note", f"==> note: {event['text']}")

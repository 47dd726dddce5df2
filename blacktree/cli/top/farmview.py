"""The farm as rows: queue, workers with their slots, the last events. Pure."""

from datetime import datetime

from rich.text import Text

from blacktree.cli.top.paint import clean, fit, span, state_word, table, window
from blacktree.cli.top.state import State, Worker

HEADS = ("WORKER", "STATE", "SLOTS", "POOL", "DISK", "SEEN", "NOW")


def farm_rows(state: State, height: int, now: datetime) -> list[Text]:
    """As much of each part as fits."""
    width = state.width
    rows = [fit(_broker(state), width), fit(_depth(state), width)]
    count = len(state.workers)
    room = max(1, min(count, height - 3 if height < 8 else (height - 4) * 2 // 3))
    chosen = state.worker_at()
    at = next((i for i, each in enumerate(state.workers) if chosen is not None and each["id"] == chosen["id"]), 0)
    first = window(at, count, room)
    shown = state.workers[first : first + room]
    rows += table(HEADS, [_cells(each, now) for each in shown], _widths(width, shown), width)
    if shown:
        rows[3 + at - first].stylize("reverse")
    else:
        rows.append(fit(Text(" no workers; start one with `blacktree worker`", style="dim"), width))
    if count > len(shown):
        rows.append(fit(Text(f" {count - len(shown)} more", style="dim"), width))
    rest = height - len(rows) - 1
    if rest > 0:
        rows.append(fit(Text("EVENTS", style="bold"), width))
        rows += [fit(_event(event), width) for event in state.events[-rest:]]
    return rows


def _broker(state: State) -> Text:
    queue = state.queue
    if not queue:
        return Text(" broker ?", style="dim")
    kind = clean(queue.get("kind", ""))
    if queue.get("connected"):
        return Text.assemble((" broker ", "bold"), f"{kind} ", ("connected", "green"))
    return Text.assemble((" broker ", "bold"), f"{kind} ", (f"away: {clean(queue.get('reason', ''))}", "bold red"))


def _depth(state: State) -> Text:
    slots = sum(worker["slots"] for worker in state.workers if worker["state"] != "dead")
    busy = sum(worker["busy"] for worker in state.workers if worker["state"] != "dead")
    pools = state.queue.get("queued", {})
    text = Text.assemble((" waiting ", "bold"), f"{sum(pools.values())}", f"  slots {busy}/{slots}")
    if len(pools) > 1:
        text.append("  " + "  ".join(f"{clean(pool)} {number}" for pool, number in sorted(pools.items())), style="dim")
    return text


def _cells(worker: Worker, now: datetime) -> list[Text]:
    disk = worker["free_disk_bytes"]
    doing = worker["refusal"] or " ".join(worker["jobs"])
    return [
        Text(clean(worker["id"])),
        state_word(worker["state"]),
        _slots(worker),
        Text(clean(worker["pool"])),
        Text(f"{disk / 1e9:.0f}G" if disk else ""),
        Text(span(worker["last_seen_at"], None, now)),
        Text(clean(doing), style="yellow" if worker["refusal"] else ""),
    ]


def _slots(worker: Worker) -> Text:
    busy, slots = worker["busy"], worker["slots"]
    if slots > 6:
        return Text(f"{busy}/{slots}")
    return Text.assemble(("■" * min(busy, slots), "cyan"), ("□" * max(0, slots - busy), "dim"), f" {busy}/{slots}")


def _widths(width: int, workers: tuple[Worker, ...]) -> list[int]:
    ids = min(24, max([6, *(len(clean(each["id"])) for each in workers)]))
    if width < 40:
        return [max(4, min(ids, width - 12)), 8, 0, 0, 0, 0, 0]
    pools = min(16, max([4, *(len(clean(each["pool"])) for each in workers)]))
    widths = [ids, 8, 10, 0, 0, 0, 0]
    left = width - ids - 8 - 10 - 6
    for column, room in ((3, pools), (5, 4), (4, 6)):
        if left - room - 2 >= 10 or (left >= room and column == 3):
            widths[column] = room
            left -= room + 2
    widths[6] = max(0, left)
    return widths


def _event(event: dict[str, object]) -> Text:
    time = clean(event.get("time", ""))[11:19]
    return Text.assemble((f" {time} ", "dim"), f"{clean(event.get('type', '')):<16} ", clean(event.get("text", "")))

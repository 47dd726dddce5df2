"""A state of `top` to draw, with as much of everything as wanted."""

from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from blacktree.cli.top import hearing
from blacktree.cli.top.picture import picture
from blacktree.cli.top.state import JobPage, State

NOW = datetime(2026, 1, 1, 12, 10, tzinfo=UTC)
CREATED = "2026-01-01T12:00:00Z"


def a_job(id: str = "j1", state: str = "running", **keys: Any) -> dict[str, Any]:
    started = None if state == "queued" else "2026-01-01T12:00:30Z"
    job = {
        "id": id,
        "state": state,
        "spec": {"repository": "https://git.example/team/app.git", "ref": "main", "image": "app", "pool": "default"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "worker_id": None if state == "queued" else "w1",
        "created_at": CREATED,
        "started_at": started,
        "finished_at": None if state in ("queued", "running", "canceling") else "2026-01-01T12:05:00Z",
        "waiting": "all 4 slots are busy, 3rd in line" if state == "queued" else None,
        "attempt": 1,
        "steps": [],
        "error": None,
        "image": None,
    }
    return job | keys


def a_worker(id: str = "w1", **keys: Any) -> dict[str, Any]:
    worker = {
        "id": id,
        "state": "free",
        "pool": "default",
        "slots": 4,
        "busy": 1,
        "jobs": ["j1"],
        "refusal": "",
        "free_disk_bytes": 78_000_000_000,
        "last_seen_at": "2026-01-01T12:09:58Z",
    }
    return worker | keys


QUEUE = {"kind": "rabbitmq", "connected": True, "reason": "", "queued": {"default": 2, "arm": 1}}


def a_farm(*jobs: dict[str, Any], **keys: Any) -> State:
    change = {"whole": True, "jobs": jobs, "workers": [a_worker("w2", state="draining"), a_worker()], "queue": QUEUE}
    state = hearing.farm(State(server="http://farm.example:8080", **keys), change)
    event = {"seq": 1, "time": "2026-01-01T12:00:00Z", "type": "worker_joined", "text": "worker w1 joined"}
    return hearing.farm_events(state, [event])


def log_events(first: int, count: int, *, attempt: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "seq": seq,
            "time": CREATED,
            "attempt": attempt,
            "type": "log",
            "step": "s",
            "stream": "o",
            "line": f"line {seq}",
        }
        for seq in range(first, first + count)
    ]


def a_page(count: int = 100, *, first: int = 1, **keys: Any) -> JobPage:
    page = hearing.opened(JobPage(id="j1"), a_job(), first)
    begun = {"seq": first, "time": CREATED, "attempt": 1, "type": "step_started", "step": "s", "name": "RUN make"}
    page = hearing.printed(page, [begun, *log_events(first + 1, count - 1)])
    return type(page)(**({name: getattr(page, name) for name in page.__struct_fields__} | keys))


def drawn(state: State) -> list[str]:
    """The screen as plain words."""
    return [row.plain for row in picture(state, NOW)]


def rows_of(state: State) -> list[Text]:
    return picture(state, NOW)

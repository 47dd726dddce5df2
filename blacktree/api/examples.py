"""Examples for the API's descriptions, by the names of their shapes."""

from typing import Any

_TIME = "2026-03-01T12:00:00.000000Z"
_COMMIT = "8f2c1f9e0c5b4a7d9e3f6b1a2c4d5e6f7a8b9c0d"

SPEC: dict[str, Any] = {"repository": "https://github.com/team/app.git", "ref": "main", "image": "team/app"}

_RUN = {
    "name": "web",
    "ports": [{"container": 8000, "host": 80, "address": "0.0.0.0"}],
    "health": {"http": {"port": 8000, "path": "/healthz"}},
}
_WORKER = {
    "id": "w1",
    "state": "busy",
    "pool": "default",
    "labels": {},
    "platform": "linux/amd64",
    "platforms": ["linux/amd64"],
    "emulated": [],
    "version": "0.1.0",
    "address": "10.0.0.7:6000",
    "slots": 4,
    "busy": 1,
    "jobs": ["j1"],
    "refusal": "",
    "free_disk_bytes": 80_000_000_000,
    "engine": "28.0",
    "warm": ["github.com/team/app"],
    "registered_at": _TIME,
    "last_seen_at": _TIME,
}
_EVENTS = [
    {"seq": 1, "time": _TIME, "attempt": 0, "type": "state", "from": None, "to": "queued", "reason": ""},
    {"seq": 2, "time": _TIME, "attempt": 1, "type": "step_started", "step": "b1", "name": "RUN make"},
    {"seq": 3, "time": _TIME, "attempt": 1, "type": "log", "step": "b1", "stream": "out", "line": "cc -o app app.c"},
]

EXAMPLES: dict[str, Any] = {
    "JobSpec": SPEC,
    "RunSpec": _RUN,
    "DeployImage": {"image": "registry.example/team/app:1.4", "run": _RUN},
    "DeployJob": {**SPEC, "run": _RUN},
    "Job": {
        "id": "0195a3c47c1f-3f0c",
        "state": "succeeded",
        "spec": SPEC,
        "attempt": 1,
        "tries": 0,
        "attempts": [
            {
                "attempt": 1,
                "worker_id": "w1",
                "assigned_at": _TIME,
                "started_at": _TIME,
                "finished_at": _TIME,
                "outcome": "succeeded",
                "error": None,
            }
        ],
        "worker_id": "w1",
        "commit": _COMMIT,
        "image": {"reference": f"team/app:{_COMMIT[:12]}", "id": "sha256:" + "0" * 64, "digest": None},
        "waiting": None,
        "error": None,
        "created_at": _TIME,
        "queued_at": _TIME,
        "started_at": _TIME,
        "finished_at": _TIME,
        "steps": [
            {"step": "b1", "name": "RUN make", "attempt": 1, "cached": False, "seconds": 4.2, "ok": True},
        ],
        "retry_of": None,
        "origin": None,
        "part_of": None,
        "parts": [],
    },
    "EventPage": {"events": _EVENTS, "next_seq": 4},
    "Hits": {"hits": [3], "next_seq": None},
    "WorkerView": _WORKER,
    "Source": {
        "name": "app",
        "repository": "https://github.com/team/app.git",
        "branches": ["main"],
        "pull_requests": True,
    },
    "SecretBody": {"value": "a value", "repositories": ["github.com/team/*"]},
    "Cancel": {"reason": "superseded"},
    "Drain": {"drain": True},
    "Problem": {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "spec.dockerfil: unknown field `dockerfil`",
        "code": "invalid",
        "advice": "did you mean `dockerfile`?",
        "path": "spec.dockerfil",
    },
    "RpcError": {"code": -32001, "message": "no job j1", "data": {"code": "not_found"}},
}

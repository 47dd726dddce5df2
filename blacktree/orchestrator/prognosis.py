"""What the state that a worker reports of one replica means for its version."""

from datetime import datetime, timedelta

from blacktree.deployment import Placement
from blacktree.rpc.replica import ReplicaState
from blacktree.runspec import RunSpec

MOST_STARTS = 3
"""A container that has ended so often before it was ever healthy will not come up."""
ENGINE_LOST = "engine_lost"
"""Its worker's engine was restarted: no fault of the container."""
PATIENCE_SECONDS = 1800.0
"""How long pulling an image may take, beyond the time that a start may take."""


def broke(place: Placement, state: ReplicaState) -> bool:
    """Whether a replica that was healthy no longer is, by its own fault."""
    if place.healthy_at is None or state.code == ENGINE_LOST:
        return False
    return state.state in ("unhealthy", "backing_off", "failed") or state.restarts > place.restarts


def hopeless(state: ReplicaState) -> bool:
    """Whether a replica that starts will not come up."""
    given_up = state.state in ("failed", "unhealthy") or state.oom_killed
    ends = state.restarts + (state.state == "backing_off" and state.code != ENGINE_LOST)
    return given_up or (state.state != "healthy" and ends >= MOST_STARTS)


def late(place: Placement, state: ReplicaState, run: RunSpec, now: datetime) -> bool:
    """Whether a replica that starts has not become healthy in time."""
    patience = timedelta(seconds=PATIENCE_SECONDS + run.health.start_seconds)
    return state.state != "healthy" and now - place.placed_at > patience


def why(state: ReplicaState) -> tuple[str, str]:
    """A code and a sentence for a replica that broke."""
    if state.oom_killed:
        return "oom_killed", state.reason or "out of memory: raise `memory_bytes`, or let it use less"
    if state.reason:
        return state.code or state.state, state.reason
    if state.exit_code is not None:
        return state.code or "exited", f"it ended with exit code {state.exit_code}"
    return state.code or state.state, f"it is {state.state.replace('_', ' ')}"

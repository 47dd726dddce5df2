"""What becomes of one replica: pure decisions. Times are seconds on one clock, given by the caller."""

import msgspec

from blacktree.rpc.replica import Phase
from blacktree.runspec import Health, Restart

# Without a check: a container that has run for so long counts as healthy.
RUNNING_SECONDS = 1.0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """Why a try ended. `fatal`: another one cannot help. `free`: it was not the container's fault (the engine was
    restarted), so it costs nothing of the budget."""

    code: str
    reason: str
    exit_code: int | None = None
    oom_killed: bool = False
    fatal: bool = False
    free: bool = False


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica stands. `tries`: when its restarts of late began, on the caller's clock. `failures`: checks that
    failed in a row. `next_at`: when the next container is due, in `backing_off`."""

    phase: Phase = "pulling"
    began: float = 0.0
    failures: int = 0
    was_healthy: bool = False
    restarts: int = 0
    streak: int = 0
    tries: tuple[float, ...] = ()
    next_at: float = 0.0
    code: str = ""
    reason: str = ""


def pulling(before: Progress) -> Progress:
    """A new try."""
    return msgspec.structs.replace(before, phase="pulling", code="", reason="")


def started(before: Progress, now: float) -> Progress:
    """Its container runs."""
    return msgspec.structs.replace(
        before, phase="starting", began=now, failures=0, was_healthy=False, code="", reason=""
    )


def checked(before: Progress, now: float, health: Health, *, ok: bool, why: str = "") -> tuple[Progress, Ended | None]:
    """A check was made (without any: `ok` means that it ran until now). Answers the new state, and why the container
    must go, if it must."""
    if ok:
        # Healthy again after a long good time: what came before no longer slows the next restart.
        return msgspec.structs.replace(before, phase="healthy", failures=0, was_healthy=True, code="", reason=""), None
    failures = before.failures + 1
    after = msgspec.structs.replace(before, failures=failures)
    if before.was_healthy:
        if failures < health.retries:
            return after, None
        reason = f"it was healthy, then {failures} checks in a row failed: {why}"
        return _unhealthy(after, reason), Ended(code="unhealthy", reason=reason)
    if now - before.began < health.start_seconds:
        return msgspec.structs.replace(after, reason=f"not healthy yet: {why}"), None
    reason = f"it did not become healthy in {health.start_seconds:g} s: {why}"
    return _unhealthy(after, reason), Ended(code="unhealthy", reason=reason)


def _unhealthy(before: Progress, reason: str) -> Progress:
    return msgspec.structs.replace(before, phase="unhealthy", code="unhealthy", reason=reason)


def ended(before: Progress, now: float, restart: Restart, end: Ended, jitter: float) -> Progress:
    """A try ended: back off, or give up. `jitter` is from [0, 1)."""
    if end.fatal:
        return _failed(before, end.code, end.reason)
    clean = end.code == "exited" and end.exit_code == 0
    if restart.on_exit == "never" and not end.free:
        return _failed(before, end.code, f"{end.reason}; `restart.on_exit` is `never`")
    if restart.on_exit == "on-failure" and clean:
        return _failed(before, end.code, f"{end.reason}; `restart.on_exit` is `on-failure`")
    if end.free:
        return msgspec.structs.replace(
            before, phase="backing_off", next_at=now + restart.first_seconds, code=end.code, reason=end.reason
        )
    tries = tuple(each for each in before.tries if each > now - restart.window_seconds)
    if len(tries) >= restart.most:
        return _failed(
            before,
            "budget_used_up",
            f"{end.reason}; {len(tries)} restarts in {restart.window_seconds:g} s are all that `restart.most` allows",
        )
    # A container that served for longer than the longest pause begins a new row.
    lasted = before.was_healthy and now - before.began > restart.limit_seconds
    streak = 0 if lasted else before.streak
    wait = min(restart.limit_seconds, restart.first_seconds * 2.0 ** min(streak, 60))
    return msgspec.structs.replace(
        before,
        phase="backing_off",
        restarts=before.restarts + 1,
        streak=streak + 1,
        tries=(*tries, now),
        next_at=now + wait * (1 - jitter / 4),
        code=end.code,
        reason=end.reason,
    )


def _failed(before: Progress, code: str, reason: str) -> Progress:
    return msgspec.structs.replace(before, phase="failed", code=code, reason=reason)


def exit_end(exit_code: int | None, oom_killed: bool, error: str, memory_bytes: int) -> Ended:
    """The end of a container that ended by itself, in words."""
    if oom_killed:
        reason = f"out of memory: it used more than `memory_bytes` ({memory_bytes})"
        return Ended(code="oom_killed", reason=reason, exit_code=exit_code, oom_killed=True)
    reason = f"the container exited with code {exit_code}" + (f": {error}" if error else "")
    return Ended(code="exited", reason=reason, exit_code=exit_code)

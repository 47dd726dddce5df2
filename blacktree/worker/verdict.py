"""How a build ended, as an outcome: from what was ordered, and from the exception that came out. Pure."""

from collections.abc import Iterator

from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.job import Failure, Outcome
from blacktree.providers.base import Unproven
from blacktree.services.reliability.diagnose import diagnose

# What an ordered end is called when it is reached; without an order it was the build's own deadline.
ENDS = {"": "timed_out", "timed_out": "timed_out", "canceled": "canceled", "shutdown": "returned", "fenced": "returned"}


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def chief(error: BaseException) -> BaseException:
    """Of everything that went wrong at once, what decides: no proof, then no engine, then a failure, then the rest."""
    found = list(leaves(error))
    for kind in (Unproven, EngineLost, StepFailed, BlacktreeError):
        for each in found:
            if isinstance(each, kind):
                return each
    return found[0]


def stopped(why: str, timeout_seconds: float, *, proven: bool = True) -> Outcome:
    """The outcome of a build that was stopped."""
    state = ENDS.get(why, "returned")
    failure = None
    if state == "timed_out":
        failure = Failure(
            code="timed_out",
            message=f"not done after {timeout_seconds:g} s",
            advice="raise `timeout_seconds` (--timeout), or make the build quicker",
        )
    return Outcome(state=state, error=failure, proven=proven)


def failure(error: BaseException, step: str, last_lines: list[str]) -> Failure:
    """Why a build failed. `step` is the one that was running."""
    if isinstance(error, BlacktreeError):
        own, exit_code = (error.step, error.exit_code) if isinstance(error, StepFailed) else ("", None)
        return Failure(
            code=error.code,
            message=error.message,
            advice=error.advice or _guess(last_lines, exit_code),
            step=own or step or None,
            retryable=error.again,
            exit_code=exit_code,
            last_lines=last_lines,
        )
    if isinstance(error, Unproven):
        return Failure(
            code="unproven",
            message=f"the build failed, and something of it may still run: {error.what}",
            advice="see the worker's log; it takes no builds until its engine is clean",
            step=step or None,
            retryable=True,
            last_lines=last_lines,
        )
    return Failure(
        code="internal",
        message=f"the step `{step}` broke: {type(error).__name__}: {error}",
        advice="this is a fault of the step or of Blacktree, not of the build; the worker's log has the traceback",
        step=step or None,
        last_lines=last_lines,
    )


def _guess(last_lines: list[str], exit_code: int | None) -> str:
    diagnosis = diagnose(last_lines, exit_code)
    return f"most likely {diagnosis.cause}: {diagnosis.advice}" if diagnosis else ""

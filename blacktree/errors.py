"""One tree of errors, named by what the reader can do next.

Every error has a stable `code` (lower_snake_case, for programs), a `message` (for a person), an `advice`
(what to do next, may be empty) and `again`: whether the same request can succeed later without a change.
A build that fails is not an exception but an `Outcome` (see `blacktree.job`).
"""

from typing import Any, ClassVar


class BlacktreeError(Exception):
    """The root; raised only through its children."""

    default_code: ClassVar[str] = "error"
    default_again: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        advice: str = "",
        again: bool | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.advice = advice
        self.again = self.default_again if again is None else again
        self.data = data or {}

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message


class BadRequest(BlacktreeError):
    """The caller's fault; `path` names the offending place, e.g. `spec.build_args.X`."""

    default_code = "bad_request"

    def __init__(self, message: str, *, path: str = "", code: str = "", advice: str = "") -> None:
        super().__init__(message, code=code, advice=advice, data={"path": path} if path else None)
        self.path = path


class TooLarge(BadRequest):
    """Something that arrived is over a limit."""

    default_code = "too_large"


class NotFound(BlacktreeError):
    """No such thing is known here."""

    default_code = "not_found"


class Conflict(BlacktreeError):
    """It clashes with what is on record, e.g. an idempotency key used with another spec."""

    default_code = "conflict"


class NotAllowed(BlacktreeError):
    """The caller may not do this: missing or wrong token, wrong role, refused worker."""

    default_code = "not_allowed"


class Unavailable(BlacktreeError):
    """Not now: try again; `retry_after_seconds` says when, if known."""

    default_code = "unavailable"
    default_again = True

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        advice: str = "",
        again: bool | None = None,
        retry_after_seconds: float = 5.0,
    ) -> None:
        super().__init__(message, code=code, advice=advice, again=again, data={"retry_after": retry_after_seconds})
        self.retry_after_seconds = retry_after_seconds


class BrokerLost(Unavailable):
    """The broker's connection is gone; whatever was not confirmed is not published."""

    default_code = "broker_lost"


class PeerLost(Unavailable):
    """The other daemon did not answer: refused, reset, or silent beyond the deadline."""

    default_code = "peer_lost"


class WorkerLost(Unavailable):
    """A worker's lease ran out."""

    default_code = "worker_lost"


class EngineLost(Unavailable):
    """The container engine does not answer or went away in the middle."""

    default_code = "engine_lost"


class StorageFailed(Unavailable):
    """The state directory cannot take a write: disk full, read-only, input/output error."""

    default_code = "storage_failed"


class StepFailed(BlacktreeError):
    """A step of a build could not be carried out; `again` says whether a later attempt can.

    `step` is the step's name; `retry_after_seconds` is when the other side said to come again (0: it did not).
    """

    default_code = "step_failed"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        advice: str = "",
        again: bool | None = None,
        step: str = "",
        exit_code: int | None = None,
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message, code=code, advice=advice, again=again)
        self.step = step
        self.exit_code = exit_code
        self.retry_after_seconds = retry_after_seconds


class Broken(BlacktreeError):
    """Our fault: an invariant does not hold. Never caught, always loud."""

    default_code = "broken"

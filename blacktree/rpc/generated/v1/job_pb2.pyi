from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttemptName(_message.Message):
    __slots__ = ("job_id", "attempt", "token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt: int
    token: str
    def __init__(self, job_id: _Optional[str] = ..., attempt: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class StateChanged(_message.Message):
    __slots__ = ("previous", "to", "reason")
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    previous: str
    to: str
    reason: str
    def __init__(self, previous: _Optional[str] = ..., to: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StepStarted(_message.Message):
    __slots__ = ("step", "name")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    step: str
    name: str
    def __init__(self, step: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class StepFinished(_message.Message):
    __slots__ = ("step", "name", "cached", "seconds", "ok")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    step: str
    name: str
    cached: bool
    seconds: float
    ok: bool
    def __init__(self, step: _Optional[str] = ..., name: _Optional[str] = ..., cached: _Optional[bool] = ..., seconds: _Optional[float] = ..., ok: _Optional[bool] = ...) -> None: ...

class Lines(_message.Message):
    __slots__ = ("step", "stream", "text", "partial")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    step: str
    stream: str
    text: str
    partial: bool
    def __init__(self, step: _Optional[str] = ..., stream: _Optional[str] = ..., text: _Optional[str] = ..., partial: _Optional[bool] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "current", "total", "unit")
    STEP_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    step: str
    current: int
    total: int
    unit: str
    def __init__(self, step: _Optional[str] = ..., current: _Optional[int] = ..., total: _Optional[int] = ..., unit: _Optional[str] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("code", "text", "step")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    step: str
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., step: _Optional[str] = ...) -> None: ...

class CommitResolved(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: str
    def __init__(self, commit: _Optional[str] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("time_us", "attempt", "state", "step_started", "step_finished", "lines", "progress", "notice", "commit")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_STARTED_FIELD_NUMBER: _ClassVar[int]
    STEP_FINISHED_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    attempt: int
    state: StateChanged
    step_started: StepStarted
    step_finished: StepFinished
    lines: Lines
    progress: Progress
    notice: Notice
    commit: CommitResolved
    def __init__(self, time_us: _Optional[int] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[StateChanged, _Mapping]] = ..., step_started: _Optional[_Union[StepStarted, _Mapping]] = ..., step_finished: _Optional[_Union[StepFinished, _Mapping]] = ..., lines: _Optional[_Union[Lines, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., notice: _Optional[_Union[Notice, _Mapping]] = ..., commit: _Optional[_Union[CommitResolved, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "advice", "step", "retryable", "exit_code", "last_lines")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    LAST_LINES_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    advice: str
    step: str
    retryable: bool
    exit_code: int
    last_lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., advice: _Optional[str] = ..., step: _Optional[str] = ..., retryable: _Optional[bool] = ..., exit_code: _Optional[int] = ..., last_lines: _Optional[_Iterable[str]] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("reference", "id", "digest", "references", "withheld")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    reference: str
    id: str
    digest: str
    references: _containers.RepeatedScalarFieldContainer[str]
    withheld: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reference: _Optional[str] = ..., id: _Optional[str] = ..., digest: _Optional[str] = ..., references: _Optional[_Iterable[str]] = ..., withheld: _Optional[_Iterable[str]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("state", "image", "error", "proven")
    STATE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROVEN_FIELD_NUMBER: _ClassVar[int]
    state: str
    image: Image
    error: Failure
    proven: bool
    def __init__(self, state: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., error: _Optional[_Union[Failure, _Mapping]] = ..., proven: _Optional[bool] = ...) -> None: ...

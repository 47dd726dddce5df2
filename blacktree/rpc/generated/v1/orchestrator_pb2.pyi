from blacktree.rpc.generated.v1 import job_pb2 as _job_pb2
from blacktree.rpc.generated.v1 import replica_pb2 as _replica_pb2
from blacktree.rpc.generated.v1 import worker_pb2 as _worker_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterRequest(_message.Message):
    __slots__ = ("worker_id", "incarnation", "secret", "protocol", "version", "address", "pool", "labels", "platform", "status", "running", "capabilities")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    incarnation: str
    secret: str
    protocol: int
    version: str
    address: str
    pool: str
    labels: _containers.ScalarMap[str, str]
    platform: str
    status: _worker_pb2.WorkerStatus
    running: _containers.RepeatedCompositeFieldContainer[_job_pb2.AttemptName]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., secret: _Optional[str] = ..., protocol: _Optional[int] = ..., version: _Optional[str] = ..., address: _Optional[str] = ..., pool: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., platform: _Optional[str] = ..., status: _Optional[_Union[_worker_pb2.WorkerStatus, _Mapping]] = ..., running: _Optional[_Iterable[_Union[_job_pb2.AttemptName, _Mapping]]] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("name", "next_batch", "stop", "publish_seconds", "withheld")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEXT_BATCH_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    name: _job_pb2.AttemptName
    next_batch: int
    stop: str
    publish_seconds: float
    withheld: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[_Union[_job_pb2.AttemptName, _Mapping]] = ..., next_batch: _Optional[int] = ..., stop: _Optional[str] = ..., publish_seconds: _Optional[float] = ..., withheld: _Optional[_Iterable[str]] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("farm_id", "lease_seconds", "verdicts", "drain")
    FARM_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    farm_id: str
    lease_seconds: float
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    drain: bool
    def __init__(self, farm_id: _Optional[str] = ..., lease_seconds: _Optional[float] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., drain: _Optional[bool] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("number", "records", "commit", "outcome")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    number: int
    records: _containers.RepeatedCompositeFieldContainer[_job_pb2.Record]
    commit: str
    outcome: _job_pb2.Outcome
    def __init__(self, number: _Optional[int] = ..., records: _Optional[_Iterable[_Union[_job_pb2.Record, _Mapping]]] = ..., commit: _Optional[str] = ..., outcome: _Optional[_Union[_job_pb2.Outcome, _Mapping]] = ...) -> None: ...

class AttemptReport(_message.Message):
    __slots__ = ("name", "batches", "publish", "references")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    name: _job_pb2.AttemptName
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    publish: bool
    references: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[_Union[_job_pb2.AttemptName, _Mapping]] = ..., batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ..., publish: _Optional[bool] = ..., references: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("worker_id", "incarnation", "status", "attempts")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    incarnation: str
    status: _worker_pb2.WorkerStatus
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptReport]
    def __init__(self, worker_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., status: _Optional[_Union[_worker_pb2.WorkerStatus, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[AttemptReport, _Mapping]]] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("known", "verdicts", "drain")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    drain: bool
    def __init__(self, known: _Optional[bool] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., drain: _Optional[bool] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("worker_id", "incarnation")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    incarnation: str
    def __init__(self, worker_id: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

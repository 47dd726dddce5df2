from blacktree.rpc.generated.v1 import job_pb2 as _job_pb2
from blacktree.rpc.generated.v1 import replica_pb2 as _replica_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Assignment(_message.Message):
    __slots__ = ("name", "spec_json", "commit", "allow_local_sources", "secrets", "logins", "clone_token", "untrusted", "cache_from", "traceparent", "part", "parts")
    class SecretsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class LoginsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _replica_pb2.RegistryLogin
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_replica_pb2.RegistryLogin, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_LOCAL_SOURCES_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    LOGINS_FIELD_NUMBER: _ClassVar[int]
    CLONE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNTRUSTED_FIELD_NUMBER: _ClassVar[int]
    CACHE_FROM_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    name: _job_pb2.AttemptName
    spec_json: bytes
    commit: str
    allow_local_sources: bool
    secrets: _containers.ScalarMap[str, bytes]
    logins: _containers.MessageMap[str, _replica_pb2.RegistryLogin]
    clone_token: str
    untrusted: bool
    cache_from: _containers.RepeatedScalarFieldContainer[str]
    traceparent: str
    part: bool
    parts: _containers.RepeatedCompositeFieldContainer[PartImage]
    def __init__(self, name: _Optional[_Union[_job_pb2.AttemptName, _Mapping]] = ..., spec_json: _Optional[bytes] = ..., commit: _Optional[str] = ..., allow_local_sources: _Optional[bool] = ..., secrets: _Optional[_Mapping[str, bytes]] = ..., logins: _Optional[_Mapping[str, _replica_pb2.RegistryLogin]] = ..., clone_token: _Optional[str] = ..., untrusted: _Optional[bool] = ..., cache_from: _Optional[_Iterable[str]] = ..., traceparent: _Optional[str] = ..., part: _Optional[bool] = ..., parts: _Optional[_Iterable[_Union[PartImage, _Mapping]]] = ...) -> None: ...

class PartImage(_message.Message):
    __slots__ = ("platform", "digest", "tag")
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    platform: str
    digest: str
    tag: str
    def __init__(self, platform: _Optional[str] = ..., digest: _Optional[str] = ..., tag: _Optional[str] = ...) -> None: ...

class RunJobRequest(_message.Message):
    __slots__ = ("assignments",)
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("accepted", "code", "reason")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    code: str
    reason: str
    def __init__(self, accepted: _Optional[bool] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RunJobReply(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ...) -> None: ...

class StopOrder(_message.Message):
    __slots__ = ("name", "why", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: _job_pb2.AttemptName
    why: str
    reason: str
    def __init__(self, name: _Optional[_Union[_job_pb2.AttemptName, _Mapping]] = ..., why: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StopJobRequest(_message.Message):
    __slots__ = ("orders",)
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[StopOrder]
    def __init__(self, orders: _Optional[_Iterable[_Union[StopOrder, _Mapping]]] = ...) -> None: ...

class StopAnswer(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: _Optional[bool] = ...) -> None: ...

class StopJobReply(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[StopAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[StopAnswer, _Mapping]]] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("slots", "busy", "refusal", "draining", "free_disk_bytes", "engine", "warm", "platforms", "emulated")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    FREE_DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    PLATFORMS_FIELD_NUMBER: _ClassVar[int]
    EMULATED_FIELD_NUMBER: _ClassVar[int]
    slots: int
    busy: int
    refusal: str
    draining: bool
    free_disk_bytes: int
    engine: str
    warm: _containers.RepeatedScalarFieldContainer[str]
    platforms: _containers.RepeatedScalarFieldContainer[str]
    emulated: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, slots: _Optional[int] = ..., busy: _Optional[int] = ..., refusal: _Optional[str] = ..., draining: _Optional[bool] = ..., free_disk_bytes: _Optional[int] = ..., engine: _Optional[str] = ..., warm: _Optional[_Iterable[str]] = ..., platforms: _Optional[_Iterable[str]] = ..., emulated: _Optional[_Iterable[str]] = ...) -> None: ...

class PingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PingReply(_message.Message):
    __slots__ = ("worker_id", "incarnation", "status")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    incarnation: str
    status: WorkerStatus
    def __init__(self, worker_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., status: _Optional[_Union[WorkerStatus, _Mapping]] = ...) -> None: ...

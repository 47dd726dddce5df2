from blacktree.rpc.generated.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplicaName(_message.Message):
    __slots__ = ("deployment", "version", "index")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    version: int
    index: int
    def __init__(self, deployment: _Optional[str] = ..., version: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class RegistryLogin(_message.Message):
    __slots__ = ("username", "password")
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    username: str
    password: str
    def __init__(self, username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...

class ReplicaPlan(_message.Message):
    __slots__ = ("image", "pull", "run_json", "logins", "secrets")
    class LoginsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: RegistryLogin
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[RegistryLogin, _Mapping]] = ...) -> None: ...
    class SecretsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PULL_FIELD_NUMBER: _ClassVar[int]
    RUN_JSON_FIELD_NUMBER: _ClassVar[int]
    LOGINS_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    image: str
    pull: bool
    run_json: bytes
    logins: _containers.MessageMap[str, RegistryLogin]
    secrets: _containers.ScalarMap[str, bytes]
    def __init__(self, image: _Optional[str] = ..., pull: _Optional[bool] = ..., run_json: _Optional[bytes] = ..., logins: _Optional[_Mapping[str, RegistryLogin]] = ..., secrets: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class ReplicaOrder(_message.Message):
    __slots__ = ("name", "generation", "plan", "serve")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SERVE_FIELD_NUMBER: _ClassVar[int]
    name: ReplicaName
    generation: int
    plan: int
    serve: bool
    def __init__(self, name: _Optional[_Union[ReplicaName, _Mapping]] = ..., generation: _Optional[int] = ..., plan: _Optional[int] = ..., serve: _Optional[bool] = ...) -> None: ...

class ReplicaOrdersRequest(_message.Message):
    __slots__ = ("worker_id", "revision", "plans", "orders", "kept")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    revision: int
    plans: _containers.RepeatedCompositeFieldContainer[ReplicaPlan]
    orders: _containers.RepeatedCompositeFieldContainer[ReplicaOrder]
    kept: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., revision: _Optional[int] = ..., plans: _Optional[_Iterable[_Union[ReplicaPlan, _Mapping]]] = ..., orders: _Optional[_Iterable[_Union[ReplicaOrder, _Mapping]]] = ..., kept: _Optional[_Iterable[str]] = ...) -> None: ...

class ReplicaOrdersReply(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class ReplicaState(_message.Message):
    __slots__ = ("name", "generation", "state", "since_us", "serving", "container", "exit_code", "oom_killed", "restarts", "code", "reason", "last_lines", "address")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_US_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_LINES_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    name: ReplicaName
    generation: int
    state: str
    since_us: int
    serving: bool
    container: str
    exit_code: int
    oom_killed: bool
    restarts: int
    code: str
    reason: str
    last_lines: _containers.RepeatedScalarFieldContainer[str]
    address: str
    def __init__(self, name: _Optional[_Union[ReplicaName, _Mapping]] = ..., generation: _Optional[int] = ..., state: _Optional[str] = ..., since_us: _Optional[int] = ..., serving: _Optional[bool] = ..., container: _Optional[str] = ..., exit_code: _Optional[int] = ..., oom_killed: _Optional[bool] = ..., restarts: _Optional[int] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., last_lines: _Optional[_Iterable[str]] = ..., address: _Optional[str] = ...) -> None: ...

class ReplicaLog(_message.Message):
    __slots__ = ("name", "generation", "number", "records")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    name: ReplicaName
    generation: int
    number: int
    records: _containers.RepeatedCompositeFieldContainer[_job_pb2.Record]
    def __init__(self, name: _Optional[_Union[ReplicaName, _Mapping]] = ..., generation: _Optional[int] = ..., number: _Optional[int] = ..., records: _Optional[_Iterable[_Union[_job_pb2.Record, _Mapping]]] = ...) -> None: ...

class ReplicaReportRequest(_message.Message):
    __slots__ = ("worker_id", "incarnation", "revision", "states", "logs")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    incarnation: str
    revision: int
    states: _containers.RepeatedCompositeFieldContainer[ReplicaState]
    logs: _containers.RepeatedCompositeFieldContainer[ReplicaLog]
    def __init__(self, worker_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., revision: _Optional[int] = ..., states: _Optional[_Iterable[_Union[ReplicaState, _Mapping]]] = ..., logs: _Optional[_Iterable[_Union[ReplicaLog, _Mapping]]] = ...) -> None: ...

class ReplicaStored(_message.Message):
    __slots__ = ("name", "generation", "next_number")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NEXT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    name: ReplicaName
    generation: int
    next_number: int
    def __init__(self, name: _Optional[_Union[ReplicaName, _Mapping]] = ..., generation: _Optional[int] = ..., next_number: _Optional[int] = ...) -> None: ...

class ReplicaReportReply(_message.Message):
    __slots__ = ("known", "stored")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    known: bool
    stored: _containers.RepeatedCompositeFieldContainer[ReplicaStored]
    def __init__(self, known: _Optional[bool] = ..., stored: _Optional[_Iterable[_Union[ReplicaStored, _Mapping]]] = ...) -> None: ...

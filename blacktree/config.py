"""All settings and their defaults, in one place: TOML file, `BLACKTREE_<SECTION>_<KEY>`, flags.

Units are in the names. Unknown keys are errors with the nearest known name.
"""

import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from blacktree.endpoints import check_broker_url, split_address
from blacktree.errors import BadRequest
from blacktree.notification import Target, target_from
from blacktree.source import Source, source_from
from blacktree.spec import Platform, PoolName
from blacktree.strict import convert, nearest

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]

# The client's, and the key itself: that one is taken out of the environment and is in no listing.
NOT_SETTINGS = ("BLACKTREE_SERVER", "BLACKTREE_TOKEN", "BLACKTREE_ORCHESTRATOR_SECRETS_KEY")

SECRET_KEYS = frozenset({"broker_url"})


class OrchestratorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[orchestrator]`: the daemon that holds jobs, workers and the door."""

    state_directory: str = ""
    listen: str = "127.0.0.1:8080"
    grpc_listen: str = "127.0.0.1:5051"
    broker_url: str = ""
    join_token_file: str = ""
    token_file: str = ""
    lease_seconds: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    health_interval_seconds: Positive = 120.0
    shutdown_grace_seconds: Annotated[float, Meta(ge=0)] = 10.0
    allow_local_sources: bool = False
    secrets_directory: str = ""
    secrets_key_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    allow_plaintext_grpc: bool = False
    minimum_free_disk_bytes: Bytes = 256 << 20
    retry_first_seconds: Positive = 2.0
    retry_limit_seconds: Positive = 300.0
    slot_wait_seconds: Positive = 600.0
    maximum_pools: Count = 64
    retention_days: Annotated[float, Meta(ge=0)] = 0.0
    runtime_log_bytes: Annotated[int, Meta(ge=1 << 20)] = 64 << 20


class DoorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[door]`: who may come in, and limits on whatever arrives from outside."""

    public_url: str = ""
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    cors_origins: list[str] = []
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    trusted_proxies: list[str] = []
    forwarded_for_header: str = "X-Forwarded-For"
    forwarded_proto_header: str = "X-Forwarded-Proto"
    token_requests_per_second: Seconds = 5000.0
    address_requests_per_second: Seconds = 5000.0
    refusals_per_second: Seconds = 10.0
    burst_seconds: Positive = 10.0
    audit_days: Annotated[float, Meta(ge=0)] = 365.0
    maximum_connections: Count = 4096
    maximum_body_bytes: Count = 1 << 20
    maximum_webhook_bytes: Count = 8 << 20
    maximum_frame_bytes: Count = 1 << 20
    maximum_watches: Count = 64
    head_seconds: Positive = 10.0
    body_seconds: Positive = 30.0
    send_seconds: Positive = 30.0
    ping_seconds: Positive = 20.0


class WorkerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[worker]`: a daemon that builds."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")] = ""
    orchestrator: str = "127.0.0.1:5051"
    listen: str = "127.0.0.1:6000"
    advertise: str = ""
    slots: Annotated[int, Meta(ge=1, le=1024)] = 2
    pool: PoolName = "default"
    labels: dict[str, str] = {}
    state_directory: str = ""
    join_token_file: str = ""
    engine: str = ""
    platforms: Annotated[tuple[Platform, ...], Meta(max_length=64)] = ()
    provider: str = "docker"
    steps: tuple[str, ...] = ("sync", "build", "tag", "push")
    secrets_directory: str = ""
    git_credentials_file: str = ""
    ssh_key_file: str = ""
    ssh_known_hosts_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    tls_ca_file: str = ""
    allow_plaintext_grpc: bool = False
    minimum_free_disk_bytes: Bytes = 1 << 30
    image_budget_bytes: Bytes = 20 << 30
    cache_budget_bytes: Bytes = 20 << 30
    mirror_budget_bytes: Bytes = 20 << 30
    maximum_repository_bytes: Bytes = 10 << 30
    maximum_context_files: Count = 500_000
    spool_bytes: Bytes = 1 << 30
    git_stall_seconds: Positive = 60.0
    insecure_registries: list[str] = []
    registry_cache: bool = True
    registry_timeout_seconds: Positive = 30.0
    push_stall_seconds: Positive = 300.0
    ecr_profile: str = ""
    ecr_endpoint_url: str = ""
    ecr_hosts: dict[str, str] = {}
    ecr_create_repositories: bool = True
    ecr_scan_on_push: bool = True
    ecr_immutable_tags: bool = False
    ecr_lifecycle_policy_file: str = ""
    shutdown_grace_seconds: Annotated[float, Meta(ge=0)] = 10.0
    sweep_interval_seconds: Positive = 600.0
    volume_roots: tuple[str, ...] = ()


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[queue]`: what the farm does on RabbitMQ beyond its tickets."""

    repository_base_url: str = "https://github.com/"
    push_prefix: str = ""
    status_maximum: Count = 10_000
    events: bool = False
    event_maximum: Count = 10_000
    prefetch: Annotated[int, Meta(ge=1, le=1000)] = 32


class WebhooksConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[webhooks]`: what forges report, and how long it is remembered."""

    settle_seconds: Annotated[float, Meta(ge=0, le=600)] = 3.0
    remember_days: Annotated[float, Meta(ge=3, le=365)] = 7.0
    maximum_remembered: Annotated[int, Meta(ge=100, le=1_000_000)] = 20_000


class NotificationsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[notifications]`: outgoing webhooks, how long and how many are kept for a target that does not take them."""

    patience_seconds: Annotated[float, Meta(ge=1, le=30 * 86400)] = 3 * 86400.0
    maximum_waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000


class TracesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[traces]`: whether spans go to an OpenTelemetry collector. The rest: standard `OTEL_` variables."""

    export: Literal["auto", "on", "off"] = "auto"
    endpoint: str = ""


class ScaledPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[scaling.pools.NAME]`: between how many workers this pool is kept, by whom, and how eagerly."""

    provider: str = "processes"
    minimum: Annotated[int, Meta(ge=0, le=1000)] = 0
    maximum: Annotated[int, Meta(ge=0, le=1000)] = 4
    slots: Annotated[int, Meta(ge=1, le=1024)] = 2
    wait_seconds: Seconds = 5.0
    idle_seconds: Seconds = 120.0
    up_cooldown_seconds: Seconds = 5.0
    down_cooldown_seconds: Seconds = 60.0
    start_seconds: Positive = 60.0
    options: dict[str, Any] = {}


class ScalingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[scaling]`: which pools grow and shrink by themselves. Without a pool nothing does."""

    interval_seconds: Annotated[float, Meta(ge=0.05, le=3600)] = 2.0
    retry_first_seconds: Positive = 2.0
    retry_limit_seconds: Positive = 300.0
    pools: dict[PoolName, ScaledPool] = {}


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[log]`: what the daemons say of themselves, on stderr."""

    level: str = "info"
    format: str = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole tree. `origins` of the values come from `load`."""

    orchestrator: OrchestratorConfig = OrchestratorConfig()
    door: DoorConfig = DoorConfig()
    worker: WorkerConfig = WorkerConfig()
    queue: QueueConfig = QueueConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    notifications: NotificationsConfig = NotificationsConfig()
    traces: TracesConfig = TracesConfig()
    scaling: ScalingConfig = ScalingConfig()
    log: LogConfig = LogConfig()
    sources: dict[str, Source] = {}
    notify: dict[str, Target] = {}


NAMED = ("sources", "notify")
"""Sections of named tables, such as `[sources.app]`; from the file alone."""
_READ: dict[str, Callable[[dict[str, Any], str], Source | Target]] = {"sources": source_from, "notify": target_from}
SECTIONS: dict[str, type[msgspec.Struct]] = {
    field.name: field.type for field in msgspec.structs.fields(Config) if field.name not in NAMED
}

Origins = dict[tuple[str, str], str]


def default_state_directory(environ: Mapping[str, str], part: str) -> str:
    """`$STATE_DIRECTORY` (systemd), else the XDG base directory rules, else ~/.local/state."""
    if environ.get("STATE_DIRECTORY"):
        return environ["STATE_DIRECTORY"].split(":")[0]
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/"), ".local", "state")
    return os.path.join(base, "blacktree", part)


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[tuple[str, str], Any] | None = None,
) -> tuple[Config, Origins]:
    """The effective configuration and where each value came from: `default`, `file …`, `environment …`, `flag`.

    Raises `BadRequest` (code `invalid_config`) for an unknown key or a value of the wrong form.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins: Origins = {}
    named = _read_file(path, values, origins)
    _read_original_variables(environ, values, origins)
    _read_environment(environ, values, origins)
    for (section, key), value in (flags or {}).items():
        if value is not None:
            values[section][key] = value
            origins[section, key] = "flag"
    if not values["worker"].get("id"):
        values["worker"]["id"] = _host_id()
    _check_pools(values["scaling"].get("pools"), origins)
    try:
        config = msgspec.structs.replace(convert(values, Config, where="config", lenient=True), **named)
    except BadRequest as error:
        raise _with_origin(error, origins) from None
    split_address(config.orchestrator.listen)
    if config.orchestrator.broker_url:
        check_broker_url(config.orchestrator.broker_url)
    for section, kind in SECTIONS.items():
        for field in msgspec.structs.fields(kind):
            origins.setdefault((section, field.name), "default")
    return config, origins


def _host_id() -> str:
    name = "".join(char for char in socket.gethostname() if char.isascii() and (char.isalnum() or char in "._-"))
    return name[:64] if name and name[0].isalnum() else "worker"


def _read_file(path: str | None, values: dict[str, dict[str, Any]], origins: Origins) -> dict[str, dict[str, Any]]:
    """Fills in the plain sections; answers those that are tables by name."""
    named: dict[str, dict[str, Any]] = {section: {} for section in NAMED}
    if path is None:
        return named
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"{path} is not valid TOML: {error}") from None
    for section, keys in content.items():
        if section not in (*SECTIONS, *NAMED) or not isinstance(keys, dict):
            raise _unknown(f"section [{section}] in {path}", section, [*SECTIONS, *NAMED])
        if section in NAMED:
            for name, table in keys.items():
                named[section][name] = _named(section, name, table, path)
                origins[section, name] = f"file {path}"
            continue
        for key, value in keys.items():
            _known(section, key, f"key `{key}` in section [{section}] of {path}")
            values[section][key] = value
            origins[section, key] = f"file {path}"
    return named


def _named(section: str, name: str, table: Any, path: str) -> Source | Target:
    where = f"{section}.{name}"
    if not isinstance(table, dict):
        raise _invalid(f"{where} in {path} is no table; write it as [{where}]")
    if "name" in table:
        raise _unknown(f"key `name` in section [{where}] of {path}", "name", [])
    try:
        return _READ[section]({**table, "name": name}, where)
    except BadRequest as error:
        raise BadRequest(
            f"{path}: {error.message}", path=error.path, code="invalid_config", advice=error.advice
        ) from None


def _read_environment(environ: Mapping[str, str], values: dict[str, dict[str, Any]], origins: Origins) -> None:
    for name, text in environ.items():
        if not name.startswith("BLACKTREE_") or name in NOT_SETTINGS:
            continue
        section, _, key = name.removeprefix("BLACKTREE_").lower().partition("_")
        if section not in SECTIONS or key not in SECTIONS[section].__struct_fields__:
            raise _unknown_variable(name, section)
        values[section][key] = _from_text(section, key, text)
        origins[section, key] = f"environment {name}"


def _from_text(section: str, key: str, text: str) -> Any:
    if (section, key) == ("scaling", "pools"):
        return _tables(text)
    kind = next(field.type for field in msgspec.structs.fields(SECTIONS[section]) if field.name == key)
    if "list" in str(kind) or "tuple" in str(kind):
        return [part.strip() for part in text.split(",") if part.strip()]
    if "dict" in str(kind):
        return dict(part.strip().partition("=")[::2] for part in text.split(",") if part.strip())
    return text


def _read_original_variables(environ: Mapping[str, str], values: dict[str, dict[str, Any]], origins: Origins) -> None:
    """The four variables of the original system, weaker than ours."""
    if url := environ.get("MQ_URL"):
        _set(values, origins, "orchestrator", "broker_url", url, "MQ_URL")
    port = environ.get("ORCHESTRATOR_GRPC_PORT")
    if address := environ.get("ORCHESTRATOR_ADDR"):
        bare = address.rpartition("]")[2]
        full = address if ":" in bare else f"{address}:{port or 5051}"
        _set(values, origins, "worker", "orchestrator", full, "ORCHESTRATOR_ADDR")
    if port:
        host = str(values["orchestrator"].get("grpc_listen", "127.0.0.1:5051")).rpartition(":")[0]
        _set(values, origins, "orchestrator", "grpc_listen", f"{host}:{port}", "ORCHESTRATOR_GRPC_PORT")
    if worker := environ.get("WORKER_ID"):
        _set(values, origins, "worker", "id", worker, "WORKER_ID")


def _set(
    values: dict[str, dict[str, Any]], origins: Origins, section: str, key: str, value: str, variable: str
) -> None:
    values[section][key] = value
    origins[section, key] = f"environment {variable}"


def _tables(text: str) -> Any:
    """Tables in a variable: as JSON, for where there is no file."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadRequest(
            f"variable BLACKTREE_SCALING_POOLS is not JSON: {error}",
            code="invalid_config",
            advice='write {"POOL": {"maximum": 4}}, or the tables [scaling.pools.POOL] in the file',
        ) from None


def _check_pools(pools: Any, origins: Origins) -> None:
    """Each `[scaling.pools.NAME]` by itself, so that a mistake is told with the pool's name."""
    if pools is None:
        return
    where = origins.get(("scaling", "pools"), "")
    if not isinstance(pools, dict):
        raise _invalid(f"`scaling.pools` ({where}) holds one table for each pool: [scaling.pools.NAME]")
    for name, table in pools.items():
        title = f"scaling.pools.{name}"
        try:
            msgspec.convert(name, PoolName)
        except msgspec.ValidationError:
            raise _invalid(
                f"[{title}] ({where}): a pool's name has 1 to 32 lower-case letters, digits or `-`"
            ) from None
        if not isinstance(table, dict):
            raise _invalid(f"`{title}` ({where}) is a table: [{title}]")
        known = list(ScaledPool.__struct_fields__)
        for key in table:
            if key not in known:
                raise _unknown(f"key `{key}` in [{title}] ({where})", key, known)
        pool = convert(table, ScaledPool, where=title, lenient=True)
        if pool.minimum > pool.maximum:
            raise _invalid(f"[{title}]: minimum {pool.minimum} is above maximum {pool.maximum}")


def _with_origin(error: BadRequest, origins: Origins) -> BadRequest:
    """The same, and where the value came from."""
    section, _, key = error.path.removeprefix("config.").partition(".")
    origin = origins.get((section, key.partition("[")[0].partition(".")[0]), "")
    message = f"{error.message} ({origin})" if origin else error.message
    return BadRequest(message, path=error.path, code=error.code, advice=error.advice)


def _known(section: str, key: str, what: str) -> None:
    known = list(SECTIONS[section].__struct_fields__)
    if key not in known:
        raise _unknown(what, key, known)


def _unknown(what: str, name: str, known: list[str]) -> BadRequest:
    guess = nearest(name, known)
    advice = f"did you mean `{guess}`?" if guess else f"known: {', '.join(known)}"
    return BadRequest(f"unknown {what}", code="invalid_config", advice=advice)


def _unknown_variable(name: str, section: str) -> BadRequest:
    """With the whole name of the nearest variable, so that it can be copied."""
    parts = [section] if section in SECTIONS else list(SECTIONS)
    meant = {
        f"{part}_{key}": f"{part.upper()}_{key.upper()}` (`{key}` in section [{part}])"
        for part in parts
        for key in SECTIONS[part].__struct_fields__
    }
    # Without what they all begin with, which would make everything alike.
    bare, begin = name.removeprefix("BLACKTREE_").lower(), f"{section}_" if section in SECTIONS else ""
    guess = nearest(bare.removeprefix(begin), [each.removeprefix(begin) for each in meant])
    if guess:
        advice = f"did you mean `BLACKTREE_{meant[begin + guess]}?"
    elif begin:
        advice = f"known: {', '.join(SECTIONS[section].__struct_fields__)}"
    else:
        advice = f"known: BLACKTREE_<SECTION>_<KEY> with the sections {', '.join(SECTIONS)}"
    return BadRequest(f"unknown variable {name}", code="invalid_config", advice=advice)


def _invalid(message: str) -> BadRequest:
    return BadRequest(message, code="invalid_config")

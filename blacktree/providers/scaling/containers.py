"""Workers as containers of a Docker engine, each with a volume of its own; all of it found again by its labels."""

import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from blacktree.concurrency.threads import in_thread
from blacktree.errors import BadRequest, BlacktreeError, StepFailed
from blacktree.providers.docker.address import engine_address
from blacktree.providers.docker.engine import Engine
from blacktree.providers.docker.frames import Frames
from blacktree.providers.docker.stream import Connector, EngineRefused
from blacktree.providers.scaling.options import check_environment, on_this_machine, read_options, setting_variables
from blacktree.scaling import Machine, WorkerProvider, WorkerProviderSettings

FARM = "dev.blacktree.farm"
POOL = "dev.blacktree.pool"
WORKER = "dev.blacktree.worker"

HOME = "/var/lib/blacktree"
SOCKET = "/var/run/docker.sock"
TOKEN_FILE = "join-token"
STOP_SECONDS = 40
LAST_WORDS = 3

HostPath = Annotated[str, Meta(pattern=r"^(/.*)?\Z")]


class ContainerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[scaling.pools.NAME.options]` with `provider = "containers"`.

    `engine_socket`: this file of the engine's host is the worker's engine; empty: the worker gets none. Whoever has it
    can be root there. `mounts`: `/on/the/host:/inside`, read-only.
    """

    image: Annotated[str, Meta(min_length=1)]
    engine: str = ""
    engine_socket: HostPath = ""
    network: Annotated[str, Meta(min_length=1)] = "host"
    orchestrator: str = ""
    listen: str = ""
    advertise: str = ""
    environment: dict[str, str] = {}
    mounts: list[str] = []
    groups: list[str] = []
    memory_bytes: Annotated[int, Meta(ge=0)] = 0
    cpus: Annotated[float, Meta(ge=0)] = 0.0
    pids: Annotated[int, Meta(ge=0)] = 4096


def open_provider(settings: WorkerProviderSettings) -> AbstractAsyncContextManager[WorkerProvider]:
    """See `blacktree.scaling`. Raises `BadRequest` for bad options."""
    options = read_options(settings, ContainerOptions)
    check_environment(options.environment, settings)
    where = f"scaling.pools.{settings.pool}.options"
    if not options.orchestrator and (settings.orchestrator.startswith("unix:") or options.network != "host"):
        why = (
            "a container cannot reach this orchestrator's unix socket: run `blacktree orchestrator`"
            if settings.orchestrator.startswith("unix:")
            else "set it to the orchestrator's host:port as seen from that network"
        )
        raise BadRequest(f"{where}.orchestrator: is needed here", path=where, code="invalid_config", advice=why)
    for mount in options.mounts:
        outside, colon, inside = mount.partition(":")
        if not colon or not outside.startswith("/") or not inside.startswith("/") or ":" in inside:
            raise BadRequest(
                f"{where}.mounts: `{mount}` is not /on/the/host:/inside", path=where, code="invalid_config"
            )
        if outside.endswith("docker.sock"):
            raise BadRequest(
                f"{where}.mounts: the engine's socket is named by `engine_socket`, not here",
                path=where,
                code="invalid_config",
            )
    engine = Engine(Connector(engine_address(options.engine, os.environ)))
    return _opened(Containers(settings, options, engine))


@asynccontextmanager
async def _opened(containers: "Containers") -> AsyncIterator[WorkerProvider]:
    yield containers


class Containers:
    """See `WorkerProvider`. Containers live on when the orchestrator ends, and are found by the next one."""

    def __init__(self, settings: WorkerProviderSettings, options: ContainerOptions, engine: Engine) -> None:
        self._settings = settings
        self._options = options
        self._engine = engine

    async def start(self, worker_id: str) -> None:
        """See `WorkerProvider`."""
        user = await self._user()
        await self._call("POST", "/volumes/create", body={"Name": worker_id, "Labels": self._labels(worker_id)})
        try:
            await self._call("POST", "/containers/create", {"name": worker_id}, body=self._creation(worker_id))
        except _Refused as error:
            if error.status != 409:
                raise
        if await self._state(worker_id) != "running":
            await self._put_token(worker_id, user)
            await self._call("POST", f"/containers/{worker_id}/start")

    async def _state(self, worker_id: str) -> str:
        found = [each for each in await self._containers() if _label(each, WORKER) == worker_id]
        if not found:
            raise StepFailed(
                f"the engine has another container with the name {worker_id}", code="worker_not_started", again=True
            )
        return str(found[0].get("State", ""))

    async def _user(self) -> tuple[int, int]:
        """Whose files the worker reads. Raises `StepFailed` if the image is not there."""
        image = self._options.image
        try:
            found = await self._call("GET", f"/images/{image}/json")
        except _Refused as error:
            if error.status != 404:
                raise
            raise StepFailed(
                f"the engine has no image `{image}`",
                code="image_missing",
                advice=f"build it (docker build -f .ci/Dockerfile -t {image} .) or pull it there",
                again=True,
            ) from None
        user, _, group = str((found.get("Config") or {}).get("User") or "0").partition(":")
        uid = int(user) if user.isdigit() else 0
        return uid, int(group) if group.isdigit() else uid

    def _labels(self, worker_id: str) -> dict[str, str]:
        return {FARM: self._settings.farm_id, POOL: self._settings.pool, WORKER: worker_id}

    def _creation(self, worker_id: str) -> dict[str, Any]:
        options = self._options
        mounts: list[dict[str, Any]] = [{"Type": "volume", "Source": worker_id, "Target": HOME}]
        binds = [each.partition(":")[::2] for each in options.mounts]
        mounts += [{"Type": "bind", "Source": out, "Target": inside, "ReadOnly": True} for out, inside in binds]
        if options.engine_socket:
            mounts.append({"Type": "bind", "Source": options.engine_socket, "Target": SOCKET})
        host: dict[str, Any] = {
            "NetworkMode": options.network,
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": ""},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Mounts": mounts,
            "GroupAdd": options.groups,
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "PidsLimit": options.pids or None,
            "Memory": options.memory_bytes,
            "NanoCpus": int(options.cpus * 1e9),
        }
        creation = {
            "Image": options.image,
            "Cmd": ["worker"],
            "Env": [f"{name}={value}" for name, value in sorted(self._environment(worker_id).items())],
            "Labels": self._labels(worker_id),
            "StopTimeout": STOP_SECONDS,
            "HostConfig": host,
        }
        # The host's network has the host's name.
        return creation if options.network == "host" else creation | {"Hostname": worker_id[:63]}

    def _environment(self, worker_id: str) -> dict[str, str]:
        settings, options = self._settings, self._options
        alone = options.network != "host"
        ours = {
            "id": worker_id,
            "orchestrator": options.orchestrator or on_this_machine(settings.orchestrator),
            "listen": options.listen or ("0.0.0.0:6000" if alone else "127.0.0.1:0"),
            "advertise": options.advertise or (f"{worker_id}:6000" if alone else ""),
            "pool": settings.pool,
            "slots": settings.slots,
            "state_directory": HOME,
            "join_token_file": f"{HOME}/{TOKEN_FILE}",
        }
        return options.environment | setting_variables(ours)

    async def _put_token(self, worker_id: str, user: tuple[int, int]) -> None:
        """The join token as a file in the worker's volume: neither arguments nor environment can be asked for it."""
        try:
            token = await in_thread(Path(self._settings.join_token_file).read_bytes)
        except OSError as error:
            raise StepFailed(
                f"cannot read the join token {self._settings.join_token_file}: {error.strerror}",
                code="join_token",
                again=True,
            ) from None
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(TOKEN_FILE)
            entry.size, entry.mode = len(token), 0o600
            entry.uid, entry.gid = user
            tar.addfile(entry, io.BytesIO(token))
        try:
            async with self._engine.connector.open(
                "PUT",
                f"/containers/{worker_id}/archive",
                {"path": HOME},
                body=archive.getvalue(),
                headers=[("Content-Type", "application/x-tar")],
            ) as answer:
                await answer.read()
        except EngineRefused as error:
            raise _Refused(error, "give the worker its join token") from None

    async def machines(self) -> list[Machine]:
        """See `WorkerProvider`."""
        found = {}
        for each in await self._containers():
            worker_id = _label(each, WORKER)
            running = each.get("State") in ("running", "restarting", "paused")
            detail = "" if running else await self._ending(str(each.get("Id")), str(each.get("Status", "")))
            found[worker_id] = Machine(id=worker_id, running=running, detail=detail)
        answer = await self._call("GET", "/volumes", self._filters())
        for each in answer.get("Volumes") or []:
            found.setdefault(_label(each, WORKER), Machine(id=_label(each, WORKER), running=False))
        return [found[each] for each in sorted(found) if each]

    async def _containers(self) -> list[dict[str, Any]]:
        return list(await self._call("GET", "/containers/json", self._filters() | {"all": "true"}) or [])

    def _filters(self) -> dict[str, str]:
        labels = [f"{FARM}={self._settings.farm_id}", f"{POOL}={self._settings.pool}"]
        return {"filters": json.dumps({"label": labels})}

    async def _ending(self, container: str, status: str) -> str:
        """How it ended and what it said last."""
        try:
            async with self._engine.connector.open(
                "GET", f"/containers/{container}/logs", {"stderr": "1", "tail": str(LAST_WORDS)}
            ) as answer:
                pieces = Frames().feed(await answer.read(64 * 1024))
            said = b"".join(data for _, data in pieces).decode("utf-8", "replace").strip()
        except (EngineRefused, BlacktreeError):
            said = ""
        return f"{status}: {said[-500:]}" if said else status

    async def stop(self, worker_id: str) -> None:
        """See `WorkerProvider`."""
        ours = [str(each["Id"]) for each in await self._containers() if _label(each, WORKER) == worker_id]
        for container in ours:
            await self._gone("POST", f"/containers/{container}/stop", {"t": str(STOP_SECONDS)})
            await self._gone("DELETE", f"/containers/{container}", {"force": "true", "v": "true"})
        answer = await self._call("GET", "/volumes", self._filters())
        for each in answer.get("Volumes") or []:
            if _label(each, WORKER) == worker_id:
                await self._gone("DELETE", f"/volumes/{each['Name']}")

    async def _gone(self, method: str, path: str, params: dict[str, str] | None = None) -> None:
        """A call after which something is gone, whoever did it."""
        try:
            await self._call(method, path, params)
        except _Refused as error:
            # 304: stopped already; 409 of a removal: somebody else removes it just now.
            if error.status not in (304, 404) and not (error.status == 409 and "in progress" in error.message):
                raise

    async def leave(self) -> None:
        """See `WorkerProvider`. Containers have a life of their own: the next orchestrator goes on with them."""

    async def _call(self, method: str, path: str, params: dict[str, str] | None = None, *, body: Any = None) -> Any:
        await self._engine.traits()
        try:
            return await self._engine.call(method, path, params, body=body)
        except EngineRefused as error:
            raise _Refused(error, f"{method} {path.partition('?')[0]}") from None


class _Refused(StepFailed):
    """The engine said no; `status` is HTTP's."""

    def __init__(self, error: EngineRefused, what: str) -> None:
        super().__init__(
            f"the engine refuses ({error.status}) to {what}: {error.message}", code="engine_refused", again=True
        )
        self.status = error.status


def _label(thing: dict[str, Any], name: str) -> str:
    return str((thing.get("Labels") or {}).get(name, ""))

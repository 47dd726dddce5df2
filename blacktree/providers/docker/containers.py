"""`Containers` on a Docker engine (Engine API, /containers and /exec)."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import BlacktreeError, NotFound, StepFailed
from blacktree.providers.base import Login
from blacktree.providers.containers import Container, ContainerRequest, LogPosition, Mount, Ran, registry_host
from blacktree.providers.docker.engine import Engine
from blacktree.providers.docker.faults import failure, refused
from blacktree.providers.docker.frames import FrameReader, Frames
from blacktree.providers.docker.labels import REPLICAS
from blacktree.providers.docker.logins import read_login
from blacktree.providers.docker.push import encoded
from blacktree.providers.docker.stream import EngineRefused, parsed

MAX_PRINTED_BYTES = 4096
LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
# Beyond the engine's own wait for a stop: then something is wrong with the engine, not with the container.
STOP_MARGIN_SECONDS = 10.0
_ENDED = frozenset({"exited", "dead", "removing"})


class DockerContainers:
    """One owner's containers on one engine.

    `wanted` is told which image a container is about to be made of, `pulled` which one is on the engine for our sake
    alone: both by its id.
    """

    def __init__(
        self, engine: Engine, owner: str, wanted: Callable[[str], None], pulled: Callable[[str], Awaitable[None]]
    ) -> None:
        self._engine = engine
        self._owner = owner
        self._wanted = wanted
        self._pulled = pulled

    async def has(self, image: str) -> bool:
        """See `Containers`."""
        found = await self._get(f"/images/{image}/json", "image")
        if found is not None:
            self._wanted(str(found["Id"]))
        return found is not None

    async def pull(self, image: str, login: Login | None) -> None:
        """See `Containers`."""
        host = registry_host(image)
        if login is None:
            login = await in_thread(lambda: read_login(host, os.environ))
        headers = [("X-Registry-Auth", encoded(login, host))] if login else []
        await self._engine.traits()
        name = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
        try:
            async with self._engine.connector.open(
                "POST", "/images/create", {"fromImage": name}, headers=headers
            ) as answer:
                async for line in answer.lines():
                    message = parsed(line)
                    if error := message.get("error"):
                        raise failure(str(error), step="pull")
        except EngineRefused as error:
            raise refused(error, "pull", step="pull") from None
        found = await self._get(f"/images/{name}/json", "pull")
        # One that has another name, too, was here before, or is somebody else's as well.
        if found and set(found.get("RepoTags") or []) <= {name} and len(found.get("RepoDigests") or []) <= 1:
            self._wanted(str(found["Id"]))
            await self._pulled(str(found["Id"]))

    async def create(self, request: ContainerRequest) -> str:
        """See `Containers`."""
        try:
            made = await self._ask("POST", "/containers/create", {"name": request.name}, body=self._body(request))
        except EngineRefused as error:
            if error.status == 404:
                raise StepFailed(
                    f"image {request.image} is not on the worker's engine",
                    code="image_missing",
                    again=False,
                    advice="push the image, so that any worker can pull it; or give the worker a larger image budget",
                ) from None
            if error.status == 409:
                raise StepFailed(f"create: {error.message}", code="name_taken", again=True) from None
            raise refused(error, "create") from None
        return str(made["Id"])

    def _body(self, request: ContainerRequest) -> dict[str, Any]:
        ports = [f"{port}/tcp" for port in request.ports]
        return {
            "Image": request.image,
            "Cmd": request.command or None,
            "Env": [f"{name}={value}" for name, value in request.env.items()],
            "Labels": {**request.labels, REPLICAS: self._owner},
            "ExposedPorts": {port: {} for port in ports},
            # Ours is the check that counts; an image's own would run beside it.
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "Privileged": False,
                "Init": True,
                "Memory": request.memory_bytes,
                "MemorySwap": request.memory_bytes,
                "NanoCpus": int(request.cpus * 1e9),
                "PidsLimit": request.pids,
                "RestartPolicy": {"Name": "no"},
                "LogConfig": LOG_CONFIG,
                "PortBindings": {port: [{"HostIp": "127.0.0.1", "HostPort": ""}] for port in ports},
                "Mounts": [_mount(each) for each in request.mounts],
            },
        }

    async def start(self, container: str) -> None:
        """See `Containers`."""
        try:
            await self._ask("POST", f"/containers/{container}/start")
        except EngineRefused as error:
            if error.status == 404:
                raise NotFound(f"container {container[:12]} is gone") from None
            raise _start_failure(error) from None

    async def stop(self, container: str, seconds: float) -> None:
        """See `Containers`."""
        # The engine counts whole seconds.
        whole = int(seconds) + (seconds > int(seconds))
        with trio.move_on_after(whole + STOP_MARGIN_SECONDS):
            await self._quietly("POST", f"/containers/{container}/stop", {"t": str(whole)})
            return
        await self._quietly("POST", f"/containers/{container}/kill")

    async def wait(self, container: str) -> Container:
        """See `Containers`."""
        try:
            await self._ask("POST", f"/containers/{container}/wait")
        except EngineRefused as error:
            if error.status != 404:
                raise refused(error, "wait") from None
        found = await self.inspect(container)
        if found is None:
            raise NotFound(f"container {container[:12]} is gone")
        return found

    async def inspect(self, container: str) -> Container | None:
        """See `Containers`."""
        found = await self._get(f"/containers/{container}/json", "inspect")
        return None if found is None else _container(found)

    async def remove(self, container: str) -> None:
        """See `Containers`."""
        await self._quietly("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})

    async def listed(self) -> list[Container]:
        """See `Containers`."""
        filters = json.dumps({"label": [f"{REPLICAS}={self._owner}"]})
        try:
            listed = await self._ask("GET", "/containers/json", {"all": "1", "filters": filters})
        except EngineRefused as error:
            raise refused(error, "list") from None
        return [
            Container(
                id=str(each["Id"]),
                labels=dict(each.get("Labels") or {}),
                state=_state(str(each.get("State", ""))),
                image_id=str(each.get("ImageID", "")),
            )
            for each in listed or []
        ]

    async def run(self, container: str, argv: list[str], seconds: float) -> Ran:
        """See `Containers`."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": argv}
        printed = bytearray()
        try:
            made = await self._ask("POST", f"/containers/{container}/exec", body=body)
            name = str(made["Id"])
            with trio.move_on_after(seconds) as scope:
                start = json.dumps({"Detach": False, "Tty": False}).encode()
                headers = [("Content-Type", "application/json")]
                async with self._engine.connector.open(
                    "POST", f"/exec/{name}/start", body=start, headers=headers
                ) as answer:
                    frames = Frames()
                    while chunk := await answer.chunk():
                        for _, data in frames.feed(chunk):
                            printed += data[: MAX_PRINTED_BYTES - len(printed)]
            if scope.cancelled_caught:
                return Ran(None, bytes(printed))
            ended = await self._ask("GET", f"/exec/{name}/json")
        except EngineRefused as error:
            if error.status in (404, 409):
                raise NotFound(f"container {container[:12]} does not run") from None
            raise refused(error, "exec") from None
        code = (ended or {}).get("ExitCode")
        return Ran(None if code is None else int(code), bytes(printed))

    @asynccontextmanager
    async def logs(self, container: str, after: LogPosition | None) -> AsyncIterator[FrameReader]:
        """See `Containers`. The engine's `since` takes what bears the stamp itself, too (measured on 20.10)."""
        await self._engine.traits()
        params = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1"}
        if after is not None:
            params["since"] = since_of(after.stamp)
        try:
            async with self._engine.connector.open("GET", f"/containers/{container}/logs", params) as answer:
                yield FrameReader(answer, after)
        except EngineRefused as error:
            if error.status == 404:
                raise NotFound(f"container {container[:12]} is gone") from None
            raise refused(error, "logs") from None

    async def _ask(self, method: str, path: str, params: dict[str, str] | None = None, *, body: Any = None) -> Any:
        await self._engine.traits()
        return await self._engine.call(method, path, params, body=body)

    async def _get(self, path: str, what: str) -> Any:
        try:
            return await self._ask("GET", path)
        except EngineRefused as error:
            if error.status == 404:
                return None
            raise refused(error, what) from None

    async def _quietly(self, method: str, path: str, params: dict[str, str] | None = None) -> None:
        """What is gone, or as wanted already, or being removed, is fine."""
        try:
            await self._ask(method, path, params)
        except EngineRefused as error:
            if error.status not in (304, 404, 409):
                raise refused(error, path.rpartition("/")[2]) from None


def since_of(stamp: str) -> str:
    """An RFC 3339 stamp with nanoseconds as the engine's `since` wants it: seconds and nanoseconds since 1970."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return f"{seconds}.{fraction.ljust(9, '0')[:9]}"


def _mount(mount: Mount) -> dict[str, Any]:
    kind, source = ("bind", mount.path) if mount.path else ("volume", mount.volume)
    return {"Type": kind, "Source": source, "Target": mount.target, "ReadOnly": mount.read_only}


def _state(word: str) -> Any:
    return "created" if word == "created" else "ended" if word in _ENDED else "running"


def _container(found: Any) -> Container:
    state = found.get("State") or {}
    word = _state(str(state.get("Status", "")))
    published = (found.get("NetworkSettings") or {}).get("Ports") or {}
    return Container(
        id=str(found["Id"]),
        labels=dict((found.get("Config") or {}).get("Labels") or {}),
        state=word,
        image_id=str(found.get("Image", "")),
        exit_code=int(state.get("ExitCode", 0)) if word == "ended" else None,
        oom_killed=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        ports={
            int(port.partition("/")[0]): (str(places[0]["HostIp"]), int(places[0]["HostPort"]))
            for port, places in published.items()
            if places
        },
    )


def _start_failure(error: EngineRefused) -> BlacktreeError:
    """What keeps a container from starting is mostly its own matter: a command that is not there, a bad mount."""
    text = error.message
    if "executable file not found" in text or "no such file or directory" in text or "permission denied" in text:
        return StepFailed(
            f"the container cannot start: {text}", code="command_missing", again=False, advice="check `run.command`"
        )
    if "port is already allocated" in text or "address already in use" in text:
        return StepFailed(f"the container cannot start: {text}", code="port_taken", again=True)
    return StepFailed(f"the container cannot start: {text}", code="start_failed", again=True)

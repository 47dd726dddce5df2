"""Short calls to the engine: who it is, what it has, and names for images."""

import json
import socket
import struct
from collections.abc import Collection
from typing import Any

import msgspec
import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.platforms import runs
from blacktree.providers.base import Health
from blacktree.providers.docker.binfmt import emulated
from blacktree.providers.docker.faults import refused
from blacktree.providers.docker.leftovers import visible
from blacktree.providers.docker.stream import Connector, EngineRefused, Params

NEWEST_API = (1, 47)  # what this code was written for; engines keep older versions for years
OLDEST_API = (1, 30)
BUILDKIT_API = (1, 39)  # 18.09: the first with BuildKit outside its experiments
CHECK_SECONDS = 10.0


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is. `root` is its data directory; `local`: its processes can be seen from here."""

    version: str
    api: str
    podman: bool = False
    buildkit: bool = False
    root: str = ""
    storage: str = ""
    cgroup: str = ""
    system: str = ""
    architecture: str = ""
    local: bool = False


class Engine:
    """One engine, asked over short connections."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self._traits: Traits | None = None

    async def call(self, method: str, path: str, params: Params | None = None, *, body: Any = None) -> Any:
        """One request and its JSON answer (None for an empty one). Raises `EngineLost`, `EngineRefused`."""
        data = None if body is None else json.dumps(body).encode()
        headers = [("Content-Type", "application/json")] if body is not None else []
        async with self.connector.open(method, path, params, body=data, headers=headers) as answer:
            text = await answer.read()
        if not text.strip():
            return None
        try:
            return json.loads(text)
        except ValueError:
            return None

    async def traits(self, *, anew: bool = False) -> Traits:
        """What the engine is; asked once, or `anew`. Raises `EngineLost`."""
        if self._traits is None or anew:
            try:
                self._traits = await self._ask()
            except EngineRefused as error:
                raise EngineLost(f"the engine at {self.connector.address} refuses to say what it is: {error}") from None
        return self._traits

    async def _ask(self) -> Traits:
        stream = await self.connector.connect()
        try:
            listener = _listener(stream)
        finally:
            await trio.aclose_forcefully(stream)
        # Without a version in its path the engine answers as its newest self, whatever it no longer speaks.
        self.connector.version = ""
        version = await self.call("GET", "/version") or {}
        names = [str(part.get("Name", "")) for part in version.get("Components") or []]
        podman = any("podman" in name.lower() for name in names)
        spoken = _pair(version.get("ApiVersion", ""))
        self.connector.version = _text(max(min(spoken, NEWEST_API), _pair(version.get("MinAPIVersion", "0.0"))))
        info = await self.call("GET", "/info") or {}
        root = str(info.get("DockerRootDir", ""))
        return Traits(
            version=str(version.get("Version", "")),
            api=_text(spoken),
            podman=podman,
            buildkit=not podman and spoken >= BUILDKIT_API and info.get("OSType", "linux") == "linux",
            root=root,
            storage=str(info.get("Driver", "")),
            cgroup=str(info.get("CgroupVersion", "1")),
            system=str(info.get("OSType", "")),
            architecture=str(info.get("Architecture", "")),
            # Asked while it lives: when it has been killed, what it left must still be looked for.
            local=visible(listener, root),
        )

    async def health(self) -> Health:
        """How it stands; a dead engine is a refusal, not an error."""
        try:
            with trio.fail_after(CHECK_SECONDS):
                traits = await self.traits(anew=True)
        except BlacktreeError as error:
            return Health(name="docker", refusal=str(error), details={"address": str(self.connector.address)})
        except trio.TooSlowError:
            return Health(
                name="docker",
                refusal=f"the engine at {self.connector.address} is silent for {CHECK_SECONDS:.0f} s; restart it",
                details={"address": str(self.connector.address)},
            )
        details = {
            "address": str(self.connector.address),
            "api": traits.api,
            "storage": traits.storage,
            "cgroup": traits.cgroup,
            "buildkit": "yes" if traits.buildkit else "no",
        }
        native = runs(traits.architecture, traits.system or "linux") if traits.architecture else []
        # How another machine's kernel runs foreign programs cannot be seen from here.
        found = await in_thread(emulated) if traits.local else []
        health = Health(
            name="docker",
            version=traits.version,
            refusal=_refusal(traits),
            details=details,
            platforms=native,
            emulated=[each for each in found if each not in native],
            directories=[traits.root] if traits.local else [],
        )
        return msgspec.structs.replace(health, details=details | {"log_limits": log_limits(health)})

    async def tag(self, image_id: str, references: Collection[str]) -> None:
        """Point these names at the image. Raises `StepFailed`, `EngineLost`."""
        for reference in references:
            name, _, tag = reference.rpartition(":")
            if not name or "/" in tag:
                name, tag = reference, "latest"
            try:
                await self.call("POST", f"/images/{image_id}/tag", {"repo": name, "tag": tag})
            except EngineRefused as error:
                if error.status == 404:
                    raise StepFailed(
                        f"image {image_id} is no longer on the engine",
                        code="image_gone",
                        again=True,
                        step="tag",
                        advice="was it pruned? give the worker a larger image budget",
                    ) from None
                raise refused(error, "tag", step="tag") from None

    async def untag(self, references: Collection[str]) -> None:
        """Take these names away. Raises `StepFailed`, `EngineLost`."""
        for reference in references:
            try:
                await self.call("DELETE", f"/images/{reference}", {"noprune": "1"})
            except EngineRefused as error:
                if error.status != 404:
                    raise refused(error, "untag") from None


def log_limits(health: Health) -> str:
    """What this engine lets a step print, and what can be done about it: for people."""
    if health.refusal:
        return "unknown: the engine does not take builds"
    if health.details.get("buildkit") != "yes":
        return "complete logs: this engine builds with the classic builder, which clips nothing"
    known = health.version.split(".")[0]
    text = (
        "BuildKit clips a step's output at 200 KiB/s and 2 MiB unless the engine's own environment sets "
        "BUILDKIT_STEP_LOG_MAX_SPEED and BUILDKIT_STEP_LOG_MAX_SIZE (bytes; they cannot be read from outside); "
        "a clip is told by the notice output_clipped; --builder classic gives complete logs"
    )
    if known.isdigit() and int(known) <= 20:
        return text + (
            f". On {health.version}, leave them alone: -1 clips everything, values above 32 bits are ignored, and with "
            "the limits lifted very long outputs can keep the engine busy for minutes"
        )
    return text + ". -1 lifts a limit on newer engines; this has not been tried with this version"


def _refusal(traits: Traits) -> str:
    if traits.podman:
        return (
            f"this is Podman {traits.version} behind a Docker-compatible socket: closing a build's connection does not "
            "stop its RUN there, so no cancelled build could be proven gone; name a Docker engine in worker.engine"
        )
    if _pair(traits.api) < OLDEST_API:
        return f"the engine speaks API {traits.api}, builds need {_text(OLDEST_API)} or newer; upgrade it"
    if traits.system not in ("", "linux"):
        return f"the engine runs {traits.system} containers; builds need a Linux engine"
    return ""


def _listener(stream: trio.abc.Stream) -> int:
    """The pid behind a unix socket; 0 if it is elsewhere (TCP, or another process namespace)."""
    if not isinstance(stream, trio.SocketStream) or stream.socket.family != socket.AF_UNIX:
        return 0
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    size = struct.calcsize("3i")
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", credentials)[0])


def _pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _text(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"

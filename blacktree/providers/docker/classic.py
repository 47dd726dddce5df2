"""Image builds by the engine's classic builder: no BuildKit, no secrets, but complete logs."""

import base64
import json
import re
import secrets
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any

import trio

from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import EngineLost, StepFailed
from blacktree.providers.base import BuildRequest, BuiltImage, Context, Entry, Sink
from blacktree.providers.docker.build import common_parameters
from blacktree.providers.docker.ending import END_SECONDS, Exchange, Outlet
from blacktree.providers.docker.faults import failure
from blacktree.providers.docker.filesync import link_targets
from blacktree.providers.docker.patterns import Patterns, followed, ignore_lines
from blacktree.providers.docker.stream import Connector, Cord, parsed
from blacktree.providers.docker.verdict import image_of

_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)\Z", re.DOTALL)
_RUNNING = re.compile(r" ---> (?:\[Warning\] .* )?Running in ([0-9a-f]{12,64})\s*\Z")
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)(?:=(\S*))?", re.IGNORECASE | re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_MAX_DOCKERFILE_BYTES = 1 << 20
_EPOCH = 1_577_836_800


class ClassicBuild:
    """One build. `containers` are the intermediate ones seen so far; `mark` is a host name that all of them know.

    The steps of a build that is tried again (`tries`) have names of their own.
    """

    def __init__(
        self,
        connector: Connector,
        request: BuildRequest,
        sink: Sink,
        labels: Mapping[str, str],
        entries: Sequence[Entry],
        mark: str,
        tries: int = 1,
    ) -> None:
        self.key = secrets.token_hex(16)
        self.mark = mark
        self.containers: set[str] = set()
        self.asked = False
        self.heard = False
        self._connector = connector
        self._request = request
        self._sink = Outlet(sink, self._give_up)
        self._cord = Cord()
        self._limit = trio.CancelScope()
        self._labels = labels
        self._entries = entries
        self._suffix = f".{tries}" if tries > 1 else ""
        self._step = ""
        self._name = ""
        self._number = 0
        self._cached = False
        self._begun = 0.0
        self._image = ""
        self._printed: list[str] = []
        self._printed_to = ""

    async def run(self) -> BuiltImage:
        """Build. Raises `StepFailed` or `EngineLost`; cancelled, the connection is closed, which ends the build."""
        if self._request.secrets:
            raise StepFailed(
                "the classic builder cannot mount secrets",
                code="needs_buildkit",
                again=False,
                advice="leave `builder` at auto or buildkit",
            )
        exchange = Exchange(self._talk, self._stop)
        try:
            return await exchange.run()
        finally:
            self.heard = self.heard and exchange.ended

    async def _give_up(self) -> None:
        self._limit.deadline = trio.current_time() + END_SECONDS
        await self._stop()

    async def _stop(self) -> None:
        # /build/cancel has no effect on this builder; the end of the request's connection has. Half of it is enough,
        # and over the other half the engine tells when the build is over.
        self._sink.close_soon()
        if not self._cord.shut():
            self._limit.cancel()

    async def _talk(self) -> BuiltImage:
        return await image_of(self, self._until_limit, self._sink, self._finish)

    async def _until_limit(self) -> BuiltImage | None:
        image = None
        with self._limit:
            image = await self._follow()
        return image

    async def _follow(self) -> BuiltImage:
        request = self._request
        headers = [("Content-Type", "application/x-tar")]
        logins = await self._logins()
        if logins:
            headers.append(("X-Registry-Config", base64.urlsafe_b64encode(json.dumps(logins).encode()).decode()))
        # Intermediate containers get no labels; a line in their /etc/hosts is what tells ours from others'.
        params = common_parameters(request, self._labels) | {"extrahosts": f"{self.mark}:127.0.0.1"}
        async with AsyncExitStack() as stack:
            body = await stack.enter_async_context(await self._body())
            self.asked = True
            answer = await stack.enter_async_context(
                self._connector.open("POST", "/build", params, body=body, headers=headers, cord=self._cord)
            )
            async for lines in answer.batches():
                try:
                    for line in lines:
                        await self._take(parsed(line))
                finally:
                    await self._pour()
        self.heard = True
        if not self._image:
            raise EngineLost("the engine ended the build without an image and without an error")
        return BuiltImage(self._image)

    async def _take(self, message: Mapping[str, Any]) -> None:
        if "stream" in message:
            await self._said(str(message["stream"]))
        elif "aux" in message:
            self._image = str((message["aux"] or {}).get("ID", "")) or self._image
        elif "error" in message or "errorDetail" in message:
            self.heard = True
            detail = message.get("errorDetail") or {}
            text = str(detail.get("message") or message.get("error"))
            code = detail.get("code")
            raise failure(text, step=self._name, code=code if isinstance(code, int) and code > 0 else None)
        elif "status" in message:
            await self._pulled(message)

    async def _print(self, stream: str, text: str) -> None:
        """Output of the step that runs; what came together goes on together."""
        if stream != self._printed_to:
            await self._pour()
            self._printed_to = stream
        self._printed.append(text)

    async def _pour(self) -> None:
        if self._printed:
            text, self._printed = "".join(self._printed), []
            await self._sink.output(self._step, self._printed_to, text.encode("utf-8", "surrogatepass"))

    async def _said(self, text: str) -> None:
        found = _STEP.match(text)
        if found and int(found[1]) == self._number + 1:
            await self._finish(ok=True)
            self._number += 1
            self._step, self._name = found[1] + self._suffix, found[3].strip()
            self._begun, self._cached = trio.current_time(), False
            await self._sink.step_started(self._step, self._name)
            return
        if running := _RUNNING.match(text):
            self.containers.add(running[1])
        elif text.strip() == "---> Using cache":
            self._cached = True
        if not self._step or not text.strip("\n"):
            if text.strip():
                await self._pour()
                await self._sink.notice("engine", text.strip())
            elif self._step:
                await self._print("stdout", text)
            return
        stream = "stdout"
        if text.startswith(_RED) and text.endswith(_PLAIN):
            # How this builder tells stderr from stdout.
            stream, text = "stderr", text[len(_RED) : -len(_PLAIN)]
        await self._print(stream, text)

    async def _pulled(self, message: Mapping[str, object]) -> None:
        detail = message.get("progressDetail")
        if self._step and isinstance(detail, dict) and detail.get("total"):
            await self._pour()
            await self._sink.progress(self._step, int(detail.get("current", 0)), int(detail["total"]), "bytes")
        elif self._step:
            name = f"{message['id']}: " if message.get("id") else ""
            await self._print("stdout", f"{name}{message['status']}\n")

    async def _finish(self, ok: bool) -> None:
        if self._step:
            await self._pour()
            seconds = trio.current_time() - self._begun
            await self._sink.step_finished(self._step, self._name, cached=self._cached, seconds=seconds, ok=ok)
            self._step = ""

    async def _body(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The context as a tar; filtered here, since the engine does not apply .dockerignore to a tar it is sent."""
        text = await read_text(self._request.context, self._entries, ".dockerignore")
        if text is None:
            return self._request.context.tar()
        try:
            hidden = Patterns(ignore_lines(text))
        except ValueError as error:
            raise StepFailed(f".dockerignore: {error}", code="dockerignore_invalid", again=False) from None
        always = {*await self._dockerfile(), ".dockerignore"}
        kept = [entry for entry in self._entries if entry.path in always or not hidden.match(entry.path)]
        return tar_of(self._request.context, kept)

    async def _dockerfile(self) -> list[str]:
        """The Dockerfile's path as the engine takes it, and each link on the way to it."""
        return followed([self._request.dockerfile], await link_targets(self._request.context, self._entries))

    async def _logins(self) -> dict[str, dict[str, str]]:
        """Logins for every registry that the Dockerfile names: this builder wants them beforehand."""
        files = {entry.path for entry in self._entries if not _is_link(entry)}
        path = next((path for path in await self._dockerfile() if path in files), "")
        text = await read_text(self._request.context, self._entries, path) or ""
        found: dict[str, dict[str, str]] = {}
        for host in sorted(registries(text, self._request.build_args, self._request.cache_from)):
            login = await in_loose_thread(partial(self._request.login, host))
            if login is not None:
                key = "https://index.docker.io/v1/" if host == "docker.io" else host
                found[key] = {"username": login.username, "password": login.password}
        return found


def registries(dockerfile: str, build_args: Mapping[str, str], images: Sequence[str] | object = ()) -> set[str]:
    """The registry hosts of a Dockerfile's FROM lines and of further images; variables are filled in from ARG."""
    values = {found[1]: found[2] or "" for found in _ARG.finditer(dockerfile)} | dict(build_args)
    names = [
        _VARIABLE.sub(lambda found: values.get(found[1] or found[2], ""), match[1]).strip("\"'")
        for match in _FROM.finditer(dockerfile)
    ]
    names += list(images) if isinstance(images, (list, tuple, set, frozenset)) else []
    return {host_of(name) for name in names if name}


def host_of(image: str) -> str:
    """The registry host of an image's name, by Docker's rule."""
    head, slash, _ = image.partition("/")
    return head if slash and ("." in head or ":" in head or head == "localhost") else "docker.io"


async def read_text(context: Context, entries: Sequence[Entry], path: str) -> str | None:
    """A file of the context as text, None if it is not there; cut at 1 MiB."""
    entry = next((entry for entry in entries if entry.path == path), None)
    if entry is None:
        return None
    data = b""
    async with context.read([entry]) as chunks:
        async for _, chunk in chunks:
            data += chunk
            if len(data) > _MAX_DOCKERFILE_BYTES:
                break
    return data[:_MAX_DOCKERFILE_BYTES].decode("utf-8", "replace")


@asynccontextmanager
async def tar_of(context: Context, entries: Sequence[Entry]) -> AsyncIterator[AsyncIterator[bytes]]:
    """These entries as a tar stream. GNU format: the engine takes a leading PAX header for a Dockerfile."""
    async with context.read(entries) as chunks, aclosing(_tar(chunks)) as pieces:
        yield pieces


async def _tar(chunks: AsyncIterator[tuple[Entry, bytes]]) -> AsyncGenerator[bytes, None]:
    left = 0
    link: tuple[Entry, bytes] | None = None
    current: Entry | None = None
    async for entry, chunk in chunks:
        if entry is not current:
            if link is not None:
                yield _header(link[0], link[1])
            link, current, left = None, entry, entry.size
            if _is_link(entry):
                link = (entry, b"")
            else:
                yield _header(entry, b"")
        if link is not None:
            link = (entry, link[1] + chunk)
            continue
        left -= len(chunk)
        yield chunk
        if left == 0 and entry.size % 512:
            yield b"\0" * (512 - entry.size % 512)
    if link is not None:
        yield _header(link[0], link[1])
    yield b"\0" * 1024


def _is_link(entry: Entry) -> bool:
    return entry.mode & 0o170000 == 0o120000


def _header(entry: Entry, target: bytes) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.mtime = _EPOCH
    if _is_link(entry):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target.decode("utf-8", "surrogateescape"), 0o777
    else:
        info.size, info.mode = entry.size, entry.mode & 0o777
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

"""The provider `directory`: runs a Dockerfile's RUN lines on the context, without an engine, and keeps what is there.

An image is an archive of the directory afterwards, named by its digest. Each build runs in a process namespace of its
own (util-linux `unshare`, needs root): the kernel ends everything in it with its first process.
"""

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from blacktree.errors import StepFailed
from blacktree.providers.base import Budget, BuildRequest, BuiltImage, Health, Login, ProviderSettings, Sink

_RUN = re.compile(r"^\s*RUN\s+(?P<command>.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(
    r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+|:\d+)+/)?[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z"
)
Output = Callable[[bytes], Awaitable[None]]
_ALONE = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--"]


class DirectoryProvider:
    """Keeps images below its state directory, and nothing else longer than a build."""

    name = "directory"

    def __init__(self, directory: Path) -> None:
        self._images = directory / "images"
        self._work = directory / "work"
        self._images.mkdir(parents=True, exist_ok=True)
        self._work.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, int] = {}

    async def check(self) -> Health:
        """See `Provider`."""
        done = await trio.run_process([*_ALONE, "true"], check=False, capture_stdout=True, capture_stderr=True)
        refusal = "" if done.returncode == 0 else "cannot make a process namespace: run the worker as root"
        return Health(name=self.name, version=sys.version.split()[0], refusal=refusal)

    async def build(self, request: BuildRequest, sink: Sink) -> BuiltImage:
        """See `Provider`."""
        self._running[request.job_id] = self._running.get(request.job_id, 0) + 1
        place = Path(tempfile.mkdtemp(prefix=f"{request.job_id}-", dir=self._work))
        try:
            await self._unpack(request, place)
            await self._run_all(request, place, sink)
            return BuiltImage(await trio.to_thread.run_sync(self._keep, place))
        finally:
            self._running[request.job_id] -= 1
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, place, ignore_errors=True))

    async def _unpack(self, request: BuildRequest, place: Path) -> None:
        archive = bytearray()
        async with request.context.tar() as chunks:
            async for chunk in chunks:
                archive += chunk
        with tarfile.open(fileobj=io.BytesIO(bytes(archive))) as files:
            files.extractall(place, filter="data")

    async def _run_all(self, request: BuildRequest, place: Path, sink: Sink) -> None:
        try:
            text = (place / request.dockerfile).read_text(encoding="utf-8")
        except OSError:
            raise StepFailed(f"there is no `{request.dockerfile}`", code="dockerfile_missing", step="build") from None
        for number, match in enumerate(_RUN.finditer(text), 1):
            step, name = f"run-{number}", f"RUN {match['command']}"
            await sink.step_started(step, name)
            began = trio.current_time()
            code: int | None = None
            try:
                code = await self._command(match["command"], place, request, partial(sink.output, step, "stdout"))
            finally:
                with trio.move_on_after(2, shield=True):
                    seconds = trio.current_time() - began
                    await sink.step_finished(step, name, cached=False, seconds=seconds, ok=code == 0)
            if code:
                message = f"`{name}` ended with {code}"
                raise StepFailed(message, code="run_failed", step=step, exit_code=code)

    async def _command(self, command: str, place: Path, request: BuildRequest, output: Output) -> int:
        environ = {"PATH": os.environ.get("PATH", os.defpath), **request.build_args}
        process = await trio.lowlevel.open_process(
            [*_ALONE, "/bin/sh", "-c", command],
            cwd=place,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            async with process.stdout:
                async for chunk in process.stdout:
                    await output(bytes(chunk))
            return await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)

    def _keep(self, place: Path) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(place, arcname=".", filter=_plain)
        name = hashlib.sha256(packed.getvalue()).hexdigest()
        (self._images / f"{name}.tar").write_bytes(packed.getvalue())
        return f"sha256:{name}"

    async def tag(self, image_id: str, references: Collection[str]) -> None:
        """See `Provider`. A name is a link to the image."""
        await trio.lowlevel.checkpoint()
        archive = self._images / f"{image_id.removeprefix('sha256:')}.tar"
        for reference in references:
            if not _NAME.match(reference):
                raise StepFailed(f"`{reference}` is no name", code="image_name_refused", step="tag")
            link = self._images / reference.replace("/", "%")
            link.unlink(missing_ok=True)
            link.symlink_to(archive.name)

    async def untag(self, references: Collection[str]) -> None:
        """See `Provider`."""
        await trio.lowlevel.checkpoint()
        for reference in references:
            (self._images / reference.replace("/", "%")).unlink(missing_ok=True)

    async def push(
        self,
        reference: str,
        login: Login | None,
        sink: Sink,
        *,
        step: str = "push",
        stall_seconds: float = 300.0,
        nearly: Callable[[], None] = lambda: None,
    ) -> str:
        """See `Provider`. An archive has no layers that a registry could take."""
        await trio.lowlevel.checkpoint()
        raise StepFailed("images of this provider are archives", code="push_unsupported", step=step)

    async def remaining(self, job_id: str) -> list[str]:
        """See `Provider`."""
        await trio.lowlevel.checkpoint()
        running = [f"build of {job_id}"] * self._running.get(job_id, 0)
        return running + [str(path) for path in self._work.glob(f"{job_id}-*")]

    async def sweep(self, alive: Collection[str]) -> list[str]:
        """See `Provider`."""
        await trio.lowlevel.checkpoint()
        left = [path for path in self._work.iterdir() if path.name.rpartition("-")[0] not in alive]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return [str(path) for path in left]

    async def prune(self, budget: Budget) -> int:
        """See `Provider`."""
        await trio.lowlevel.checkpoint()
        freed = 0
        archives = sorted(self._images.glob("*.tar"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in archives)
        for path in archives:
            if total - freed <= budget.image_bytes:
                break
            freed += path.stat().st_size
            path.unlink()
        return freed


async def _end(process: trio.Process) -> None:
    """Kill the namespace's first process: `unshare` ends after it, and the kernel has by then ended all the others."""
    if process.returncode is None:
        with suppress(OSError):
            inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in inner:
                os.kill(int(pid), signal.SIGKILL)
            if not inner:
                process.kill()
    await process.wait()


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what differs from build to build."""
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


@asynccontextmanager
async def open_provider(settings: ProviderSettings) -> AsyncIterator[DirectoryProvider]:
    """Entry point `directory`."""
    yield DirectoryProvider(Path(settings.state_directory or tempfile.gettempdir()) / "directory")

"""Child processes: without a shell, with an environment of their own, and with nothing left of them afterwards."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from blacktree.errors import TooLarge

CHUNK_BYTES = 64 * 1024
_GONE_SECONDS = 5.0


@dataclass(frozen=True)
class Completed:
    """How a child ended (negative: by that signal) and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes


@asynccontextmanager
async def open_process(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path | None = None,
    stdin: bool = False,
    inherited: Collection[int] = (),
    grace_seconds: float = 2.0,
) -> AsyncIterator[trio.Process]:
    """A child in a session of its own, its stdout and stderr (and stdin, if asked for) as streams.

    At the end of the block, however it ends, the whole process group is gone: SIGTERM if the child still runs, SIGKILL
    after `grace_seconds` and to whatever it left behind, then reaped. `inherited` file descriptors stay open in it.
    Raises `OSError` if it cannot be started.
    """
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd=directory,
        start_new_session=True,
        pass_fds=tuple(inherited),
    )
    try:
        yield process
    finally:
        with trio.move_on_after(grace_seconds + _GONE_SECONDS, shield=True):
            await _end(process, grace_seconds)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                # Not aclose(): it is a checkpoint, and a cancelled scope would leave the others open.
                with trio.CancelScope(shield=True):
                    await stream.aclose()


async def run_process(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path | None = None,
    stdin: bytes = b"",
    inherited: Collection[int] = (),
    maximum_stdout: int = 1 << 20,
    on_stderr: Callable[[bytes], Awaitable[None]] | None = None,
    grace_seconds: float = 2.0,
) -> Completed:
    """Run to the end and collect what it printed: over `maximum_stdout` bytes it is ended and `TooLarge` raised.

    Of stderr the last 64 KiB are kept; `on_stderr` sees all of it as it comes. Cancelling ends the whole group.
    """
    out = bytearray()
    err = bytearray()

    async def feed(stream: trio.abc.SendStream) -> None:
        try:
            await stream.send_all(stdin)
        except trio.BrokenResourceError:
            pass  # it ended without reading all: its exit code says why
        await stream.aclose()

    async def collect_errors(stream: trio.abc.ReceiveStream) -> None:
        async for chunk in stream:
            err.extend(chunk)
            del err[:-CHUNK_BYTES]
            if on_stderr is not None:
                await on_stderr(bytes(chunk))

    async with open_process(
        argv,
        environment=environment,
        directory=directory,
        stdin=bool(stdin),
        inherited=inherited,
        grace_seconds=grace_seconds,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        too_large = False
        with single_error():
            async with trio.open_nursery() as nursery:
                if process.stdin is not None:
                    nursery.start_soon(feed, process.stdin)
                nursery.start_soon(collect_errors, process.stderr)
                async for chunk in process.stdout:
                    out.extend(chunk)
                    if len(out) > maximum_stdout:
                        too_large = True
                        nursery.cancel_scope.cancel()
                        break
        if too_large:
            raise TooLarge(f"{argv[0]} printed more than {maximum_stdout} bytes", code="output_too_large")
        code = await process.wait()
    return Completed(code, bytes(out), bytes(err))


@contextmanager
def single_error() -> Iterator[None]:
    """A nursery's group of one error leaves as that error: callers catch by kind."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from error.__cause__


async def _end(process: trio.Process, grace_seconds: float) -> None:
    group = process.pid
    if process.poll() is None:
        _signal_group(group, signal.SIGTERM)
        with trio.move_on_after(grace_seconds):
            await process.wait()
    _signal_group(group, signal.SIGKILL)
    await process.wait()
    # Grandchildren are reaped by whoever adopted them; all we can await is that none of them runs.
    pause = 0.001
    while _signal_group(group, 0) and _running(group):
        await trio.sleep(pause)
        pause = min(0.05, pause * 2)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _running(group: int) -> bool:
    """Whether a process of the group is more than a zombie (proc(5): state is field 3, process group field 5)."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
                return True
    return False

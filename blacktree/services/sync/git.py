"""git, hardened: no shell, no prompts, no configuration but ours, no protocol but the one that is meant."""

import os
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from blacktree.address import Address
from blacktree.concurrency.process import Completed, open_process, run_process, single_error
from blacktree.errors import Broken, StepFailed
from blacktree.services.core.masking import Masker
from blacktree.services.sync.credentials import ASKPASS, Credentials

# What a worker's own network needs; nothing else of its environment reaches git.
_AMBIENT = (
    "PATH",
    "TMPDIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(name for each in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (each, each.upper())),
)
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "fetch.unpackLimit=1",
    "transfer.bundleURI=false",
    "credential.helper=",
    "http.followRedirects=initial",
    "protocol.allow=never",
)
_PROGRESS = re.compile(rb"(?:Receiving|Resolving|Unpacking|Counting|Compressing) \w+:\s+\d+% \((\d+)/(\d+)\)")
# The source of a local fetch may belong to another user; git takes this from a file only.
_CONFIG = "[safe]\n\tdirectory = *\n"

Output = Callable[[bytes], Awaitable[None]]
Progress = Callable[[int, int], Awaitable[None]]


async def _nothing(*args: object) -> None:
    await trio.lowlevel.checkpoint()


class Git:
    """Runs git for one worker. `home` (below the state directory) holds the askpass script and nothing secret.

    `output` takes what git prints while it fetches, masked; `progress` how far it is.
    """

    def __init__(
        self,
        home: Path,
        credentials: Credentials,
        *,
        stall_seconds: float,
        masker: Masker | None = None,
        output: Output = _nothing,
        progress: Progress = _nothing,
        ambient: Mapping[str, str] | None = None,
    ) -> None:
        self._home = home
        self._credentials = credentials
        self._stall_seconds = stall_seconds
        self.masker = masker or Masker(credentials.secrets)
        self.output = output
        self._progress = progress
        self._ambient = dict(os.environ if ambient is None else ambient)
        self._askpass = home / "askpass"
        self._config = home / "config"

    def prepare(self) -> None:
        """Make `home`. Blocking, cheap, idempotent."""
        for directory in (self._home, self._home / "empty"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content, mode in ((self._askpass, ASKPASS, 0o700), (self._config, _CONFIG, 0o600)):
            if not path.exists() or path.read_text() != content:
                fresh = path.with_suffix(f".{secrets.token_hex(8)}")
                fresh.write_text(content)
                fresh.chmod(mode)
                fresh.replace(path)

    def _environment(self) -> dict[str, str]:
        kept = {name: self._ambient[name] for name in _AMBIENT if name in self._ambient}
        return {
            "PATH": os.defpath,
            **kept,
            "HOME": str(self._home / "empty"),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_CEILING_DIRECTORIES": str(self._home),  # no repository above the directory it runs in is ours
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
        }

    def _argv(self, directory: Path | None, words: Sequence[str], settings: Collection[str] = ()) -> list[str]:
        argv = ["git", "--literal-pathspecs"]
        for setting in (*_SETTINGS, *settings):
            argv += ["-c", setting]
        if directory is not None:
            argv.append(f"--git-dir={directory}")
        return [*argv, *words]

    async def local(
        self, directory: Path | None, *words: str, maximum_stdout: int = 1 << 20, inherited: Collection[int] = ()
    ) -> Completed:
        """Run without any network; the caller looks at the code."""
        return await run_process(
            self._argv(directory, words),
            environment=self._environment(),
            directory=self._home / "empty",
            maximum_stdout=maximum_stdout,
            inherited=inherited,
        )

    def open(
        self, directory: Path, *words: str, stdin: bool = False, alternates: Collection[Path] = ()
    ) -> AbstractAsyncContextManager[trio.Process]:
        """As `local`, as a stream. `alternates` are further repositories whose objects are to be seen."""
        environment = self._environment()
        if alternates:
            paths = (str(path / "objects") for path in alternates)
            environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = os.pathsep.join(paths)
        return open_process(self._argv(directory, words), environment=environment, stdin=stdin)

    async def remote(
        self,
        directory: Path | None,
        address: Address,
        *words: str,
        watched: Callable[[], Awaitable[int]] | None = None,
        inherited: Collection[int] = (),
    ) -> Completed:
        """Run with the network, for this address only. A host that is silent too long is given up.

        `watched` says every so often how much has arrived (and may raise); growing counts as life. Raises `StepFailed`
        (code `repository_stalled`, again=True).
        """
        stall = max(1, int(self._stall_seconds + 0.999))
        settings = [
            f"protocol.{address.scheme}.allow=always",
            "http.lowSpeedLimit=1",
            f"http.lowSpeedTime={stall}",
        ]
        environment = self._environment() | self._credentials.environment(address, self._askpass, self._ambient)
        stderr = StderrReader(self.masker, self.output, self._progress)
        alive_at = trio.current_time()
        seen = 0
        refusal: StepFailed | None = None
        reader_waits = False
        done: Completed | None = None

        async def on_stderr(chunk: bytes) -> None:
            nonlocal alive_at, reader_waits
            reader_waits = True  # a sink that makes us wait is no sign of a dead host
            await stderr.feed(chunk)
            reader_waits = False
            alive_at = trio.current_time()

        async def watch(scope: trio.CancelScope) -> None:
            nonlocal alive_at, seen, refusal
            while True:
                await trio.sleep(min(0.5, self._stall_seconds / 4))
                try:
                    size = await watched() if watched is not None else 0
                    if size != seen or reader_waits:
                        seen, alive_at = size, trio.current_time()
                    if trio.current_time() - alive_at > self._stall_seconds:
                        raise _stalled(address, self._stall_seconds)
                except StepFailed as error:
                    refusal = error
                    scope.cancel()

        with single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, nursery.cancel_scope)
                done = await run_process(
                    self._argv(directory, words, settings),
                    environment=environment,
                    directory=self._home / "empty",
                    maximum_stdout=16 << 20,
                    on_stderr=on_stderr,
                    inherited=inherited,
                )
                nursery.cancel_scope.cancel()
        if done is None:
            raise refusal or Broken("git was cancelled by nobody")
        await stderr.finish()
        return done

    def said(self, done: Completed) -> str:
        """What git printed on stderr, masked."""
        return self.masker.mask(done.stderr).decode("utf-8", "replace")


class StderrReader:
    """git's stderr: whole lines go to the output; of a line that overwrites itself only the last state does."""

    def __init__(self, masker: Masker, output: Output, progress: Progress) -> None:
        self._stream = masker.stream()
        self._output = output
        self._progress = progress
        self._line = b""

    async def feed(self, chunk: bytes) -> None:
        """Take what git printed."""
        text = self._line + self._stream.feed(chunk)
        lines, newline, rest = text.rpartition(b"\n")
        if matches := _PROGRESS.findall(text):
            await self._progress(int(matches[-1][0]), int(matches[-1][1]))
        self._line = rest.rpartition(b"\r")[2] or rest[-1024:]
        if newline:
            await self._output(_overwritten(lines) + b"\n")

    async def finish(self) -> None:
        """Pass on what has no end."""
        rest = self._line + self._stream.finish()
        self._line = b""
        if rest.strip():
            await self._output(_overwritten(rest) + b"\n")


def _overwritten(lines: bytes) -> bytes:
    kept = (line.rstrip(b"\r ").rpartition(b"\r")[2] for line in lines.split(b"\n"))
    # The escape sequence by which git clears the rest of a line.
    return b"\n".join(line.replace(b"\x1b[K", b"") for line in kept)


def _stalled(address: Address, seconds: float) -> StepFailed:
    return StepFailed(
        f"{address.url} said nothing for {seconds:g} seconds",
        code="repository_stalled",
        advice="check the host; `git_stall_seconds` is how long a worker waits",
        again=True,
    )

"""The terminal that `top` fills: keys one by one, the other screen, and everything as it was on any way out."""

import io
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from blacktree.cli.top.keys import Keys
from blacktree.errors import BadRequest

ESCAPE_SECONDS = 0.05
_SMALLEST = (20, 5)


class Terminal:
    """Both ends of one terminal. Only within `taken` is it ours."""

    def __init__(self) -> None:
        """Raises `BadRequest` where there is no terminal to fill."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
            raise BadRequest(
                "`blacktree top` fills a terminal, and this is none",
                code="no_terminal",
                advice="use `blacktree jobs`, `blacktree workers`, `blacktree events --follow`",
            )
        self._keys = sys.stdin.fileno()
        # What cannot be encoded here becomes `?`: better than to end over a character.
        raw = io.BufferedWriter(io.FileIO(sys.stdout.fileno(), "w", closefd=False))
        self._out = io.TextIOWrapper(raw, encoding=sys.stdout.encoding, errors="replace", newline="")
        self._console = Console(file=self._out, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._rows: Sequence[Text] = ()
        self._turn = trio.Lock()
        self._live: Live | None = None
        self._before = termios.tcgetattr(self._keys)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows now."""
        try:
            size = os.get_terminal_size(self._out.fileno())
        except OSError:
            return 80, 24
        return max(_SMALLEST[0], size.columns or 80), max(_SMALLEST[1], size.lines or 24)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The terminal is ours until this ends, however it ends."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def _take(self) -> None:
        mine = termios.tcgetattr(self._keys)
        # Keys at once, unseen, and ^C, ^Z, ^S as keys; output stays as it is. A read never blocks.
        mine[0] &= ~(termios.IXON | termios.ICRNL | termios.INLCR)
        mine[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        mine[6][termios.VMIN] = mine[6][termios.VTIME] = 0
        termios.tcsetattr(self._keys, termios.TCSADRAIN, mine)
        self._live = Live(
            console=self._console,
            get_renderable=lambda: Group(*self._rows),
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._measure()
        self._live.start()

    def _give_back(self) -> None:
        live, self._live = self._live, None
        try:
            if live is not None:
                # What was drawn last stays behind on the other screen.
                self._rows = ()
                live.stop()
        except OSError:
            pass  # The terminal is gone: nothing to restore.
        finally:
            try:
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)
            except (OSError, termios.error):
                pass

    def _measure(self) -> None:
        self._console.size = self.size

    async def draw(self, rows: Sequence[Text]) -> None:
        """Show these rows. In a thread: a slow terminal must hold up nothing but itself."""
        async with self._turn:
            live = self._live
            if live is None:
                return
            self._rows = rows
            self._measure()
            await trio.to_thread.run_sync(live.refresh)

    async def suspend(self) -> None:
        """Stop, as a shell's job does, with the terminal as it was; returns when it is ours again."""
        async with self._turn:
            self._give_back()
            handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, handler)
            self._take()

    async def retake(self) -> None:
        """After somebody else has stopped and continued us: set up everything again."""
        async with self._turn:
            if self._live is not None:
                self._give_back()
                self._take()

    async def keys(self) -> AsyncIterator[str]:
        """What is typed, key by key; ends when the terminal is gone."""
        decoder = Keys()
        silent = 0
        while silent < 3:
            with trio.move_on_after(ESCAPE_SECONDS if decoder.waiting else float("inf")) as waited:
                await trio.lowlevel.wait_readable(self._keys)
            if waited.cancelled_caught:
                for key in decoder.flush():
                    yield key
                continue
            try:
                data = os.read(self._keys, 4096)
            except OSError:
                return
            # Readable and nothing there is a terminal that hung up, unless somebody else took the bytes.
            silent = 0 if data else silent + 1
            if not data:
                await trio.sleep(0.02)
            for key in decoder.feed(data):
                yield key

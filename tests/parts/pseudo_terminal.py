"""A program on a terminal of its own: keys are sent, the screen is read, signals are as a person's."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

SLOW = 40.0
# What a full-screen program of ours may send: colours, home, cursor off and on, the other screen and back.
ALLOWED = re.compile(r"\x1b\[[0-9;]*m|\x1b\[H|\x1b\[\?25[lh]|\x1b\[\?1049[lh]")


class PseudoTerminal:
    """One program that runs on it. `raw` is all that it has sent."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], columns: int, rows: int) -> None:
        self._master, self._slave = pty.openpty()
        self._size(columns, rows)
        self.before = self.mode
        self.raw = ""
        kept = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            env=kept | {"TERM": "xterm-256color"},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    @property
    def mode(self) -> object:
        """How the terminal is set."""
        return termios.tcgetattr(self._slave)

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """As a window that is pulled: the kernel tells the program."""
        self._size(columns, rows)

    def send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            piece = os.read(self._master, 65536)
        except OSError:
            return False
        self.raw += piece.decode(errors="replace")
        return bool(piece)

    @property
    def screen(self) -> str:
        """The frame drawn last, as words; the one before if it is not there whole."""
        frames = self.raw.split("\x1b[H")
        rows = [ALLOWED.sub("", frame).split("\r\n") for frame in frames[-2:]]
        newest = max(rows, key=len) if len(rows[-1]) < len(rows[0]) else rows[-1]
        return "\n".join(row.rstrip() for row in newest)

    def until(self, fits: Callable[[str], object] | str) -> str:
        """Read until the screen fits, or holds this word; answers the screen."""
        deadline = time.monotonic() + SLOW
        while True:
            screen = self.screen
            if (fits in screen) if isinstance(fits, str) else fits(screen):
                return screen
            assert self._read() or self.process.poll() is None, f"it has ended: {self.raw[-3000:]}"
            assert time.monotonic() < deadline, f"still:\n{self.screen}"

    def until_said(self, word: str, after: int = 0) -> None:
        """Read until this came, wherever on the screen, behind so many characters."""
        deadline = time.monotonic() + SLOW
        while word not in self.raw[after:]:
            assert time.monotonic() < deadline, self.raw[-3000:]
            self._read()

    def ended(self) -> int:
        """Wait for its end; answers how it ended."""
        deadline = time.monotonic() + SLOW
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.screen
            self._read()
        while select.select([self._master], [], [], 0)[0] and self._read():
            pass
        return self.process.returncode

    def foreign(self) -> list[str]:
        """Escapes and controls that it sent and should not have."""
        return re.findall("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f].{0,20}", ALLOWED.sub("", self.raw))

    def hang_up(self) -> None:
        """The window is closed."""
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            # Its whole session is ours: nobody else is in it.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(40)
        if self._master >= 0:
            self.hang_up()


@contextmanager
def open_terminal(
    command: Sequence[str], environ: Mapping[str, str], *, columns: int = 100, rows: int = 24
) -> Iterator[PseudoTerminal]:
    """A program on a terminal; ended on leaving, if it has not."""
    terminal = PseudoTerminal(command, environ, columns, rows)
    try:
        yield terminal
    finally:
        terminal.close()

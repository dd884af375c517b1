"""A program on a pseudo-terminal, and its screen as a person would see it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Self

import pyte

from support.process import WAIT_S, environment

COLUMNS, LINES = 120, 36
PIECE = 512
"""Bytes that are taken at once: what is shown for a moment is seen, also by who reads much later."""


class Terminal:
    """Runs ``argv`` on construction; at the end of the block it runs no more."""

    def __init__(self, *argv: str) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self.fd, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._modes = termios.tcgetattr(its)
        self._process = subprocess.Popen(
            argv,
            env=environment(TERM="xterm-256color"),
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        self.pid = self._process.pid
        os.close(its)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self.end()
        os.close(self.fd)

    def until(self, wanted: Callable[[str], bool], each: Callable[[], None] = lambda: None) -> None:
        """Read until the screen is as wanted; ``each`` runs five times a second meanwhile."""
        deadline = time.monotonic() + WAIT_S
        while not wanted(self.text):
            assert time.monotonic() < deadline, self.text
            each()
            self._read(0.2)

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self.fd, keys)

    @property
    def text(self) -> str:
        """The screen, one line a row."""
        return "\n".join(self.screen.display)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        while self._read(WAIT_S):
            pass
        return self._process.wait(WAIT_S)

    @property
    def restored(self) -> bool:
        """Whether the line discipline, the screen, the cursor and the mouse are as they were before the program."""
        pairs = ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?1000h", b"\x1b[?1000l"))
        codes = all(self.raw.rfind(undone) > self.raw.rfind(done) for done, undone in pairs)
        return codes and termios.tcgetattr(self.fd) == self._modes

    def _read(self, timeout_s: float) -> bool:
        """False at the end of the program's output."""
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return True
        try:
            found = os.read(self.fd, PIECE)
        except OSError:  # Linux: nobody holds the other side any more
            return False
        self.raw += found
        self._stream.feed(found)
        return bool(found)


def _take_terminal() -> None:
    """In the program: what it has for standard input is its controlling terminal, as in a login."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

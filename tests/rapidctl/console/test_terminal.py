"""The console in a real terminal: a pseudo-terminal, the real command, a scripted daemon that dies and returns."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from msgspec.structs import replace

from support import samples
from support.peer import Peer
from support.process import environment, wait_for_end

COLUMNS, LINES = 120, 36
WAIT_S = 30.0
"""Longest wait for something that must happen; only a failing test ever waits so long."""


class Terminal:
    """A program on a pseudo-terminal, its screen as a person would see it."""

    def __init__(self, *argv: str) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, environment(TERM="xterm-256color"))
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.modes = termios.tcgetattr(self.fd)
        self._ended = os.pidfd_open(self.pid)

    def until(self, wanted: Callable[[str], bool], each: Callable[[], None] = lambda: None) -> None:
        """Read until the screen is as wanted; ``each`` runs five times a second meanwhile."""
        deadline = time.monotonic() + WAIT_S
        while not wanted("\n".join(self.screen.display)):
            assert time.monotonic() < deadline, "\n".join(self.screen.display)
            each()
            self._read(0.2)

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        while self._read(WAIT_S):
            pass
        assert wait_for_end(self._ended)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _read(self, timeout_s: float) -> bool:
        """False at the end of the program's output."""
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return True
        try:
            found = os.read(self.fd, 65536)
        except OSError:  # Linux: nobody holds the other side any more
            return False
        self.raw += found
        self._stream.feed(found)
        return bool(found)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path) as found:
        yield found


def test_it_shows_the_daemon_says_stale_recovers_and_leaves_the_terminal_as_it_was(peer: Peer) -> None:
    terminal = Terminal(sys.executable, "-m", "rapidctl.cli", "--endpoint", peer.endpoint, "top")
    seq = iter(range(10, 10_000))

    def publish() -> None:
        peer.publish(replace(samples.SNAPSHOT, seq=next(seq)))

    terminal.until(lambda text: "● LIVE" in text and "CORES 2" in text and "SmolLM2-135M-Instruct" in text, publish)
    peer.stop()
    terminal.until(lambda text: "◌ STALE" in text and "CORES 2" in text)
    peer.start()
    terminal.until(lambda text: "● LIVE" in text, publish)
    terminal.press(b"q")
    assert terminal.end() == 0
    for code in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l"):
        assert terminal.raw.rfind(code) > terminal.raw.rfind(code[:-1] + (b"l" if code.endswith(b"h") else b"h"))

"""What the system's signals ask of the supervisor: to be polled, then read. Knows nothing of what comes of it."""

import contextlib
import os
import signal
import socket
from typing import Final, Literal

Wish = Literal["stop", "reload"]

STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """This process's, from now on; only in its main thread. The end of a child (SIGCHLD) wakes and asks for nothing."""

    def __init__(self) -> None:
        self._had_terminal: Final = _has_terminal()
        self._wakeup, self._received = socket.socketpair()
        for sock in (self._wakeup, self._received):
            sock.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (*STOPS, signal.SIGHUP, signal.SIGCHLD):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, lambda *_: None)  # what counts is the byte in the pipe

    def fileno(self) -> int:
        """For pollers."""
        return self._received.fileno()

    def wishes(self) -> list[Wish]:
        """What was asked for since the last call, in order."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            numbers = self._received.recv(4096)
        wishes: list[Wish] = []
        for number in numbers:
            if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
                wishes.append("reload")
            elif number in (*STOPS, signal.SIGHUP):
                wishes.append("stop")
        return wishes


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there: its end is a SIGHUP too."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

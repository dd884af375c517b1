"""What the supervisor says of the daemon: lines for people, statuses and states for systemd."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from rapidd import log
from rapidd.sdnotify import notify, settle

LOAD_EXTENSION_S: Final = 120.0
"""systemd's start timeout moves by this at each report of progress."""


class Voice:
    """Says nothing twice in a row, and tells systemd of no reload unless it takes the daemon for one that serves."""

    def __init__(self) -> None:
        self.was_ready = False
        """The front and the engine were ready together once."""
        self._is_stopping = False
        self._line = ""
        self._status = ""

    def say(self, line: str, tell: Callable[[str], None] = log.info) -> None:
        """A line for people, at the level of ``tell``, and for ``systemctl status``."""
        if line == self._line:
            return
        self._line = line
        notify(f"STATUS={line}")
        tell(line)

    def status(self, text: str) -> None:
        """For ``systemctl status`` only."""
        if text != self._status:
            self._status = text
            notify(f"STATUS={text}")

    def beat(self) -> None:
        """The supervisor's loop turns. What systemd had no room for is sent again."""
        settle()
        if "WATCHDOG_USEC" in os.environ:
            notify("WATCHDOG=1")

    def loading(self, line: str) -> None:
        """A start makes progress."""
        self.say(line)
        notify(f"EXTEND_TIMEOUT_USEC={LOAD_EXTENSION_S * 1e6:.0f}")

    def ready(self, line: str) -> None:
        """The front and the engine are ready, again or for the first time."""
        self.say(line)
        self.was_ready = True
        self._notify_if_up("READY=1")

    def reloading(self) -> None:
        """A reload begins."""
        self._notify_if_up("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self, outcome: Sequence[str], tell: Callable[[str], None]) -> None:
        """A reload has ended. The same outcome twice is news twice."""
        self._line = ""
        for line in outcome:
            self.say(line, tell)
        self._notify_if_up("READY=1")

    def stopping(self, limit_s: float) -> None:
        """The daemon ends within ``limit_s``."""
        self._is_stopping = True
        notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={limit_s * 1e6:.0f}")

    def _notify_if_up(self, *states: str) -> None:
        if self.was_ready and not self._is_stopping:
            notify(*states)

"""When a child counts as hung, from what its main loop answers; pure, counted in beats of the supervisor.

A process that runs says nothing: health is a loop that answers, and batches that end while requests are there. Beats
are counted, not seconds: a supervisor that was itself stopped for a while has sent no probes, and blames nobody.
"""

import math
from typing import Final

from rapidd.ipc import Probe, Pulse

BEAT_S: Final = 2.0
"""Between two probes; also how often systemd's watchdog hears of the supervisor."""
ABORT_S: Final = 5.0
"""What a hung child gets to write its stacks after SIGABRT, before SIGKILL."""


class Watch:
    """One process of one child, from when it said that it is ready. ``limit_s`` 0: nothing counts as hung."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._silent = 0
        """Probes in a row without an answer."""
        self._stuck = 0
        """Beats since the last sign of progress."""
        self._last = Pulse()

    def beat(self, now_s: float) -> Probe:
        """The next probe to send; ``now_s`` is on the monotonic clock."""
        self._silent += 1
        self._stuck += 1
        return Probe(int(now_s * 1e9))

    def heard(self, pulse: Pulse) -> None:
        """The loop turned."""
        self._silent = 0
        if pulse.requests == 0 or pulse.finished is None or pulse.finished != self._last.finished:
            self._stuck = 0
        self._last = pulse

    @property
    def trouble(self) -> str | None:
        """Why the child counts as hung; null while it does not."""
        if not self.limit_s:
            return None
        if self._silent > _beats(self.limit_s):
            return f"its main loop did not answer for {self.limit_s:g} s (server.hang-timeout-s)"
        patience_s = max(self.limit_s, self._last.patience_s)
        if self._last.requests and self._stuck > _beats(patience_s):
            return f"no batch ended for {patience_s:.0f} s while {self._last.requests} requests wait"
        return None


def _beats(seconds: float) -> int:
    return math.ceil(seconds / BEAT_S)

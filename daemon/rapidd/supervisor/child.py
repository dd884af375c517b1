"""One child process of the supervisor: how it is started, heard, signalled, and when it is started again.

Knows nothing of what the child does; the child knows its end of the channel and must exit at end of file there.
"""

import contextlib
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from rapidctl.wire import RestartCause
from rapidd.ipc import Channel, ChildLine, ChildReport, SupervisorLine, decode_child
from rapidd.supervisor.ladder import ABORT_S, Watch

ChildName = Literal["front", "engine"]

HEALTHY_S: Final = 60.0
"""A child that was ready for so long starts again without the penalty of earlier failures."""
KILL_WAIT_S: Final = 5.0
STDERR: Final = 2


class Child:
    """A process that is started again, after ``delays_s[i]`` at its i-th failure in a row (the last one repeats)."""

    def __init__(self, name: ChildName, command: Sequence[str], delays_s: Sequence[float]) -> None:
        self.name: Final = name
        self.report: ChildReport | None = None
        """Latest of the running process."""
        self.channel: Channel | None = None
        self.ever_ready = False
        self.causes: Counter[str] = Counter()
        """Of restarts."""
        self.ended_by: RestartCause | None = None
        """Why the running process was ended by us; null: it was not."""
        self.failures = 0
        """In a row."""
        self.started_s = 0.0
        self.retry_at_s: float | None = None
        """When the next start is due, while the process is gone."""
        self.kill_at_s: float | None = None
        """When a hung process that was aborted is killed."""
        self.watch = Watch(0.0)
        self.load_limit_s = 0.0
        """A child that is not ready and reports no progress for so long hangs: a device's library may, at start."""
        self._command: Final = command
        self._delays_s: Final = delays_s
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_s: float | None = None
        self._heard_s = 0.0
        self._cause: RestartCause = "start"
        """Of the latest failure."""

    def count_restart(self) -> None:
        """The process that failed last is about to be started again."""
        self.causes[self._cause] += 1

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether there is a process that was not reaped yet."""
        return self._process is not None

    @property
    def ready(self) -> bool:
        """Whether the running process said so."""
        return self.report is not None and self.report.state == "ready"

    def start(self, config_file: Path, lock: int, now_s: float) -> None:
        """Start the process; it inherits ``lock``. Raises OSError when the system cannot.

        It gets a process group of its own, so that a Ctrl-C in the terminal reaches the supervisor only.
        """
        ours, theirs = socket.socketpair()
        self.retry_at_s, self.report, self._ready_s, self.started_s = None, None, None, now_s
        self.kill_at_s, self.watch, self._heard_s = None, Watch(self.watch.limit_s), now_s
        self.ended_by = None
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*self._command, "--config", str(config_file), "--channel", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=STDERR,
                    pass_fds=(theirs.fileno(), lock),
                    process_group=0,
                    env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
                )
            except OSError:
                ours.close()
                raise
        self.channel = Channel(ours)

    def hear(self, now_s: float) -> list[ChildLine]:
        """What has arrived. A line that is no message is skipped: it cannot be worth the daemon's life."""
        heard: list[ChildLine] = []
        for line in self.channel.lines() if self.channel is not None else ():
            try:
                heard.append(decode_child(line))
            except (ValueError, RecursionError):
                continue
        if heard:
            self._heard_s = now_s
        for message in heard:
            if isinstance(message, ChildReport):
                self.report = message
        if self.ready and self._ready_s is None:
            self._ready_s = now_s
            self.ever_ready = True
        return heard

    def tell(self, line: SupervisorLine) -> None:
        """Send a line, if there is somebody to read it."""
        if self.channel is not None:
            self.channel.send(line)

    def check(self, now_s: float) -> str | None:
        """One beat of the ladder: probe the loop of a process that is ready, and abort one that is hung.

        Returns why, when it was aborted now. SIGABRT makes it write its stacks; `kill_at_s` is for what ignores that.
        """
        if self._process is None or self.kill_at_s is not None:
            return None
        if self._ready_s is not None:
            trouble = self.watch.trouble
        else:
            silent = self.watch.limit_s and now_s - self._heard_s > self.load_limit_s
            trouble = (
                f"no progress for {self.load_limit_s:g} s (server.load-timeout-s) while it starts" if silent else None
            )
        if trouble is not None:
            self.kill_at_s = now_s + ABORT_S
            self.ended_by = "hang"
            self.signal(signal.SIGABRT)
        elif self._ready_s is not None:
            self.tell(self.watch.beat(now_s))
        return trouble

    def reap(self) -> int | None:
        """Exit status of a process that has ended since the last call (negative: the signal), else null."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._process, self.kill_at_s = None, None
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        return status

    def failed(self, now_s: float) -> float:
        """Count a failure; the next start is due after the seconds returned."""
        if self._ready_s is not None and now_s - self._ready_s >= HEALTHY_S:
            self.failures = 0
        self.failures += 1
        self._cause = self.ended_by or ("start" if self._ready_s is None else "exit")
        self.report, self._ready_s = None, None
        delay_s = self._delays_s[min(self.failures, len(self._delays_s)) - 1]
        self.retry_at_s = now_s + delay_s
        return delay_s

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End the process at once; waits for it, but not for one that is stuck in a driver."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_WAIT_S)


def describe_exit(status: int) -> str:
    """An exit status for people."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"

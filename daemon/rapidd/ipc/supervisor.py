"""Between the supervisor and its children: JSON lines over a socketpair, whose end of file is the supervisor's end."""

import os
import select
import socket
import threading
from typing import Literal

import msgspec
from msgspec import Struct

from rapidd.config import Config


class ChildReport(Struct, tag_field="kind", tag="report"):
    """A child's line to the supervisor: where it is in its life. ``percent`` of loading, when known.

    ``device``: of an engine that is ready.
    """

    state: Literal["loading", "ready", "draining", "drained"]
    detail: str = ""
    percent: float | None = None
    device: Literal["cpu", "cuda", "hip"] | None = None


class SupervisorNote(Struct, tag_field="kind", tag="note"):
    """The supervisor's line to the front: what the other processes are doing.

    ``started_mono_ns``: when the daemon started, on the system's monotonic clock, which all its processes share.
    The causes are of restarts, `rapidctl.wire.RestartCause`. ``draining``: what the last `AdmissionStopped` said.
    """

    supervisor_pid: int
    engine_pid: int | None
    engine_state: Literal["starting", "ready", "restarting"]
    detail: str
    percent: float | None
    started_mono_ns: int
    engine_causes: dict[str, int] = {}
    front_causes: dict[str, int] = {}
    draining: bool = False


class Probe(Struct, tag_field="kind", tag="probe"):
    """The supervisor's question to a child's main loop, every two seconds; it comes back as `Pulse`.

    ``asked_mono_ns``: when it was asked, on the system's monotonic clock.
    """

    asked_mono_ns: int


class Pulse(Struct, tag_field="kind", tag="pulse"):
    """Answer to `Probe`, given by the loop itself. ``requests``: that are live; ``finished``: batches since the start,
    null from a child that computes none and so is judged by its answers alone.

    ``patience_s``: how long a batch may take on this device, from what the warm-up took.
    """

    requests: int = 0
    finished: int | None = None
    patience_s: float = 0.0


class Reload(Struct, tag_field="kind", tag="reload"):
    """A new configuration that differs from the one in force in hot settings only. The engine answers by `Reloaded`."""

    config: Config


class Reloaded(Struct, tag_field="kind", tag="reloaded"):
    """The engine's outcome of `Reload`; ``problem``: why nothing was changed, empty when it was."""

    problem: str = ""


class DeviceFault(Struct, tag_field="kind", tag="device"):
    """The front's line about the device: the engine must be started anew, or no engine can use it any more."""

    remedy: Literal["restart", "stop"]
    text: str


class AskReload(Struct, tag_field="kind", tag="ask_reload"):
    """The front's line: an operator wants the configuration read again."""


class AdmissionStopped(Struct, tag_field="kind", tag="admission"):
    """The front's line: an operator stopped admission (``on``) or allows it again. It holds for the next front too."""

    on: bool


class NoEngine(Struct, tag_field="kind", tag="no_engine"):
    """The supervisor's line to the front: no engine will come any more, and why. It ends the daemon."""

    reason: str


class ReloadDone(Struct, tag_field="kind", tag="reload_done"):
    """The supervisor's line to the front: what became of a reload, whoever wanted it."""

    text: str
    refused: bool


ChildLine = ChildReport | Pulse | Reloaded | DeviceFault | AskReload | AdmissionStopped
SupervisorLine = SupervisorNote | Probe | Reload | ReloadDone | NoEngine


class Channel:
    """JSON lines over the socketpair between the supervisor and one child.

    End of file tells a child that the supervisor is gone: it must exit, so that no orphan keeps device memory.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._buffer = b""
        self.closed = False

    def fileno(self) -> int:
        """For pollers."""
        return self._sock.fileno()

    def send(self, message: Struct) -> None:
        """Best effort: a peer that is gone or does not read loses reports, never stalls the sender."""
        try:
            self._sock.send(msgspec.json.encode(message) + b"\n")
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def lines(self) -> list[bytes]:
        """Complete lines that have arrived; sets ``closed`` at end of file."""
        while True:
            try:
                data = self._sock.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        return lines

    def close(self) -> None:
        """Give the descriptor back."""
        self._sock.close()


def exit_with_supervisor(channel: Channel) -> None:
    """End this process when the supervisor does, even while it loads, or hangs: a thread waits for the hang-up.

    For a child whose main loop may not look at the channel for long; nothing is cleaned up.
    """

    def watch() -> None:
        poller = select.poll()
        poller.register(channel.fileno(), 0)  # no events: only the hang-up, which is always reported
        poller.poll()
        os._exit(1)

    threading.Thread(target=watch, name="supervisor watch", daemon=True).start()


decode_child = msgspec.json.Decoder(ChildLine).decode
decode_supervisor = msgspec.json.Decoder(SupervisorLine).decode

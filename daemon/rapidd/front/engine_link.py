"""The engine as the front sees it: who it is, whether it lives, and what it last said about itself.

An engine is there from its `ipc.EngineHello` until a send finds it gone, the supervisor says that its process ended,
or another boot takes its place. One that says nothing behind pings is called lost but keeps its requests: it may only
be slow, and killing it is the supervisor's business. Knows no streams.
"""

from typing import Final, Literal

from msgspec import Struct

from rapidctl import wire
from rapidd import ipc
from rapidd.errors import RequestError
from rapidd.front.clients import Clock, Transport

PING_NS: Final = int(ipc.PING_INTERVAL_S * 1e9)
SEEK_NS: Final = 200_000_000
"""How often a front without an engine asks for one: a restarted front must serve again within a second."""
SILENT_NS: Final = 10_000_000_000
"""A loop that says nothing for so long is called lost; a batch takes at most about a second."""

ASKED_NS: Final = 1_000_000_000
"""Whoever asks for requests' rows again and again wants to see their phases: the engine is watched for so long."""

Change = Literal["new", "again", "known"]


class EngineLink:
    """State of the link. ``hello`` stays when the engine is lost: the model and the device do not change."""

    def __init__(self, transport: Transport, clock: Clock, front_boot_id: str) -> None:
        self._transport = transport
        self._clock = clock
        self._front_boot_id = front_boot_id
        self._identity: bytes | None = None
        self._next_ping_ns = 0
        self._ping_number = 0
        self._unanswered_ns: int | None = None
        self._subscribed = False
        self._asked_ns = clock() - ASKED_NS
        self.hello: ipc.EngineHello | None = None
        self.state: ipc.EngineState | None = None
        self.note: ipc.SupervisorNote | None = None
        self.epoch = 0
        self.policy: str | None = None
        """The policy in force, for the next engine; null until an engine told it."""
        self.override: wire.OverrideInfo | None = None
        """The override in force at ``override_mono_ns``, for the next engine."""
        self.override_mono_ns = 0
        self.mode: wire.Mode | None = None
        """Of its last batch that produced tokens."""

    @property
    def connected(self) -> bool:
        """Messages can be sent to it."""
        return self._identity is not None

    @property
    def life(self) -> Literal["starting", "serving", "engine_lost"]:
        """The engine's part of the daemon's state."""
        if self.hello is None:
            return "starting"
        return "engine_lost" if self._identity is None or self._is_silent() else "serving"

    @property
    def boot_id(self) -> str:
        """Of the engine that is there; empty without one."""
        return self.hello.boot_id if self.hello and self._identity is not None else ""

    @property
    def pid(self) -> int | None:
        """The engine's process, as it or the supervisor says."""
        if self.hello and self._identity is not None:
            return self.hello.pid
        return self.note.engine_pid if self.note else None

    def no_engine(self) -> RequestError:
        """Why nothing can be asked of it now."""
        if self.life == "starting" or self.connected:
            return RequestError("starting", "the engine is not ready yet", "try again shortly", retry_after_s=2.0)
        return RequestError(
            "engine_lost", "there is no engine at the moment", "it is being restarted", retry_after_s=2.0
        )

    def is_from_engine(self, identity: bytes) -> bool:
        """Whether this connection is the engine that was greeted last."""
        return identity == self._identity

    def greet(self, identity: bytes, hello: ipc.EngineHello) -> Change:
        """Answer a hello: from a ``new`` boot, ``again`` after it had been lost or had lost us, or ``known``."""
        change: Change = "new"
        if self.hello is not None and self.hello.boot_id == hello.boot_id:
            # A starting engine may say it twice, on its own and when asked; later it repeats it only when it lost us.
            greeted_now = self._identity is not None and self._ping_number == 0
            change = "known" if greeted_now else "again"
        self._identity = identity
        self.hello = hello
        if change == "new":
            self.state = None
            self._ping_number = 0
        self._unanswered_ns = None
        self.send(ipc.FrontHello(self._front_boot_id, self.epoch, self.policy, self.override, self.override_mono_ns))
        self._next_ping_ns = self._clock() + PING_NS
        return change

    def send(self, message: Struct) -> bool:
        """One message to the engine; false, and the link is down, when it is not there."""
        if self._identity is None:
            return False
        if self._transport.to_engine(self._identity, ipc.encode(message)):
            return True
        self.drop()
        return False

    def drop(self) -> None:
        """The engine is gone."""
        self._identity = None
        self.state = None
        self._unanswered_ns = None

    def heard(self) -> None:
        """A message of the engine's main loop: it turns."""
        self._unanswered_ns = None

    def take_state(self, state: ipc.EngineState) -> None:
        """Keep what the engine says of itself, and what the next one has to go on from."""
        self.state = state
        self.saw_epoch(state.partition.epoch)
        self.policy = state.partition.policy
        self.override = state.partition.override
        self.override_mono_ns = state.at_mono_ns

    def saw_epoch(self, epoch: int) -> None:
        """Remember the newest epoch, from which the next engine goes on counting."""
        self.epoch = max(self.epoch, epoch)

    def subscribed(self, on: bool) -> None:
        """Whether anybody subscribes to snapshots, which want the engine's state as often as it tells it."""
        if on:
            self.asked()
        self._subscribed = on

    def asked(self) -> None:
        """Somebody wants to see where requests are. The next ping tells the engine; it is due now if that is news."""
        if not self._is_watched():
            self._next_ping_ns = 0
        self._asked_ns = self._clock()

    def tick(self, due_ns: int) -> None:
        """Ping the engine, or ask whether there is one, if that is due by ``due_ns``."""
        if due_ns < self._next_ping_ns:
            return
        now_ns = self._clock()
        if self._identity is None:
            self._transport.to_engine(ipc.ENGINE_IDENTITY, ipc.encode(ipc.Ping(0)))
            self._next_ping_ns = now_ns + SEEK_NS
            return
        self._ping_number += 1
        if self._unanswered_ns is None:
            self._unanswered_ns = now_ns
        self.send(ipc.Ping(self._ping_number, self._is_watched()))
        self._next_ping_ns = now_ns + PING_NS

    @property
    def next_ns(self) -> int:
        """When `tick` has something to do."""
        return self._next_ping_ns

    def take_note(self, note: ipc.SupervisorNote) -> None:
        """Keep the supervisor's note. The link is down when it tells that the greeted engine's process ended."""
        known = self.note.engine_pid if self.note else None
        self.note = note
        if self._identity is not None and self.hello is not None and known == self.hello.pid != note.engine_pid:
            self.drop()

    def _is_watched(self) -> bool:
        return self._subscribed or self._clock() - self._asked_ns < ASKED_NS

    def _is_silent(self) -> bool:
        return self._unanswered_ns is not None and self._clock() - self._unanswered_ns > SILENT_NS

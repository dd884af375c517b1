"""The engine's side of the front: what follows from what it says, from its silence and from its end.

The counterpart of `calls`, which is the clients' side. Knows no sockets: `engine_link` is the link.
"""

from typing import Final

from rapidd import ipc
from rapidd.config import Config
from rapidd.front.admission import Capacity
from rapidd.front.calls import Calls
from rapidd.front.clients import Clock
from rapidd.front.control import Control
from rapidd.front.engine_link import EngineLink
from rapidd.front.events import EventLog
from rapidd.front.publish import Publisher
from rapidd.front.serving import Serving
from rapidd.telemetry.latency import LatencyRecorder, resolve_slo
from rapidd.telemetry.watch import DeviceWatch

_DECIDING: Final = frozenset({"decision", "override", "release", "guard", "ttl", "policy"})


class EngineSide:
    """One engine after another. ``has_chat_template``: of the model's text side, which the engine does not read."""

    def __init__(
        self,
        *,
        config: Config,
        has_chat_template: bool,
        clock: Clock,
        link: EngineLink,
        calls: Calls,
        serving: Serving,
        control: Control,
        events: EventLog,
        latency: LatencyRecorder,
        watch: DeviceWatch,
        publisher: Publisher,
    ) -> None:
        self._config = config
        self._has_chat_template = has_chat_template
        self._clock = clock
        self._link = link
        self._calls = calls
        self._serving = serving
        self._control = control
        self._events = events
        self._latency = latency
        self._watch = watch
        self._publisher = publisher
        self._was_connected = False
        self._was_silent = False

    def configure(self, config: Config) -> None:
        """Bounds and objectives from now on."""
        self._config = config
        if self._link.hello is not None:
            self._know(self._link.hello)

    def take(self, identity: bytes, frame: bytes) -> bool:
        """One frame on the private socket. Returns whether it may bring forward what is due: a step does not."""
        try:
            message = ipc.decode_engine(frame)
        except (ValueError, RecursionError) as error:
            self._serving.totals.unreadable["engine", "malformed"] += 1
            self._events.emit("warning", f"an unreadable message on the engine's socket: {error}", "error")
            return True
        if isinstance(message, ipc.EngineHello):
            self._hello(identity, message)
        elif self._link.is_from_engine(identity):
            self._link.heard()
            self._message(message)
        return not isinstance(message, ipc.Step)

    def _message(self, message: ipc.EngineMessage) -> None:
        match message:
            case ipc.Step(state=state):
                self._serving.step(message)
                if state is not None:
                    self._state(state)
            case ipc.EngineState():
                self._state(message)
            case ipc.Dropped():
                self._serving.dropped(message)
            case ipc.Notice():
                self._notice(message)
            case ipc.ControlDone():
                self._control.done(message)
            case ipc.Predicted() | ipc.ProfileAnswer():
                self._control.answered(message)

    def _hello(self, identity: bytes, hello: ipc.EngineHello) -> None:
        if hello.build != ipc.BUILD:
            self._events.emit(
                "warning", f"refused an engine of build {hello.build!r}; this front is {ipc.BUILD!r}", "error"
            )
            return
        hello.model.has_chat_template = self._has_chat_template
        is_first = self._link.hello is None
        if self._link.connected and self._link.boot_id != hello.boot_id:
            self._link.drop()
            self.look()
        change = self._link.greet(identity, hello)
        self._know(hello)
        if change != "known":
            self._watch.follow(hello.device)
            self._events.emit("engine_ready", f"{hello.model.name} on {hello.device.name}")
            self._serving.resubmit(after_death=change == "new" and not is_first)

    def _know(self, hello: ipc.EngineHello) -> None:
        """What depends on the engine and on settings alike."""
        self._calls.serve(Capacity.of(hello, self._config.server.max_output_tokens))
        self._latency.slo = resolve_slo(self._config.slo, hello.device.kind)

    def _state(self, state: ipc.EngineState) -> None:
        self._link.take_state(state)
        self._serving.engine_state(state)
        self._publisher.engine_state(state)

    def _notice(self, notice: ipc.Notice) -> None:
        self._link.saw_epoch(notice.epoch)
        choice = self._serving.journal.choices.get(notice.rid) if notice.rid is not None else None
        self._events.emit(
            notice.kind,
            notice.text,
            notice.level,
            epoch=notice.epoch,
            decision=notice.decision,
            request_id=choice.stream.id if choice else None,
            placement=notice.placement,
        )
        if notice.kind in _DECIDING:
            self._events.decide(notice.decision, notice.epoch, notice.source, notice.text)

    def look(self) -> None:
        """See to an engine that a send, or the supervisor, has found gone."""
        connected = self._link.connected
        if self._was_connected and not connected:
            waiting = len(self._serving.journal.streams)
            self._events.emit("engine_lost", f"the engine is gone; {waiting} requests wait for the next one", "error")
            self._serving.engine_lost()
            self._control.engine_lost()
            self._publisher.engine_lost()
        self._was_connected = connected

    def chores(self) -> None:
        """Once a second: what it did not answer; whether it does; how latencies are, for an override's guard."""
        self._control.expire()
        silent = self._link.connected and self._link.life == "engine_lost"
        if silent != self._was_silent:
            self._was_silent = silent
            if silent:
                self._events.emit("engine_lost", "the engine does not answer", "error")
            elif self._link.connected:
                self._events.emit("engine_ready", "the engine answers again")
        if self._link.state is not None and self._link.state.partition.override is not None:
            now_ns = self._clock()
            journal = self._serving.journal
            ratios = self._latency.p95_ratios(now_ns, journal.waiting(now_ns), journal.pausing(now_ns))
            self._link.send(ipc.SloReport(*ratios))

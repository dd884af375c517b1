"""The front without its sockets: what it answers to every frame, and what it does as time passes.

Frames come in through `Front.client_frame`, `engine_frame` and `note`, and go out through `Transport`; `tick` is
called at `next_ns` at the latest. No frame, whatever it holds, raises out of here: undecodable ones are answered with
`wire.Failed`.
"""

import secrets
from collections.abc import Callable
from typing import Final

from rapidctl import wire
from rapidd import ipc
from rapidd.config import Config
from rapidd.errors import RequestError
from rapidd.front.access import Peer
from rapidd.front.admission import Capacity, TextModel
from rapidd.front.calls import Calls
from rapidd.front.clients import Client, Clients, Clock, Transport, refusal
from rapidd.front.control import Control
from rapidd.front.engine_link import EngineLink
from rapidd.front.engine_side import EngineSide
from rapidd.front.events import EventLog
from rapidd.front.publish import Publisher
from rapidd.front.serving import Serving
from rapidd.telemetry.latency import LatencyRecorder, resolve_slo
from rapidd.telemetry.watch import DeviceWatch

CHORES_NS: Final = 1_000_000_000
"""Period of late answers, SLO reports and the engine's ping."""
EARLY_NS: Final = 150_000_000
"""How much sooner they may be done where the front is awake anyway: waking up costs more than they do."""
STOPPED_NS: Final = 1_000_000_000
"""A look at the clients so much later than it was due: this process was stopped, or had no processor."""


class Front:
    """One front's life. ``report`` goes to the supervisor; ``wall`` is the unix clock in seconds.

    ``encode`` starts `admission.encode` of a long prompt in another thread; its outcome comes back by `encoded`.
    """

    def __init__(
        self,
        config: Config,
        endpoint: str,
        text: TextModel,
        transport: Transport,
        *,
        clock: Clock,
        wall: Callable[[], float],
        report: Callable[[ipc.ChildLine], None],
        encode: Callable[[wire.Generate, Capacity], None],
    ) -> None:
        self.boot_id = secrets.token_hex(8)
        self.stopped = False
        """The drain that a stop began is over: close the sockets and exit."""
        self._config = config
        self._clock = clock
        self._report = report
        self._stop_ns: int | None = None
        self._next_chores_ns = clock()
        self._next_look_ns = clock()
        self._next_ns: int | None = None
        """`next_ns`, until something happens that may bring it forward. An engine's step does not."""
        kind = config.engine.device if config.engine.device != "auto" else "cpu"
        self.latency = LatencyRecorder(resolve_slo(config.slo, kind), clock())
        self.events = EventLog(transport, self.boot_id, wall)
        self.clients = Clients(transport, clock)
        self.link = EngineLink(transport, clock, self.boot_id)
        self.serving = Serving(self.clients, self.link, self.events, self.latency, clock, policy=config.policy)
        self.control = Control(self.clients, self.link, clock, wall)
        self.watch = DeviceWatch(clock)
        self.publisher = self._make_publisher(endpoint, transport, wall)
        self.calls = Calls(
            config=config.server,
            access=config.access,
            endpoint=endpoint,
            front_boot_id=self.boot_id,
            text=text,
            clock=clock,
            encode=encode,
            report=report,
            state=lambda: self.life()[0],
            clients=self.clients,
            link=self.link,
            serving=self.serving,
            control=self.control,
            events=self.events,
            finished_per_s=self.latency.finished_per_s,
            publisher=self.publisher,
        )
        self._engine = EngineSide(
            config=config,
            has_chat_template=bool(text.template),
            clock=clock,
            link=self.link,
            calls=self.calls,
            serving=self.serving,
            control=self.control,
            events=self.events,
            latency=self.latency,
            watch=self.watch,
            publisher=self.publisher,
        )
        self.events.emit("front_ready", "the front is ready")

    def _make_publisher(self, endpoint: str, transport: Transport, wall: Callable[[], float]) -> Publisher:
        return Publisher(
            endpoint=endpoint,
            front_boot_id=self.boot_id,
            snapshot_hz=self._config.server.snapshot_hz,
            transport=transport,
            clock=self._clock,
            wall=wall,
            clients=self.clients,
            link=self.link,
            serving=self.serving,
            events=self.events,
            latency=self.latency,
            watch=self.watch,
            life=self.life,
        )

    # --- life ------------------------------------------------------------------------------------------------

    def life(self) -> tuple[wire.DaemonState, str]:
        """The daemon's state, and one line about it for people."""
        left = self.num_left
        if self.calls.draining or self.calls.stopping:
            return ("draining", f"{left} requests left") if left else ("drained", "")
        life, note = self.link.life, self.link.note
        # Of an engine that is ready, and only not greeted yet by a front that just started, the note names the model.
        detail = note.detail if note and life != "serving" and note.engine_state != "ready" else ""
        if detail and note and note.percent is not None:
            detail += f" {note.percent:.0f} %"
        return life, detail

    def reload(self, config: Config) -> None:
        """Take over the hot settings of a configuration that the supervisor has checked."""
        self._config = config
        self.calls.configure(config.server, config.access)
        self.publisher.configure(config.server.snapshot_hz)
        self.serving.policy = config.policy
        self._engine.configure(config)
        self._next_ns = None

    def reload_done(self, text: str, refused: bool) -> None:
        """What became of a reload, for whoever waits for it."""
        self._next_ns = None
        self.events.emit("config", text, "error" if refused else "info")

    def stop(self) -> None:
        """First call: refuse new requests and let the live ones finish within the drain timeout. Second: now."""
        now_ns = self._clock()
        if self._stop_ns is None:
            self.calls.stopping = True
            self._stop_ns = now_ns + int(self._config.server.drain_timeout_s * 1e9)
            left = self.num_left
            self.events.emit("drain", f"shutting down; {left} requests left")
            self._report(ipc.ChildReport("draining", f"{left} requests left"))
        else:
            self._stop_ns = now_ns
        self.tick()

    def no_engine(self, reason: str) -> None:
        """No engine will come any more: nothing that is live can be finished. The daemon ends."""
        self.calls.stopping = True
        self._next_ns = None
        self.events.emit("engine_lost", f"no engine will come any more: {self.num_left} requests end", "error")
        self._give_up(RequestError("engine_lost", reason, "see the daemon's log; send it again once it serves"))

    def _give_up(self, error: RequestError) -> None:
        self.serving.fail_all(error)
        self.calls.give_up(error)
        self._aftermath()

    @property
    def num_left(self) -> int:
        """Requests that are live, those being encoded included."""
        return len(self.serving.journal.streams) + len(self.calls.encoding)

    @property
    def next_ns(self) -> int:
        """When `tick` has something to do, at the earliest."""
        if self._next_ns is None:
            self._next_ns = self._find_next_ns()
        return self._next_ns

    @property
    def early_ns(self) -> int:
        """When `tick` may be called, if the front is awake anyway."""
        return self._next_chores_ns - EARLY_NS

    def _find_next_ns(self) -> int:
        times = (self.link.next_ns, self.publisher.next_ns, self._next_chores_ns)
        look_ns = self._next_look_ns if self.serving.journal.streams else None
        return min(*times, *(at for at in (self.serving.deadlines.next_ns, self._stop_ns, look_ns) if at is not None))

    def tick(self) -> None:
        """What time brings: pings, deadlines, leases, snapshots, the end of a drain."""
        now_ns = self._clock()
        self.serving.expire()
        if now_ns >= self._next_look_ns:
            self._look_for_clients(now_ns - self._next_look_ns)
        if now_ns >= self.early_ns:
            self._next_chores_ns = now_ns + CHORES_NS
            self.link.tick(self._next_chores_ns - 1)  # what the next ones would be too late for
            self._chores()
        else:
            self.link.tick(now_ns)
        self._aftermath()
        if self._stop_ns is not None and not self.stopped:
            self._finish_stopping(now_ns, self._stop_ns)
        self.publisher.tick()
        self._next_ns = None

    def _finish_stopping(self, now_ns: int, stop_ns: int) -> None:
        if now_ns >= stop_ns:
            self._give_up(
                RequestError(
                    "draining",
                    "the daemon shut down before this request was finished",
                    "send it again when the daemon is back",
                )
            )
        if not self.num_left:
            self.stopped = True
            self.publisher.publish()
            self._report(ipc.ChildReport("drained"))

    def _look_for_clients(self, late_ns: int) -> None:
        if late_ns > STOPPED_NS:
            self.clients.excuse()
        for client in self.clients.silent():
            self._lose(client, f"sent nothing for {wire.LEASE_INTERVAL_S * wire.LEASE_MISSES:.0f} s")
        self.clients.probe()
        self._next_look_ns = self.clients.next_look_ns()

    def _chores(self) -> None:
        self.latency.sort_in()
        self._next_look_ns = self.clients.next_look_ns()  # later than it was, mostly: they were seen since
        self.clients.settle()
        self.watch.tell(self.events.emit)
        for remedy, text in self.watch.take_remedies():
            self._report(ipc.DeviceFault(remedy, text))
        self._engine.chores()

    def _aftermath(self) -> None:
        """See to what sends found out: clients that are gone, an engine that is gone."""
        if self.clients.lost:
            self._next_ns = None
        while self.clients.lost:
            client, why = self.clients.lost.pop()
            if why == "full":
                self._drop_slow(client)
            else:
                self._lose(client, "is gone")
        self._engine.look()

    def _lose(self, client: Client, how: str) -> None:
        dropped = self.serving.abandon(client, "client_lost")
        if dropped:
            self.events.emit("client_lost", f"{client.label} {how}: {len(dropped)} requests dropped", "warn")

    def _drop_slow(self, client: Client) -> None:
        dropped = self.serving.abandon(client, "slow_consumer")
        self.events.emit("slow_consumer", f"{client.label} does not read: {len(dropped)} requests dropped", "warn")
        for stream in dropped:
            error = RequestError(
                "slow_consumer",
                "the client did not read its tokens",
                "read faster, or open a connection for each stream",
            )
            self.clients.owe(client.identity, refusal(error, stream_id=stream.id))

    # --- what comes in ----------------------------------------------------------------------------

    def client_frame(self, identity: bytes, frames: list[bytes], peer: Peer | None) -> None:
        """One message on the request socket, without its identity frame."""
        self._next_ns = None
        self.calls.take(identity, frames, peer)
        self._aftermath()

    def encoded(self, stream_id: str, outcome: list[int] | RequestError) -> None:
        """What became of a prompt that was encoded beside the loop."""
        self._next_ns = None
        self.calls.encoded(stream_id, outcome)
        self._aftermath()

    def note(self, note: ipc.SupervisorNote) -> None:
        """The supervisor says how the other processes are."""
        self._next_ns = None
        if self.link.note is None and note.draining:
            self.calls.draining = True
            self.events.emit("drain", "admission stays stopped: an operator did that before this front started")
        self.link.take_note(note)
        self._aftermath()

    def probed(self, asked_mono_ns: int) -> None:
        """The supervisor asked, then, whether the loop turns; it waited for the turn before: that is the loop's lag."""
        self.publisher.loop_lag.add(max(0, self._clock() - asked_mono_ns) / 1e9)

    def subscription(self, begins: bool, topic: bytes, where: object) -> None:
        """A topic has its first subscriber on one of the metrics sockets, or lost its last one there."""
        self._next_ns = None
        self.publisher.subscription(begins, topic, where)
        self.link.subscribed(self.publisher.watched)

    def engine_frame(self, identity: bytes, frame: bytes) -> None:
        """One frame on the private socket."""
        if self._engine.take(identity, frame):
            self._next_ns = None
        self._aftermath()

"""What clients ask: every message of the request socket, decoded, checked against the daemon's state, and answered.

A message that cannot be answered otherwise gets exactly one `wire.Failed`. Long prompts are encoded beside the loop:
their requests wait in ``encoding`` until `Calls.encoded` hears what became of them. Knows no sockets.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from rapidctl import __version__, wire
from rapidd import faults, ipc, log
from rapidd.config import AccessConfig, ServerConfig
from rapidd.errors import RequestError
from rapidd.front import access, admission
from rapidd.front.access import Peer
from rapidd.front.admission import Capacity, TextModel
from rapidd.front.clients import Client, Clients, Clock, refusal
from rapidd.front.control import Control
from rapidd.front.engine_link import EngineLink
from rapidd.front.events import EventLog
from rapidd.front.publish import Publisher
from rapidd.front.serving import Serving

COMING_BACK_NS: Final = 60_000_000_000
"""From the first engine's hello: for so long a request may have been accepted by the front before."""


class Encoding(Struct):
    """A request whose prompt is being encoded beside the loop."""

    client: bytes
    request: wire.Generate
    arrival_ns: int
    cancelled: bool = False


class Calls:
    """The verbs. ``encode`` starts `admission.encode` in another thread, ``report`` goes to the supervisor, ``state``
    is the daemon's.
    """

    def __init__(
        self,
        *,
        config: ServerConfig,
        access: AccessConfig,
        endpoint: str,
        front_boot_id: str,
        text: TextModel,
        clock: Clock,
        encode: Callable[[wire.Generate, Capacity], None],
        report: Callable[[ipc.ChildLine], None],
        state: Callable[[], wire.DaemonState],
        clients: Clients,
        link: EngineLink,
        serving: Serving,
        control: Control,
        events: EventLog,
        finished_per_s: Callable[[int], float],
        publisher: Publisher,
    ) -> None:
        self.capacity: Capacity | None = None
        """Null until the first engine said hello."""
        self._began_ns: int | None = None
        """When it did."""
        self.encoding: dict[str, Encoding] = {}
        self.draining = False
        """An operator stopped admission."""
        self.stopping = False
        """The daemon is shutting down."""
        self.configure(config, access)
        self._endpoint = endpoint
        self._front_boot_id = front_boot_id
        self._text = text
        self._clock = clock
        self._encode = encode
        self._report = report
        self._state = state
        self._clients = clients
        self._link = link
        self._serving = serving
        self._control = control
        self._events = events
        self._finished_per_s = finished_per_s
        self._publisher = publisher
        self._verbs: dict[type[wire.Request], Callable[[Client, Any], None]] = {
            wire.Ping: self._ping,
            wire.Generate: self._generate,
            wire.Cancel: self._cancel,
            wire.GetStatus: self._status,
            wire.GetSnapshot: self._snapshot,
            wire.GetRequests: self._requests,
            wire.GetEvents: self._get_events,
            wire.GetPartition: control.partition,
            wire.PredictPartition: control.predict,
            wire.GetProfile: control.profile,
            wire.SetPartition: control.set_plan,
            wire.ReleasePartition: control.release,
            wire.SetPolicy: control.set_policy,
            wire.UndoPartition: control.undo,
            wire.Drain: self._drain,
            wire.Reload: self._reload,
        }

    def serve(self, capacity: Capacity) -> None:
        """An engine said hello."""
        self.capacity = capacity
        if self._began_ns is None:
            self._began_ns = self._clock()

    def configure(self, config: ServerConfig, access: AccessConfig) -> None:
        """Bounds and rights from now on; who is served already stays."""
        self._config = config
        self._access = access

    def take(self, identity: bytes, frames: list[bytes], peer: Peer | None) -> None:
        """One message on the request socket, without its identity frame."""
        client = self._clients.heard(identity, peer)
        stream_id: str | None = None
        call: int | None = None
        try:
            if len(frames) != 1:
                raise wire.WireError(
                    "malformed", f"a message is one frame, this one has {len(frames)}: send it from a DEALER socket"
                )
            request = wire.decode_request(frames[0])
            stream_id, call = getattr(request, "id", None), getattr(request, "call", None)
            faults.hit("front.receive")
            if isinstance(request, wire.Hello):
                self._hello(identity, request, peer)
            elif client is None:
                raise RequestError("hello_required", "the first message of a connection is Hello")
            elif access.is_command(request):
                self._command(client, request)
            else:
                self._verbs[type(request)](client, request)
        except wire.WireError as error:
            self._serving.totals.unreadable["requests", error.code] += 1
            self._refuse(identity, error.id, error.call, RequestError(error.code, str(error)))
        except RequestError as error:
            self._refuse(identity, stream_id, call, error)
        except Exception as error:  # the boundary of the process: one message must not end everybody's streams
            log.bug("a bug while a client's message was handled", request_id=stream_id)
            self._refuse(identity, stream_id, call, RequestError("internal_error", f"a bug in rapidd: {error!r}"))

    def _command(self, client: Client, request: wire.Request) -> None:
        """An operator's verb. Nothing of it stays unwritten: who asked, for what, and that it was refused.

        What the engine makes of one that is passed on is an event, and so in the log too.
        """
        with access.audited(client.peer, client.label, request, "carried out or passed on"):
            self._verbs[type(request)](client, request)

    def _refuse(self, identity: bytes, stream_id: str | None, call: int | None, error: RequestError) -> None:
        """Answer the call, or else the stream: a refused `Cancel` does not end the stream that it names."""
        if call is None and stream_id is not None:
            self._serving.totals.refused[error.code] += 1
        self._clients.reply(identity, refusal(error, call=call, stream_id=stream_id if call is None else None))

    def _hello(self, identity: bytes, request: wire.Hello, peer: Peer | None) -> None:
        protocol = min(request.protocol_max, wire.PROTOCOL_MAX)
        if protocol < max(request.protocol_min, wire.PROTOCOL_MIN):
            raise RequestError(
                "protocol",
                f"this daemon speaks protocol {wire.PROTOCOL_MIN} to {wire.PROTOCOL_MAX}, "
                f"the client {request.protocol_min} to {request.protocol_max}",
                "install the same version of rapid-serve on both sides",
            )
        if self._clients.get(identity) is None:
            if len(self._clients) >= self._access.max_clients:
                self._clients.make_room()
            access.check_client(self._access, len(self._clients))
        control = request.control and access.may_control(peer, self._access.operators)
        client = self._clients.hello(identity, request.client, peer, control)
        hello = self._link.hello
        self._clients.reply(
            identity,
            wire.Welcome(
                protocol=protocol,
                version=__version__,
                boot_id=self._link.boot_id,
                front_boot_id=self._front_boot_id,
                metrics_endpoint=wire.metrics_endpoint(self._endpoint),
                model=hello.model.name if hello else None,
                control=client.control,
                limits=wire.Limits(max_model_len=hello.max_model_len if hello else None),
                has_chat_template=bool(self._text.template),
            ),
        )

    def _ping(self, client: Client, request: wire.Ping) -> None:
        self._clients.reply(client.identity, wire.Pong(call=request.call, at_mono_ns=self._clock()))

    def _generate(self, client: Client, request: wire.Generate) -> None:
        running = self._serving.journal.streams.get(request.id)
        if running is not None:
            self._serving.attach(client, request, running)
            return
        encoding = self.encoding.get(request.id)
        if encoding is not None:
            self._serving.check_same(client, request, encoding.client, admission.digest(encoding.request))
            encoding.client, encoding.request = client.identity, request
            return
        was_let_in = request.resume_ids is not None and self._is_new()  # by a front that is no more
        if self.stopping or (self.draining and not was_let_in):
            raise RequestError("draining", "the daemon takes no new requests", "try another one", retry_after_s=5.0)
        if self.capacity is None:
            raise self._link.no_engine()
        access.check_request(self._access, self._usage(client), request.n, self._config.max_waiting_requests)
        if not was_let_in:
            admission.check_queue(
                self._serving.journal,
                request.n,
                [encoding.request for encoding in self.encoding.values()],
                self._config.max_waiting_requests,
                self._config.max_waiting_tokens,
                self._finished_per_s(self._clock()),
            )
        if admission.is_long(request):
            self.encoding[request.id] = Encoding(client.identity, request, self._clock())
            self._encode(request, self.capacity)
        else:
            prompt_ids = admission.encode(request, self._text, self.capacity)
            self._serving.open(client, request, prompt_ids, self._text, self.capacity, self._clock())

    def _is_new(self) -> bool:
        """Whether requests of the front before may still come back. Always, and who says so passed every full queue."""
        return self._began_ns is None or self._clock() - self._began_ns < COMING_BACK_NS

    def _usage(self, client: Client) -> access.Usage:
        """What this client and its user have. A user's are looked for only where they are bounded."""
        encoding = sum(encoding.client == client.identity for encoding in self.encoding.values())
        mine = len(client.stream_ids) + encoding
        if client.peer is None or (self._access.max_requests_per_user is None and self._access.max_queue_share == 1):
            return access.Usage(mine, mine, 0)
        theirs = {other.identity for other in self._clients if access.is_same_user(other.peer, client.peer)}
        encoded = [encoding.request.n for encoding in self.encoding.values() if encoding.client in theirs]
        live = [choice for choice in self._serving.journal.live() if choice.stream.client in theirs]
        requests = len({choice.stream.id for choice in live})
        waiting = sum(choice.phase == "waiting" for choice in live)
        return access.Usage(mine, requests + len(encoded), waiting + sum(encoded))

    def encoded(self, stream_id: str, outcome: list[int] | RequestError) -> None:
        """What became of a prompt that was encoded beside the loop."""
        encoding = self.encoding.pop(stream_id, None)
        client = self._clients.get(encoding.client) if encoding else None
        if encoding is None or client is None:
            return  # the daemon gave it up, or its client left
        assert self.capacity is not None
        try:
            if isinstance(outcome, RequestError):
                raise outcome
            self._serving.open(client, encoding.request, outcome, self._text, self.capacity, encoding.arrival_ns)
        except RequestError as error:
            self._refuse(encoding.client, stream_id, None, error)
        stream = self._serving.journal.streams.get(stream_id)
        if encoding.cancelled and stream is not None:
            self._serving.cancel(stream)

    def give_up(self, error: RequestError) -> None:
        """Refuse what is still being encoded."""
        for stream_id, encoding in self.encoding.items():
            self._refuse(encoding.client, stream_id, None, error)
        self.encoding.clear()

    def _cancel(self, client: Client, request: wire.Cancel) -> None:
        stream = self._serving.journal.streams.get(request.id) or self.encoding.get(request.id)
        if stream is None:
            raise RequestError("not_found", f"no request {request.id!r} is running")
        if stream.client != client.identity:
            with access.audited(client.peer, client.label, request, "carried out"):
                self._control.check_control(client)
        if isinstance(stream, Encoding):
            stream.cancelled = True
        else:
            self._serving.cancel(stream)
        reply = wire.ControlReply(call=request.call, epoch=self._link.epoch, text=f"cancelled {request.id}")
        self._clients.reply(client.identity, reply)

    def _status(self, client: Client, request: wire.GetStatus) -> None:
        self._clients.reply(client.identity, self._publisher.status(request.call))

    def _snapshot(self, client: Client, request: wire.GetSnapshot) -> None:
        reply = wire.SnapshotReply(call=request.call, snapshot=self._publisher.snapshot())
        self._clients.reply(client.identity, reply)

    def _requests(self, client: Client, request: wire.GetRequests) -> None:
        self._link.asked()
        rows = self._publisher.rows(request.id)
        if request.id is not None and not rows:
            raise RequestError("not_found", f"no request {request.id!r} is running")
        self._clients.reply(client.identity, wire.RequestList(call=request.call, rows=rows))

    def _get_events(self, client: Client, request: wire.GetEvents) -> None:
        self._clients.reply(client.identity, self._events.replay(request.call, request.from_seq, request.limit))

    def _drain(self, client: Client, request: wire.Drain) -> None:
        self._control.check_control(client)
        if request.on != self.draining:
            self.draining = request.on
            self._report(ipc.AdmissionStopped(request.on))
            by = request.by or client.label
            self._events.emit("drain", f"{by} stopped admission" if request.on else f"{by} admits requests again")
        self._clients.reply(
            client.identity, wire.ControlReply(call=request.call, epoch=self._link.epoch, text=self._state())
        )

    def _reload(self, client: Client, request: wire.Reload) -> None:
        self._control.check_control(client)
        self._report(ipc.AskReload())
        text = "the configuration is read again; an event tells the outcome"
        self._clients.reply(client.identity, wire.ControlReply(call=request.call, epoch=self._link.epoch, text=text))

"""The front's sockets and its one loop: every frame in goes to `Front`, every frame out comes from it.

One thread, plain sockets and a `Waiter`; a second thread only encodes long prompts. Nothing here blocks but the poll:
sends are NOBLOCK, and what a turn reads of one socket is bounded, so that no client's flood delays another's tokens.
"""

import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Final

import zmq

from rapidctl import wire
from rapidd import faults, ipc, log
from rapidd.config import Config
from rapidd.errors import ConfigError, RequestError
from rapidd.front import access, admission
from rapidd.front.admission import Capacity, TextModel
from rapidd.front.clients import Clock, Outcome
from rapidd.front.core import Front
from rapidd.front.remote import MARK, Remote
from rapidd.front.waiting import Source, Waiter, has_message
from rapidd.paths import RuntimeDir

SEND_HWM: Final = 1000
"""Messages that wait for one client that does not read, before it is called slow."""
RECEIVE_HWM: Final = 1000
PUBLISH_HWM: Final = 100
HEARTBEAT_MS: Final = 2000
HEARTBEAT_TIMEOUT_MS: Final = 6000
HANDSHAKE_MS: Final = 2000
BACKLOG: Final = 1024
LINGER_MS: Final = 1000
"""How long the last messages may take to leave when the front exits."""
FRAMES_A_TURN: Final = 64
_NOW: Final = int(zmq.NOBLOCK)
_FIRST: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_send: Final = zmq.backend.Socket.send
"""Without the layer above it, which has options that are not used here: a twentieth of a cold step."""
SOCKET_UMASK: Final = 0o007
"""The group may connect, others may not."""


class Server:
    """Binds on construction; `run` until `Front.stopped` or the supervisor is gone. Also the front's `Transport`."""

    def __init__(
        self,
        config: Config,
        runtime: RuntimeDir,
        text: TextModel,
        channel: ipc.Channel,
        *,
        clock: Clock = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
        send_hwm: int = SEND_HWM,
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._stop_signals = 0
        self._text = text
        self._encoder = ThreadPoolExecutor(1, "encode")
        self._encoded: deque[tuple[str, Future[list[int]]]] = deque()
        self._context = zmq.Context()
        umask = os.umask(SOCKET_UMASK)
        try:
            self._requests = self._bind(zmq.ROUTER, runtime.endpoint, send_hwm, wire.MAX_FRAME_BYTES)
            self._metrics = self._bind(zmq.XPUB, runtime.metrics_endpoint, PUBLISH_HWM, wire.MAX_FRAME_BYTES)
            self._engine = self._bind(zmq.ROUTER, runtime.engine_endpoint, 0, -1)
            self._remote = self._open_remote(config, send_hwm)
        finally:
            os.umask(umask)
        self._readers = self._make_readers()
        self._waiter = Waiter(self._readers)
        self.front = Front(
            config, runtime.endpoint, text, self, clock=clock, wall=wall, report=channel.send, encode=self._encode
        )

    def _make_readers(self) -> dict[Source, Callable[[], None]]:
        """Who reads what, in the order in which a turn sees to them."""
        readers: dict[Source, Callable[[], None]] = {
            self._channel.fileno(): self._read_channel,
            self._engine: self._read_engine,
            self._requests: self._read_requests,
            self._metrics: partial(self._read_subscriptions, self._metrics),
        }
        if self._remote is not None:
            readers[self._remote.handler] = partial(self._read_handshakes, self._remote)
            readers[self._remote.requests] = partial(self._read_remote, self._remote)
            readers[self._remote.metrics] = partial(self._read_subscriptions, self._remote.metrics)
        readers[self._wake_read.fileno()] = self._read_wakeups
        return readers

    def _open_remote(self, config: Config, send_hwm: int) -> Remote | None:
        """The sockets on tcp, if there are to be any. Raises `ConfigError`."""
        if config.tcp.listen is None:
            return None
        try:
            return Remote(
                self._context,
                config.tcp,
                lambda kind, endpoint, secure: self._bind(
                    kind, endpoint, send_hwm if kind == zmq.ROUTER else PUBLISH_HWM, wire.MAX_FRAME_BYTES, secure
                ),
            )
        except ConfigError:
            self._encoder.shutdown()
            self._context.destroy(linger=0)
            raise

    def _bind(
        self,
        kind: int,
        endpoint: str,
        send_hwm: int,
        max_frame_bytes: int,
        secure: Callable[[zmq.Socket[bytes]], None] = lambda _: None,
    ) -> zmq.Socket[bytes]:
        """A bound socket; the engine's (``send_hwm`` 0, unlimited) trusts its one peer of the same build."""
        sock = self._context.socket(kind)
        sock.set(zmq.LINGER, LINGER_MS)
        sock.set(zmq.SNDHWM, send_hwm)
        sock.set(zmq.RCVHWM, RECEIVE_HWM if send_hwm else 0)
        sock.set(zmq.MAXMSGSIZE, max_frame_bytes)
        sock.set(zmq.BACKLOG, BACKLOG)
        sock.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        if kind == zmq.ROUTER:
            sock.set(zmq.ROUTER_MANDATORY, 1)
            sock.set(zmq.ROUTER_HANDOVER, 0 if send_hwm else 1)  # a new engine takes the old one's name
        if send_hwm:
            sock.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            sock.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
            sock.set(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
        secure(sock)
        sock.bind(endpoint)
        return sock

    # --- the loop --------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until drained (0) or until the supervisor is gone (1)."""
        self._catch_signals()
        self._channel.send(ipc.ChildReport("ready"))
        while not self.front.stopped:
            self.turn()
            if self._channel.closed:
                return 1
        return 0

    def turn(self, longest_ms: int = 60_000) -> None:
        """Wait for something to happen, at most ``longest_ms``, and see to it."""
        wait_ms = (self.front.next_ns - self._clock()) // 1_000_000 + 1
        ready = self._waiter.wait(max(0, min(wait_ms, longest_ms)))
        for source, read in self._readers.items():
            if source in ready:
                read()
        now_ns = self._clock()
        if now_ns >= self.front.next_ns or (ready and now_ns >= self.front.early_ns):
            self.front.tick()

    def _read_engine(self) -> None:
        """As `_messages` does it, but a wake-up mostly has one message, so asking before it is not worth it."""
        for _ in range(FRAMES_A_TURN):
            try:
                identity, frame = self._engine.recv(_NOW), self._engine.recv(_NOW, copy=False)
            except zmq.Again:
                return
            if frame.more:
                _skip_message(self._engine)
            else:
                self.front.engine_frame(identity, frame.bytes)
            if not has_message(self._engine):
                return
        self._waiter.used(self._engine)

    def _read_subscriptions(self, sock: zmq.Socket[bytes]) -> None:
        for _ in self._messages(sock):
            frame = sock.recv(zmq.NOBLOCK)
            if frame[:1] in (b"\0", b"\1"):  # else something that a subscriber says
                self.front.subscription(frame[:1] == b"\1", frame[1:], sock)

    def _read_requests(self) -> None:
        for _ in self._messages(self._requests):
            frames = self._requests.recv_multipart(zmq.NOBLOCK, copy=False)
            identity = frames[0].bytes
            if not identity.startswith(MARK):  # else its answers would go to a remote client
                peer = access.peer_of(_peer_address(frames[-1]))
                self.front.client_frame(identity, [frame.bytes for frame in frames[1:]], peer)

    def _read_handshakes(self, remote: Remote) -> None:
        for _ in self._messages(remote.handler):
            remote.answer()

    def _read_remote(self, remote: Remote) -> None:
        for _ in self._messages(remote.requests):
            frames = remote.requests.recv_multipart(zmq.NOBLOCK, copy=False)
            content = [frame.bytes for frame in frames[1:]]
            self.front.client_frame(MARK + frames[0].bytes, content, remote.peer(frames[-1]))

    def _messages(self, sock: zmq.Socket[bytes]) -> Iterator[None]:
        """Once for each message of a turn, which the caller reads."""
        for _ in range(FRAMES_A_TURN):
            if not has_message(sock):
                return
            yield
        self._waiter.used(sock)

    def _read_channel(self) -> None:
        for line in self._channel.lines():
            match ipc.decode_supervisor(line):
                case ipc.Probe(asked_mono_ns):
                    self.front.probed(asked_mono_ns)
                    self._channel.send(ipc.Pulse(self.front.num_left))
                case ipc.Reload(config):
                    log.start(config.log, "front")
                    self.front.reload(config)
                case ipc.ReloadDone(text, refused):
                    self.front.reload_done(text, refused)
                case ipc.NoEngine(reason):
                    self.front.no_engine(reason)
                case ipc.SupervisorNote() as note:
                    self.front.note(note)

    # --- signals -----------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        """SIGTERM drains, a second one ends; SIGINT of a terminal is the supervisor's business."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_signals += 1

    def _read_wakeups(self) -> None:
        self._wake_read.recv(4096)
        while self._stop_signals:
            self._stop_signals -= 1
            self.front.stop()
        while self._encoded:
            stream_id, future = self._encoded.popleft()
            outcome: list[int] | RequestError
            try:
                outcome = future.result()
            except RequestError as error:
                outcome = error
            except Exception as error:
                log.bug("a bug while a prompt was encoded", request_id=stream_id)
                outcome = RequestError("internal_error", f"a bug in rapidd: {error!r}")
            self.front.encoded(stream_id, outcome)

    # --- prompts that take long to encode ------------------------------------------------------------------------

    def _encode(self, request: wire.Generate, capacity: Capacity) -> None:
        def done(future: Future[list[int]]) -> None:  # in the encoder's thread
            self._encoded.append((request.id, future))
            with contextlib.suppress(BlockingIOError):  # full: the loop is about to look anyway
                self._wake_write.send(b"\0")

        self._encoder.submit(admission.encode, request, self._text, capacity).add_done_callback(done)

    # --- Transport -----------------------------------------------------------------------------------------------

    def to_client(self, identity: bytes, frame: bytes) -> Outcome:
        """See `Transport`."""
        if faults.armed:
            faults.hit("front.send")
            if faults.stalls("front.send"):
                return "full"
        sock = self._requests
        if self._remote is not None and identity.startswith(MARK):
            sock, identity = self._remote.requests, identity[len(MARK) :]
        self._waiter.used(sock)
        try:
            _send(sock, identity, _FIRST)
            _send(sock, frame, _NOW)
        except zmq.Again:
            return "full"
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return "gone"
        return "sent"

    def to_engine(self, identity: bytes, frame: bytes) -> bool:
        """See `Transport`."""
        self._waiter.used(self._engine)
        try:
            _send(self._engine, identity, _FIRST)
            _send(self._engine, frame, _NOW)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def publish(self, frame: bytes) -> None:
        """See `Transport`."""
        self._waiter.used(self._metrics)
        self._metrics.send(frame, zmq.NOBLOCK)
        if self._remote is not None:
            self._waiter.used(self._remote.metrics)
            self._remote.metrics.send(frame, zmq.NOBLOCK)

    def close(self) -> None:
        """Let the last messages leave, for a bounded time, and give everything back."""
        self._encoder.shutdown(cancel_futures=True)
        for source in self._readers:
            if not isinstance(source, int):
                source.close()
        self._context.term()
        self._wake_read.close()
        self._wake_write.close()


def _skip_message(sock: zmq.Socket[bytes]) -> None:
    """Read the frames that are left of a message, for nothing."""
    while sock.getsockopt(zmq.RCVMORE):
        sock.recv(_NOW)


def _peer_address(frame: zmq.Frame) -> str | None:
    try:
        address = frame.get("Peer-Address")
    except zmq.ZMQError:
        return None
    return address if isinstance(address, str) else None

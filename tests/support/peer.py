"""A scripted daemon at the transport seam: real sockets, canned answers, restarts on demand.

Its ROUTER lives in one helper thread; what a test wants sent out of turn goes through `do`. Every message that
arrives is in ``heard``. Answers come from ``script``: request type -> function of the request giving the messages
to send back (in order), or None for silence.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Self, TypeVar, get_args

import zmq
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.client import Command
from support import messages, samples
from support.process import WAIT_MS, WAIT_S

Answer = Callable[..., Sequence[wire.Reply] | None]
T = TypeVar("T")
_NUMBERS = count()


def default_script() -> dict[type, Answer]:
    return {
        wire.Hello: lambda hello: [replace(samples.WELCOME, control=hello.control)],
        wire.Ping: lambda ping: [wire.Pong(call=ping.call, at_mono_ns=1)],
        wire.GetStatus: lambda ask: [replace(samples.STATUS, call=ask.call)],
        wire.GetSnapshot: lambda ask: [wire.SnapshotReply(call=ask.call, snapshot=samples.SNAPSHOT)],
        wire.GetRequests: lambda ask: [wire.RequestList(call=ask.call, rows=[samples.ROW])],
        wire.GetEvents: lambda ask: [
            wire.EventList(call=ask.call, oldest_seq=samples.EVENT.seq, next_seq=4, events=[samples.EVENT])
        ],
        wire.GetPartition: lambda ask: [replace(samples.PARTITION, call=ask.call)],
        wire.GetProfile: lambda ask: [replace(messages.REPLIES["profile"], call=ask.call)],
        wire.PredictPartition: lambda ask: [wire.Prediction(call=ask.call, legal=True, note="no profile")],
        wire.Generate: lambda ask: [
            wire.Accepted(id=ask.id, prompt_tokens=14, seed=42),
            wire.Deltas(items=[replace(samples.DELTA, id=ask.id)]),
            replace(samples.FINISHED, id=ask.id),
        ],
        **dict.fromkeys(
            get_args(Command),
            lambda ask: [wire.ControlReply(call=ask.call, epoch=6, text="accepted")],
        ),
    }


class Peer:
    """A daemon that answers from a script. ``start`` and ``stop`` may alternate: each start is a restart."""

    def __init__(self, directory: Path) -> None:
        self.endpoint = f"ipc://{directory}/request.sock"
        self.script = default_script()
        self.heard: queue.SimpleQueue[wire.Request] = queue.SimpleQueue()
        self.identity = b""
        self._work: queue.SimpleQueue[tuple[Future[object], Callable[[], object]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._router = context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.bind(self.endpoint)
        self._publisher = context.socket(zmq.XPUB)
        self._publisher.linger = 0
        self._publisher.bind(wire.metrics_endpoint(self.endpoint))
        self._wake, self._woken = (context.socket(zmq.PAIR) for _ in range(2))
        wake = f"inproc://peer-{next(_NUMBERS)}"  # an inproc name is free again only some time after its socket closed
        self._woken.bind(wake)
        self._wake.connect(wake)
        self._thread = threading.Thread(target=self._run, name="peer")
        self._thread.start()

    def stop(self) -> None:
        if self._thread is None:
            return
        self._work.put(None)
        self._wake.send(b"")
        self._thread.join()
        self._thread = None
        for socket in (self._router, self._publisher, self._wake, self._woken):
            socket.close()

    def do(self, work: Callable[[], T]) -> T:
        """Run in the peer's thread and give back the result."""
        future: Future[T] = Future()
        self._work.put((future, work))  # type: ignore[arg-type]
        self._wake.send(b"")
        return future.result(WAIT_S)

    def send(self, *messages: wire.Reply) -> None:
        """To the client that spoke last."""
        self.do(lambda: self._send(self.identity, messages))

    def send_raw(self, frame: bytes) -> None:
        self.do(lambda: self._router.send_multipart([self.identity, frame]))

    def hear(self, kind: type[T]) -> T:
        """The next message of this kind, skipping others."""
        while True:
            message = self.heard.get(timeout=WAIT_S)
            if isinstance(message, kind):
                return message

    def subscribed(self, count: int) -> None:
        """Wait for so many subscriptions."""
        for _ in range(count):
            assert self._publisher.poll(WAIT_MS)
            self._publisher.recv()

    def publish(self, *messages: wire.Snapshot | wire.Event) -> None:
        for message in messages:
            topic = wire.SNAPSHOT_TOPIC if isinstance(message, wire.Snapshot) else wire.EVENT_TOPIC
            self._publisher.send(topic + wire.encode(message))

    def publish_raw(self, frame: bytes) -> None:
        self._publisher.send(frame)

    def _send(self, identity: bytes, messages: Sequence[wire.Reply]) -> None:
        for message in messages:
            self._router.send_multipart([identity, wire.encode(message)])

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._woken in ready:
                self._woken.recv()
                work = self._work.get_nowait()
                if work is None:
                    return
                future, function = work
                future.set_result(function())
            if self._router in ready:
                self.identity, frame = self._router.recv_multipart()
                request = wire.decode_request(frame)
                self.heard.put(request)
                answer = self.script[type(request)](request)
                self._send(self.identity, answer or ())

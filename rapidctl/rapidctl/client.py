"""The one client of the request socket: command line, console, bench, HTTP server and tests all use it.

A synchronous object for one thread at a time. Nothing runs behind its back: leases are renewed, messages read and
lost connections mended inside `poll`, which `call` and `generate` run for you and which a caller with several
streams runs itself: ``submit`` them, then ``poll`` and take each stream's ``events``.

A connection that was lost is made again by libzmq; the client then says Hello again, and asks for the rest of its
streams under their ids. If the front was restarted meanwhile, only streams with ``resume`` go on.
It knows nothing of snapshots: see `rapidctl.feed`.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, overload

from msgspec.structs import replace

from rapidctl import generation, wire
from rapidctl.errors import ProtocolMismatch, TimedOut, Unreachable, how_to_reach, nobody_at, refusal
from rapidctl.feed import Feed
from rapidctl.link import Link, wait
from rapidctl.stream import Stream, StreamEvent, unsendable
from rapidctl.wire import Accepted, Deltas, Failed, Finished, Generate, Hello, Ping, Pong, Welcome

if TYPE_CHECKING:
    import zmq

__all__ = ["Client", "Feed", "Stream", "StreamEvent", "new_id", "operator_name", "wait"]

DEFAULT_TIMEOUT_S: Final = 5.0
DEFAULT_PATIENCE_S: Final = 15.0
"""How long open streams wait for a lost daemon to come back before they end."""
CONNECT_TIMEOUT_S: Final = 1.0
"""How long `Client.connect` waits for somebody to listen; local sockets answer in a millisecond."""
RETRY_S: Final = 0.25
"""How often a resuming stream asks again while the daemon is starting: after a front's restart that takes a moment."""
Reply = (
    wire.Pong
    | wire.Status
    | wire.SnapshotReply
    | wire.RequestList
    | wire.EventList
    | wire.PartitionInfo
    | wire.Prediction
    | wire.ProfileReply
    | wire.ControlReply
)
Change = wire.SetPartition | wire.ReleasePartition | wire.SetPolicy | wire.UndoPartition
Command = wire.Cancel | Change | wire.Drain | wire.Reload
Call = (
    Ping
    | wire.GetStatus
    | wire.GetSnapshot
    | wire.GetRequests
    | wire.GetEvents
    | wire.GetPartition
    | wire.PredictPartition
    | wire.GetProfile
    | Command
)


def new_id() -> str:
    """A request id nobody else uses."""
    return f"r-{os.urandom(5).hex()}"


def operator_name() -> str:
    """Who is asking, for the daemon's log of changes: the user's name, or the number when it has none."""
    import pwd  # only commands that change something need it

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class Client:
    """A connection to one daemon. Use as a context manager, or `connect` and `close`.

    ``timeout_s`` bounds every answer; ``control`` asks for operator rights (`Welcome.control` says whether they were
    given); ``patience_s`` is how long streams wait for a daemon that went away.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        name: str = "rapidctl",
        control: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        patience_s: float = DEFAULT_PATIENCE_S,
    ) -> None:
        self.endpoint = wire.check_client_endpoint(endpoint) if endpoint else wire.default_endpoint()
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.welcome: Welcome | None = None
        """The latest answer to Hello; kept while the connection is down."""
        self.streams: dict[str, Stream] = {}
        """Open streams by id; one leaves when its last message arrives."""
        self._hello = Hello(client=name, control=control)
        self._call = 0
        self._answers: dict[int, Reply | Failed] = {}
        self._waiting: set[int] = set()
        self._link = Link(self.endpoint)
        self._lease_due_s = 0.0

    # --- connection ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make the sockets and start connecting, without waiting; later `poll`s notice the daemon when it is there."""
        self._link.open()

    def connect(self) -> Welcome:
        """Say Hello and wait for the answer. Raises `Unreachable`, `TimedOut`, `ProtocolMismatch` or `Refused`."""
        self.open()
        return self._wait_until_greeted(self._now() + self.timeout_s)

    def close(self) -> None:
        """Drop the connection; the daemon cancels streams that are still open."""
        self._link.close()

    @property
    def sockets(self) -> list["zmq.Socket[bytes]"]:
        """For `wait` and other pollers: something can be read here when `poll` has work."""
        return self._link.sockets

    @property
    def connected(self) -> bool:
        """Hello was answered on the connection that is up now."""
        return self._link.up

    @property
    def lost_s(self) -> float | None:
        """For how long there has been no connection; null while there is one."""
        return None if self.connected else self._now() - self._link.lost_at_s

    # --- calls ------------------------------------------------------------------------------------------------

    @overload
    def call(self, request: Ping, timeout_s: float | None = None) -> Pong: ...
    @overload
    def call(self, request: wire.GetStatus, timeout_s: float | None = None) -> wire.Status: ...
    @overload
    def call(self, request: wire.GetSnapshot, timeout_s: float | None = None) -> wire.SnapshotReply: ...
    @overload
    def call(self, request: wire.GetRequests, timeout_s: float | None = None) -> wire.RequestList: ...
    @overload
    def call(self, request: wire.GetEvents, timeout_s: float | None = None) -> wire.EventList: ...
    @overload
    def call(self, request: wire.GetPartition, timeout_s: float | None = None) -> wire.PartitionInfo: ...
    @overload
    def call(self, request: wire.PredictPartition, timeout_s: float | None = None) -> wire.Prediction: ...
    @overload
    def call(self, request: wire.GetProfile, timeout_s: float | None = None) -> wire.ProfileReply: ...
    @overload
    def call(self, request: Command, timeout_s: float | None = None) -> wire.ControlReply: ...
    def call(self, request: Call, timeout_s: float | None = None) -> Reply:
        """Ask and wait for the answer; ``request.call`` is set here, and the deadline of a command that has none.

        Raises `Refused` (`NotPermitted`), `TimedOut`, `Unreachable`. A command is never sent twice.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = self._now() + timeout_s
        self._wait_until_greeted(deadline)
        self._call += 1
        number = self._call
        request = replace(request, call=number)
        if isinstance(request, Change):
            request.deadline_unix_s = request.deadline_unix_s or time.time() + timeout_s
        self._waiting.add(number)
        try:
            if not self._send(request):
                raise self._gone("the connection was lost before the question was sent")
            while number not in self._answers:
                if number not in self._waiting:
                    raise self._gone("the connection was lost before the answer came")
                if self._now() >= deadline:
                    raise TimedOut(f"no answer from {self.endpoint} within {timeout_s:g} s")
                self.poll(deadline - self._now())
        finally:
            self._waiting.discard(number)
        answer = self._answers.pop(number)
        if isinstance(answer, Failed):
            raise refusal(answer)
        return answer

    # --- streams ----------------------------------------------------------------------------------------------

    def submit(self, request: Generate, *, resume: bool = False) -> Stream:
        """Open a stream and return at once; `poll` fills its ``events``. Raises `Unreachable`.

        ``resume``: after a restart of the front ask for the rest; otherwise the stream ends with ``front_restarted``.
        """
        limits = self._wait_until_greeted(self._now() + self.timeout_s).limits
        stream = Stream(request, resume, self._now())
        if (failed := unsendable(request, limits)) is not None:
            stream.end(failed)
            return stream
        if not self._send(request):
            raise self._gone("the connection was lost before the request was sent")
        self.streams[stream.id] = stream
        return stream

    def generate(
        self, request: Generate, *, resume: bool = False, on_silence: Callable[[], None] | None = None
    ) -> Iterator[Accepted | wire.Delta | Finished]:
        """Open a stream and yield its events up to `Finished`; a stream that fails raises `Refused` with its output.

        The daemon has ``timeout_s`` to accept it, else `TimedOut`. Leaving the iterator early cancels the stream.
        ``on_silence`` is called whenever nothing came for `generation.SILENCE_S`; it may ask the daemon why.
        """
        return generation.events(self, request, resume, on_silence)

    def cancel(self, id: str) -> wire.ControlReply:  # noqa: A002
        """Cancel a request and wait for the answer; its stream still ends by itself. Raises as `call` does."""
        return self.call(wire.Cancel(call=0, id=id))

    def abandon(self, id: str) -> None:  # noqa: A002
        """Cancel a stream and forget it, without waiting for anything."""
        self.streams.pop(id, None)
        self._call += 1
        self._send(wire.Cancel(call=self._call, id=id))

    # --- the pump ---------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float, fds: Sequence[int] = ()) -> bool:
        """Wait up to ``timeout_s`` for messages, then handle all that are there and do what is due.

        Something to read on one of ``fds``, the caller's own, ends the wait too. Returns whether anything arrived; it
        may return sooner with nothing. Raises `ProtocolMismatch`.
        """
        if not self._link.sockets:
            raise Unreachable("the client is closed", "connect() it first")
        self._do_what_is_due()
        arrived = wait(self, timeout_s=min(timeout_s, self._next_duty_s()), fds=fds)
        if arrived:
            if self._link.watch():
                self._waiting.clear()
            for message in self._link.receive():
                self._dispatch(message)
        self._do_what_is_due()
        return arrived

    def _next_duty_s(self) -> float:
        """Seconds until something has to be done without being asked."""
        if self._link.state == "open":
            return 0.02  # the pipe comes up a moment after its handshake event
        dues = [stream.retry_at_s for stream in self.streams.values() if stream.retry_at_s is not None]
        if self.connected:
            dues.append(self._lease_due_s)
        elif self.streams:
            dues.append(self._link.lost_at_s + self.patience_s)
        return max(0.0, min(dues) - self._now()) if dues else 3600.0

    def _do_what_is_due(self) -> None:
        now = self._now()
        if self._link.state == "open" and self._send(self._hello):
            self._link.state = "greeting"
        if self.connected:
            if now >= self._lease_due_s:
                self._renew_lease_later()
                self._send(Ping())
            for stream in list(self.streams.values()):
                if stream.retry_at_s is not None and now >= stream.retry_at_s:
                    stream.retry_at_s = None
                    self._send(stream.resubmission(self._now()))
        elif self.streams and now >= self._link.lost_at_s + self.patience_s:
            for stream in list(self.streams.values()):
                self._end_restarted(stream, f"the daemon did not come back within {self.patience_s:g} s")

    def _dispatch(self, message: wire.Reply) -> None:
        match message:
            case Welcome():
                self._greeted(message)
            case Deltas():
                for delta in message.items:
                    if stream := self.streams.get(delta.id):
                        stream.extend(delta)
                        self._forget_if_ended(stream)
            case Accepted():
                if stream := self.streams.get(message.id):
                    stream.accept(message)
            case Finished():
                if stream := self.streams.get(message.id):
                    stream.end(message)
                    self._forget_if_ended(stream)
            case Failed():
                self._failed(message)
            case _:
                if message.call in self._waiting:
                    self._answers[message.call] = message

    def _failed(self, failed: Failed) -> None:
        if failed.code == "hello_required":
            if self.connected:
                self._link.lose("open")
                self._waiting.clear()
        elif failed.id is not None:
            if (stream := self.streams.get(failed.id)) is None:
                return  # it was abandoned meanwhile, and nobody asks any more
            full_again = failed.code == "queue_full" and stream.accepted is not None  # it was let in before
            if stream.resume and (failed.code == "starting" or full_again):
                stream.refused = failed
                stream.retry_at_s = self._now() + min(failed.retry_after_s or RETRY_S, RETRY_S)
            else:
                stream.end(failed)
                self._forget_if_ended(stream)
        elif failed.call is not None:
            if failed.call in self._waiting:
                self._answers[failed.call] = failed
        elif self._link.state == "greeting":
            if failed.code == "protocol":
                raise ProtocolMismatch(failed.message, failed.hint)
            self._link.lose("open")  # who comes back greets anew
            raise refusal(failed)
        else:  # a frame that the daemon could not read at all: at most one question is open
            self._answers.update(dict.fromkeys(self._waiting, failed))

    def _greeted(self, welcome: Welcome) -> None:
        before = self.welcome
        self.welcome, self._link.state = welcome, "up"
        self._renew_lease_later()
        restarted = before is not None and before.front_boot_id != welcome.front_boot_id
        for stream in list(self.streams.values()):
            if restarted and not stream.resume:
                self._end_restarted(stream, "the daemon's front was restarted")
                continue
            if restarted:
                stream.front_changed()
            self._send(stream.resubmission(self._now()))

    def _end_restarted(self, stream: Stream, message: str) -> None:
        hint = "send the request again under the same id with the output ids received so far as resume_ids"
        tokens = stream.output_tokens
        stream.end(Failed(code="front_restarted", message=message, hint=hint, id=stream.id, output_tokens=tokens))
        self._forget_if_ended(stream)

    def _forget_if_ended(self, stream: Stream) -> None:
        if stream.ended is not None:
            self.streams.pop(stream.id, None)

    # --- plumbing ---------------------------------------------------------------------------------------------

    def _send(self, message: wire.Request) -> bool:
        """As `Link.send`."""
        return self._link.send(message)

    def _renew_lease_later(self) -> None:
        assert self.welcome is not None
        self._lease_due_s = self._now() + self.welcome.limits.lease_interval_s

    def _wait_until_greeted(self, deadline_s: float) -> Welcome:
        """Raises `Unreachable` when nobody listens for `CONNECT_TIMEOUT_S`, else `TimedOut` or `ProtocolMismatch`."""
        self.open()
        nobody_by = self._now() + CONNECT_TIMEOUT_S
        while not self.connected:
            until = min(deadline_s, nobody_by) if self._link.state == "down" else deadline_s
            left_s = until - self._now()
            if self.poll(max(0.0, left_s)) or left_s > 0:
                continue  # also when it is late: who was held up here has not seen yet what came meanwhile
            if self._link.state == "down":
                raise nobody_at(self.endpoint)
            raise TimedOut(f"the daemon at {self.endpoint} takes connections but does not answer")
        assert self.welcome is not None
        return self.welcome

    def _gone(self, what: str) -> Unreachable:
        return Unreachable(f"{what} at {self.endpoint}", how_to_reach(self.endpoint))

    @staticmethod
    def _now() -> float:
        return time.monotonic()

"""Where a console's data comes from: one interface, and the live daemon behind it.

A source runs threads of its own and hands everything over by `Source.poll`, which never blocks; the caller polls
when it draws. Calls are made beside the feed, so that a daemon that is slow to answer does not look dead. Lost
daemons are no errors here: libzmq reconnects for ever with backoff, the feed heals by itself, and `Connection` says
how it stands. Commands of an operator go over a connection of their own that exists only while control is unlocked,
so that the others could not change anything even by mistake.
"""

from __future__ import annotations

import os
import queue
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from msgspec.structs import replace

from rapidctl.client import Call, Change, Client, Feed, Reply, Stream, StreamEvent, wait
from rapidctl.errors import ProtocolMismatch, RapidctlError
from rapidctl.tape import Exchange
from rapidctl.wire import Event, Generate, Snapshot

NAP_S: Final = 1.0
"""Longest sleep of the thread: leases are renewed every 2 s, and messages wake it at once."""
MEND_S: Final = 2.0
"""Pause before a connection that speaks another protocol is tried again."""
SNAPSHOT_GAP_S: Final = 0.1
"""The console draws at most ten times a second: of a faster feed it takes the newest, and keeps its time for keys."""
CALL_TIMEOUT_S: Final = 3.0
REPLAY_S: Final = 1.0
"""How long the feed may wait for missed events at a time: more than a line to the other side of the world takes."""


class Connection(NamedTuple):
    """How the request socket stands. ``problem``: why there is none, when the daemon is there and still no use."""

    endpoint: str
    connected: bool
    problem: str = ""


class Received(NamedTuple):
    """A snapshot and when it came, on this machine's monotonic clock."""

    snapshot: Snapshot
    at_s: float


class Answer(NamedTuple):
    """The end of the call that got this ticket: a reply, or why there is none."""

    ticket: int
    result: Reply | RapidctlError


class Streamed(NamedTuple):
    """Something of a generation. An error ends it, as `Finished` and `Failed` do."""

    id: str
    event: StreamEvent | RapidctlError
    at_s: float


Update = Connection | Received | Event | Exchange | Answer | Streamed


class Source(Protocol):
    """What the console asks of any source."""

    def start(self) -> None:
        """Begin; returns at once."""

    def poll(self) -> list[Update]:
        """Everything new since the last call, oldest first; never blocks."""

    def ask(self, request: Call, *, control: bool = False) -> int:
        """Send a call, as an operator's if ``control``; its `Answer` carries the ticket returned here."""

    def generate(self, request: Generate) -> None:
        """Open a stream; it is `Streamed` until its end."""

    def abandon(self, request_id: str) -> None:
        """Cancel a stream of ours."""

    def lock(self) -> None:
        """Give operator rights back."""

    def close(self) -> None:
        """End the thread and all connections."""


class _Abandon(NamedTuple):
    request_id: str


class _Caller:
    """Calls over one connection, one after another in a thread of their own. Made when first needed."""

    def __init__(self, endpoint: str, updates: queue.SimpleQueue[Update], *, control: bool) -> None:
        self.broken: BaseException | None = None
        """What ended a call that should have ended in an answer."""
        self._endpoint = endpoint
        self._updates = updates
        self._control = control
        self._client: Client | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rapidctl-calls")

    def ask(self, ticket: int, request: Call) -> None:
        """The answer comes with the updates."""
        self._pool.submit(self._ask, ticket, request).add_done_callback(self._ended)

    def drop(self) -> None:
        """Give the connection back, once what was asked is answered."""
        self._pool.submit(self._drop).add_done_callback(self._ended)

    def close(self) -> None:
        """End the thread; what was not begun is not sent."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._drop()

    def _ask(self, ticket: int, request: Call) -> None:
        result: Reply | RapidctlError
        try:
            if self._client is None:
                self._client = Client(
                    self._endpoint, name="rapidctl-top", control=self._control, timeout_s=CALL_TIMEOUT_S
                )
            result = self._client.call(request)
        except RapidctlError as error:
            result = error
        self._updates.put(Answer(ticket, result))

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ended(self, call: Future[None]) -> None:
        if not call.cancelled():
            self.broken = call.exception() or self.broken


class LiveSource:
    """The daemon behind an endpoint."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._orders: queue.SimpleQueue[Generate | _Abandon] = queue.SimpleQueue()
        self._updates: queue.SimpleQueue[Update] = queue.SimpleQueue()
        self._reader = _Caller(endpoint, self._updates, control=False)
        self._commander = _Caller(endpoint, self._updates, control=True)
        self._ticket = 0
        self._stopping = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rapidctl-source")
        self._worker: Future[None] | None = None

    def start(self) -> None:  # noqa: D102
        self._worker = self._pool.submit(self._run)

    def poll(self) -> list[Update]:
        """As `Source.poll`; what killed the thread, if anything did, is raised here."""
        updates: list[Update] = []
        with suppress(queue.Empty):
            while True:
                updates.append(self._updates.get_nowait())
        if not updates and self._worker is not None and self._worker.done():
            self._worker.result()
        for caller in (self._reader, self._commander):
            if caller.broken is not None:
                raise caller.broken
        return updates

    def ask(self, request: Call, *, control: bool = False) -> int:  # noqa: D102
        self._ticket += 1
        if isinstance(request, Change) and request.deadline_unix_s is None:
            # Counted from here: a command that waited behind another one must not come as a surprise.
            request = replace(request, deadline_unix_s=time.time() + CALL_TIMEOUT_S)
        (self._commander if control else self._reader).ask(self._ticket, request)
        return self._ticket

    def generate(self, request: Generate) -> None:  # noqa: D102
        self._order(request)

    def abandon(self, request_id: str) -> None:  # noqa: D102
        self._order(_Abandon(request_id))

    def lock(self) -> None:  # noqa: D102
        self._commander.drop()

    def close(self) -> None:  # noqa: D102
        self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        self._pool.shutdown()
        self._reader.close()
        self._commander.close()
        os.close(self._wake_fd)

    def _order(self, order: Generate | _Abandon) -> None:
        self._orders.put(order)
        os.eventfd_write(self._wake_fd, 1)

    # --- in the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                with _Link(self.endpoint, self._updates) as link:
                    while not self._stopping:
                        link.sleep(self._wake_fd)
                        self._serve(link)
                        link.pump()
            except ProtocolMismatch as error:
                self._updates.put(Connection(self.endpoint, connected=False, problem=str(error)))
                wait(timeout_s=MEND_S, fds=[self._wake_fd])

    def _serve(self, link: _Link) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        with suppress(queue.Empty):
            while not self._stopping:
                link.obey(self._orders.get_nowait())


class _Link:
    """The sockets of one attempt to talk with a daemon, and what they brought."""

    def __init__(self, endpoint: str, updates: queue.SimpleQueue[Update]) -> None:
        self._endpoint = endpoint
        self._updates = updates
        self._client = Client(endpoint, name="rapidctl-top")
        self._client.open()
        self._feed = Feed(endpoint, client=self._client, since=0, gap_s=SNAPSHOT_GAP_S)
        self._streams: list[Stream] = []
        self._seen: Snapshot | None = None
        self._said: Connection | None = None

    def __enter__(self) -> _Link:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self._streams:
            self._client.abandon(stream.id)
        self._feed.close()
        self._client.close()

    def sleep(self, wake_fd: int) -> None:
        wait(self._feed, self._client, timeout_s=min(NAP_S, self._feed.held_s or NAP_S), fds=[wake_fd])

    def obey(self, order: Generate | _Abandon) -> None:
        match order:
            case Generate():
                try:
                    self._streams.append(self._client.submit(order))
                except RapidctlError as error:
                    self._updates.put(Streamed(order.id, error, time.monotonic()))
            case _Abandon():
                # Not `Client.abandon`: the stream's own last message says what came of it.
                with suppress(RapidctlError):
                    self._client.cancel(order.request_id)

    def pump(self) -> None:
        """Hand over everything that arrived."""
        self._client.poll(0)
        now = time.monotonic()
        for stream in self._streams:
            while stream.events:
                self._updates.put(Streamed(stream.id, stream.events.popleft(), now))
        self._streams = [stream for stream in self._streams if stream.ended is None]
        if wait(self._feed, timeout_s=0) or self._feed.replay_is_due:
            self._feed.poll(REPLAY_S)
        for event in self._feed.take_events():
            self._updates.put(event)
        if self._feed.snapshot is not None and self._feed.snapshot is not self._seen:
            self._seen = self._feed.snapshot
            self._updates.put(Received(self._seen, time.monotonic()))
        state = Connection(self._endpoint, self._client.connected)
        if state != self._said:
            self._said = state
            self._updates.put(state)

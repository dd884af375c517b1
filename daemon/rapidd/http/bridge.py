"""Between the daemon's socket and the event loop: one thread with the one client, and an inbox for each HTTP request.

The thread owns the `Client`; the loop asks it through a queue and an eventfd. What one poll brings (an engine step,
mostly) goes to the loop in one call, so that a step wakes it once however many streams it has.

A request that was accepted goes on when the daemon's front, or the daemon, is restarted: the client asks for the rest.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from rapidctl.client import Client, Stream, wait
from rapidctl.errors import RapidctlError, nobody_at
from rapidctl.stream import StreamEvent
from rapidctl.wire import Generate
from rapidd import log

Message = StreamEvent | RapidctlError | None
"""What an inbox holds: what the daemon says, why it cannot be asked, or null: nothing happened for a while."""

IDLE_S: Final = 3600.0
GRACE_S: Final = 1.0
"""For so long after a start or a loss of the connection, requests wait for it; then they are refused at once."""
RECONNECT_S: Final = 1.0
"""Pause before asking a daemon again that speaks another protocol."""
MAX_BACKLOG: Final = 1000
"""Messages that wait for one HTTP client which does not read, before it is given up."""
LEAST_STEPS: Final = 64
"""Of many choices, each of which has a message a step, so many steps at least."""


class Disconnected(Exception):
    """The HTTP client has gone, or was given up."""


class Inbox:
    """What there is to say to one HTTP client. Belongs to the event loop. ``give_up`` cuts one that reads nothing.

    ``choices``: how many there are.
    """

    def __init__(self, give_up: Callable[[], None], choices: int = 1) -> None:
        self._most = max(MAX_BACKLOG, LEAST_STEPS * choices)
        self._messages: list[tuple[int, Message]] = []
        self._waiter: asyncio.Future[None] | None = None
        self._gone = False
        self._give_up = give_up
        self.idle = False
        """Nothing came since the last look at it."""

    async def take(self) -> list[tuple[int, Message]]:
        """All that has arrived, waiting for something: (number of the request, message). Raises `Disconnected`."""
        if not self._messages and not self._gone:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._gone:
            raise Disconnected
        messages, self._messages = self._messages, []
        return messages

    def put(self, index: int, message: Message) -> None:
        """Something for the client."""
        if self._gone:
            return
        self.idle = False
        self._messages.append((index, message))
        if len(self._messages) > self._most:
            self.hang_up()
            self._give_up()
        self._wake()

    def put_back(self, messages: list[tuple[int, Message]]) -> None:
        """What was taken too early: it comes first, next time."""
        self._messages[:0] = messages

    def hang_up(self) -> None:
        """The client is not there any more."""
        self._gone = True
        self._messages.clear()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_Batch = tuple[Inbox, int, list[Message]]
"""Messages of one request of an inbox."""


class _Open:
    """A stream that runs, and where its messages go."""

    __slots__ = ("inbox", "index", "stream")

    def __init__(self, stream: Stream, inbox: Inbox, index: int) -> None:
        self.stream = stream
        self.inbox = inbox
        self.index = index


class Bridge:
    """`start` and `close` it from the event loop's thread, which all other methods belong to as well."""

    def __init__(self, endpoint: str, patience_s: float) -> None:
        self.endpoint = endpoint
        self.patience_s = patience_s
        self.inboxes: set[Inbox] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = self._new_client()
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open: dict[str, _Open] = {}
        self._trouble: RapidctlError | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="bridge")

    def start(self) -> None:
        """Start the thread; call from the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """End the thread and its streams."""
        self._command(self._stop)
        self._thread.join()
        os.close(self._wake)

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    @property
    def front_boot_id(self) -> str | None:
        """Of the daemon that is connected now; null while there is none."""
        welcome = self._client.welcome
        return welcome.front_boot_id if welcome is not None and self._client.connected else None

    def open(self, requests: list[Generate], inbox: Inbox) -> None:
        """Ask the daemon; what it says arrives in ``inbox`` under the request's number."""
        self.inboxes.add(inbox)
        if not self.alive:
            self._break_down()
        for index, request in enumerate(requests):
            self._command(partial(self._submit, request, inbox, index))

    def close_inbox(self, requests: list[Generate], inbox: Inbox) -> None:
        """The answer is over; what still runs of it is cancelled."""
        self.inboxes.discard(inbox)
        self._command(partial(self._abandon, [request.id for request in requests]))

    def tick(self) -> None:
        """Tell inboxes to which nothing came since the last tick."""
        for inbox in self.inboxes:
            if inbox.idle:
                inbox.put(0, None)
            inbox.idle = True

    def _break_down(self) -> None:
        """Nobody speaks with the daemon any more: end every answer."""
        for inbox in self.inboxes:
            inbox.put(0, RapidctlError("the HTTP server lost its thread to the daemon", "see its log, and restart it"))

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        os.eventfd_write(self._wake, 1)

    # --- in the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._client.open()
            while not self._stopping:
                self._turn()
        except Exception:  # the boundary of the thread: a bug, which /health/live shows
            log.bug("the thread to the daemon ended")
            self._call(self._break_down)
        finally:
            self._client.close()

    def _turn(self) -> None:
        try:
            self._client.poll(IDLE_S, fds=(self._wake,))
            if self._client.connected:
                self._trouble = None
        except RapidctlError as error:  # a daemon of another version
            self._fail_all(error)
            self._trouble = error
            self._client.close()
            wait(timeout_s=RECONNECT_S, fds=(self._wake,))
            self._client = self._new_client()
            self._client.open()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._commands:
            self._commands.popleft()()
        self._forward()

    def _new_client(self) -> Client:
        return Client(self.endpoint, name="http", patience_s=self.patience_s)

    def _submit(self, request: Generate, inbox: Inbox, index: int) -> None:
        try:
            if (lost_s := self._client.lost_s) is not None and lost_s > GRACE_S:
                raise self._unreachable()
            self._open[request.id] = _Open(self._client.submit(request), inbox, index)
        except RapidctlError as error:
            self._deliver([(inbox, index, [error])])

    def _unreachable(self) -> RapidctlError:
        return self._trouble or nobody_at(self.endpoint)

    def _abandon(self, ids: list[str]) -> None:
        for stream_id in ids:
            if self._open.pop(stream_id, None) is not None:
                self._client.abandon(stream_id)

    def _forward(self) -> None:
        """Hand over what the streams received."""
        batch: list[_Batch] = []
        ended: list[str] = []
        for stream_id, open_ in self._open.items():
            stream = open_.stream
            if not stream.events:
                continue
            batch.append((open_.inbox, open_.index, list(stream.events)))
            stream.events.clear()
            if stream.accepted is not None:
                stream.resume = True  # not before: a daemon that is starting refuses at once
            if stream.ended is not None:
                ended.append(stream_id)
        for stream_id in ended:
            del self._open[stream_id]
        if batch:
            self._deliver(batch)

    def _fail_all(self, error: RapidctlError) -> None:
        self._deliver([(open_.inbox, open_.index, [error]) for open_ in self._open.values()])
        self._open.clear()

    def _deliver(self, batch: list[_Batch]) -> None:
        self._call(partial(_put, batch))

    def _call(self, what: Callable[[], None]) -> None:
        """Let the loop do something."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what)

    def _stop(self) -> None:
        self._stopping = True


def _put(batch: list[_Batch]) -> None:
    for inbox, index, messages in batch:
        for message in messages:
            inbox.put(index, message)

"""The daemon's published side: the latest snapshot, and every event in order.

Two SUB sockets. Snapshots are conflated: after a stall only the newest is left, so what `Feed.snapshot` holds is
never old data in disguise; how old it is says `Feed.age_s`, which is also the only sign of a dead daemon (a SUB
socket gives none). Events are numbered: a hole is filled by `GetEvents` over a client, and what is no longer kept
is counted in ``lost_events``. One thread at a time; nothing blocks longer than asked.
"""

import time
from typing import TYPE_CHECKING, Final

import zmq

from rapidctl import keys, wire
from rapidctl.errors import ProtocolMismatch, RapidctlError, unreadable
from rapidctl.wire import HEARTBEAT_MS, Event, GetEvents, Snapshot

if TYPE_CHECKING:
    from rapidctl.client import Client

MAX_QUEUED_EVENTS: Final = 10_000
RECONNECT_MS: Final = (50, 1000)  # first and longest pause between attempts
REPLAY_RETRY_S: Final = 0.25


class Feed:
    """Subscribes to the daemon behind a request ``endpoint``; works whether or not it is there yet.

    ``client`` serves replays: without one, holes are only counted. ``since``: replay from this event on; null
    starts with the next one published. ``gap_s``: after a snapshot none is taken for so long, and then the newest.
    Unreadable frames raise `ProtocolMismatch`.
    """

    def __init__(
        self, endpoint: str, *, client: "Client | None" = None, since: int | None = None, gap_s: float = 0.0
    ) -> None:
        self.snapshot: Snapshot | None = None
        """The newest, kept when the daemon goes away: look at `age_s`."""
        self.lost_events = 0
        """Events that were published and can no longer be had."""
        self.front_boots = 0
        """How many boots of the front were seen; a second one means that it was restarted."""
        self.gap_s = gap_s
        self._client = client
        self._events: list[Event] = []
        self._front_boot_id: str | None = None
        self._next_seq = since
        self._replay_due_s: float | None = None if since is None else 0.0
        self._arrived_s: float | None = None
        address = wire.metrics_endpoint(endpoint)
        self._snapshot_socket = _subscribe(wire.SNAPSHOT_TOPIC)
        self._snapshot_socket.conflate = True  # one frame a message, or nothing would arrive
        self._event_socket = _subscribe(wire.EVENT_TOPIC)
        self._sockets = [self._snapshot_socket, self._event_socket]
        for socket in self._sockets:
            keys.secure(socket, endpoint)
            socket.connect(address)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe."""
        for socket in self._sockets:
            socket.close()

    @property
    def sockets(self) -> list["zmq.Socket[bytes]"]:
        """For `rapidctl.client.wait`: without the snapshots while they are held back."""
        return [self._event_socket] if self.held_s > 0 else self._sockets

    @property
    def held_s(self) -> float:
        """Seconds until the next snapshot is taken; 0: as soon as it comes."""
        return 0.0 if self._arrived_s is None else max(0.0, self._arrived_s + self.gap_s - time.monotonic())

    @property
    def age_s(self) -> float | None:
        """Seconds since the newest snapshot arrived; null before the first."""
        return None if self._arrived_s is None else time.monotonic() - self._arrived_s

    @property
    def replay_is_due(self) -> bool:
        """Whether `poll` would ask for missing events now, though nothing has arrived."""
        due_s, client = self._replay_due_s, self._client
        return due_s is not None and client is not None and client.connected and time.monotonic() >= due_s

    def take_events(self) -> list[Event]:
        """The events since the last call, oldest first, without holes except those counted in ``lost_events``."""
        taken, self._events = self._events, []
        return taken

    def poll(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` for something new and take it in. Returns whether there is anything."""
        deadline = time.monotonic() + timeout_s
        if self._replay_due_s is not None and self._client is not None:
            if time.monotonic() >= self._replay_due_s:
                self._replay(self._client, timeout_s)
            if self._replay_due_s is not None:
                deadline = min(deadline, self._replay_due_s)
        arrived = self._receive()
        if not arrived and not self._events and (left := deadline - time.monotonic()) > 0:
            self._sleep(left)
            arrived = self._receive()
        return arrived or bool(self._events)

    def _sleep(self, timeout_s: float) -> None:
        poller = zmq.Poller()
        for socket in self.sockets:
            poller.register(socket, zmq.POLLIN)
        poller.poll(round(timeout_s * 1000))

    def _receive(self) -> bool:
        try:
            return self._receive_all()
        except wire.WireError as error:
            raise unreadable(error) from error

    def _receive_all(self) -> bool:
        arrived = False
        if self.held_s == 0 and (frame := _receive_now(self._snapshot_socket)) is not None:
            self.snapshot = wire.decode_snapshot(frame)
            self._arrived_s = time.monotonic()
            self._booted(self.snapshot.front_boot_id)
            arrived = True
        while (frame := _receive_now(self._event_socket)) is not None:
            self._take(wire.decode_event(frame))
            arrived = True
        return arrived

    def _booted(self, front_boot_id: str) -> None:
        if front_boot_id == self._front_boot_id:
            return
        if self._front_boot_id is not None:  # numbering began anew, and its first events were missed
            self._next_seq = None if self._client is None else 0
            self._replay_due_s = 0.0
        self._front_boot_id = front_boot_id
        self.front_boots += 1

    def _take(self, event: Event) -> None:
        """Pass the event on if it is the next one. One that comes too early waits for the replay, which has it."""
        self._booted(event.front_boot_id)
        if self._next_seq is None or event.seq == self._next_seq:
            self._events.append(event)
            self._next_seq = event.seq + 1
        elif event.seq > self._next_seq:
            if self._client is None:
                self.lost_events += event.seq - self._next_seq
                self._next_seq = event.seq
                self._take(event)
            elif self._replay_due_s is None:
                self._replay_due_s = 0.0

    def _replay(self, client: "Client", timeout_s: float) -> None:
        """Ask for the missing events; when nobody answers, try again a little later."""
        if self._next_seq is None:
            self._replay_due_s = None
            return
        self._replay_due_s = time.monotonic() + REPLAY_RETRY_S
        try:
            client.open()
            client.poll(0)
            if not client.connected:
                return
            answer = client.call(GetEvents(call=0, from_seq=self._next_seq), timeout_s)
        except ProtocolMismatch:
            raise
        except RapidctlError:
            return
        if self._next_seq > answer.next_seq:  # numbers of an earlier boot
            self._next_seq = answer.next_seq
        if answer.oldest_seq > self._next_seq:
            if self._next_seq > 0:  # 0 asks for all that are kept
                self.lost_events += answer.oldest_seq - self._next_seq
            self._next_seq = answer.oldest_seq
        for event in answer.events:
            self._take(event)
        complete = self._next_seq >= answer.next_seq or not answer.events
        self._replay_due_s = None if complete else 0.0


def _subscribe(topic: bytes) -> "zmq.Socket[bytes]":
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.linger = 0
    socket.rcvhwm = MAX_QUEUED_EVENTS
    socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = HEARTBEAT_MS
    socket.reconnect_ivl, socket.reconnect_ivl_max = RECONNECT_MS
    socket.subscribe(topic)
    return socket


def _receive_now(socket: "zmq.Socket[bytes]") -> bytes | None:
    try:
        return socket.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None

"""The connection of a client: one DEALER socket, what its monitor tells of it, and frames in and out.

libzmq makes a lost connection again by itself; each time, the client has to greet anew. It knows no calls and no
streams: `rapidctl.client` does.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, Literal, Protocol

import zmq

from rapidctl import keys, wire
from rapidctl.errors import UsageError, unreadable
from rapidctl.feed import RECONNECT_MS

MAX_MESSAGES_A_POLL: Final = 1000
CLOSE_LINGER_MS: Final = 200
"""How long a cancel that was just sent may take to leave; only what was sent to a live daemon is held."""

State = Literal["down", "taken", "open", "greeting", "up"]
"""``taken``: somebody listens there, and has not said anything; ``open``: connected, Hello not sent; ``greeting``: not
answered yet. Over tcp, where a stranger's connection is taken too, nothing is known before it is ``open``.
"""
_NOWHERE: Final = ("down", "taken")


class _Waitable(Protocol):
    @property
    def sockets(self) -> Sequence["zmq.Socket[bytes]"]: ...


def wait(*parts: _Waitable, timeout_s: float, fds: Sequence[int] = ()) -> bool:
    """Sleep until a client, a feed or a file descriptor has something to read. False when none had in time."""
    poller = zmq.Poller()
    for part in parts:
        for socket in part.sockets:
            poller.register(socket, zmq.POLLIN)
    for fd in fds:
        poller.register(fd, zmq.POLLIN)
    return bool(poller.poll(max(0, round(timeout_s * 1000))))


class Link:
    """``state`` is the client's to set while it greets; the monitor sets it when connections come and go."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.state: State = "down"
        self.lost_at_s = time.monotonic()
        """When it was last up, or the link was opened."""
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None

    def open(self) -> None:
        """Make the sockets and start connecting, without waiting. Raises `UsageError` for keys that cannot be used."""
        if self._socket is not None:
            return
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = 1000
        socket.rcvhwm = 0  # the daemon, not libzmq's drop, decides what happens to a slow reader
        socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = wire.HEARTBEAT_MS
        socket.reconnect_ivl, socket.reconnect_ivl_max = RECONNECT_MS
        try:
            keys.secure(socket, self.endpoint)
        except UsageError:
            socket.close()
            raise
        told = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        is_local = self.endpoint.startswith("ipc://")
        self._monitor = socket.get_monitor_socket(told | zmq.EVENT_CONNECTED if is_local else told)
        self._monitor.linger = 0
        socket.connect(self.endpoint)
        self._socket = socket
        self.lost_at_s = time.monotonic()

    def close(self) -> None:
        """Drop the connection."""
        if self._socket is not None:
            self._socket.disable_monitor()
            for socket in self.sockets:
                socket.close(linger=CLOSE_LINGER_MS if self.up else 0)
            self._socket = self._monitor = None
        self.state = "down"

    @property
    def sockets(self) -> list["zmq.Socket[bytes]"]:
        """Something can be read here when there is something to take in; none: closed."""
        return [socket for socket in (self._socket, self._monitor) if socket is not None]

    @property
    def up(self) -> bool:
        """Hello was answered on the connection that there is now."""
        return self.state == "up"

    def lose(self, state: State) -> None:
        """The connection is gone, or has to be greeted anew (``open``)."""
        if self.up:
            self.lost_at_s = time.monotonic()
        self.state = state

    def watch(self) -> bool:
        """Take in what the monitor tells; returns whether a connection was lost."""
        assert self._monitor is not None
        lost = False
        while self._monitor.poll(0):
            header, _address = self._monitor.recv_multipart()
            event = int.from_bytes(header[:2], sys.byteorder)  # u16 event, u32 value: zmq_socket_monitor(3)
            if event == zmq.EVENT_CONNECTED:
                self.state = "taken"
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.state = "open"
            elif event == zmq.EVENT_DISCONNECTED:
                self.lose("down")
                lost = True
        return lost

    def send(self, message: wire.Request) -> bool:
        """False when there is no connection to send on: nothing is queued for a daemon that is not there.

        What is sent before the loss of a connection is noticed comes to the next one ahead of its Hello: it is refused
        there. ZMQ_IMMEDIATE would drop it, and with it all that a daemon said before it ended and nobody has read yet.
        """
        assert self._socket is not None
        if self.state in _NOWHERE:
            return False
        try:
            self._socket.send(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> Iterator[wire.Reply]:
        """What has arrived, but not for ever. Raises `ProtocolMismatch`."""
        assert self._socket is not None
        for _ in range(MAX_MESSAGES_A_POLL):
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                yield wire.decode_reply(frame)
            except wire.WireError as error:
                raise unreadable(error) from error

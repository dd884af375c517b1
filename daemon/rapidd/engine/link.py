"""The engine's end of the private socket to the front. Knows messages, not what they mean to the engine."""

import contextlib
from collections.abc import Iterator
from typing import Final

import zmq
from msgspec import Struct

from rapidd import ipc

HIGH_WATER = 100_000
"""Messages: far more than an engine makes in the time after which a silent front is given up."""


MOST_A_TURN: Final = 64
"""Messages: whoever asks faster than the engine answers must not keep it from its steps."""


class FrontLink:
    """A DEALER that never blocks; a message to a front that is not there is lost, as everything about it is."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, ipc.ENGINE_IDENTITY)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
        self.socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self.socket.connect(endpoint)

    def send(self, message: Struct) -> None:
        """One message, or nothing when there is no front."""
        with contextlib.suppress(zmq.Again):
            self.socket.send(ipc.encode(message), zmq.NOBLOCK)

    def receive(self) -> Iterator[ipc.FrontMessage]:
        """What has arrived, but no more than a turn may take: the rest is there at once, in the next one."""
        for _ in range(MOST_A_TURN):
            try:
                frame = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield ipc.decode_front(frame)

    def close(self) -> None:
        """Give the socket back; nothing is flushed."""
        self.socket.close()
        self._context.term()

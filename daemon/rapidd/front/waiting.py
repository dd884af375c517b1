"""Sleeping until a socket has a message: one system call, where zmq's own poller makes several for each socket.

libzmq gives each socket a descriptor that tells of news only (an edge): it is readable once something happened since
the socket was last asked for its events, and using the socket in any way counts as asking. So a socket that was used
is asked before the next sleep. Knows no messages.
"""

import select
from collections.abc import Iterable
from typing import Final

import zmq

Source = zmq.Socket[bytes] | int
"""A zmq socket or a plain descriptor."""
_READABLE: Final = int(zmq.POLLIN)


class Waiter:
    """Waits for zmq sockets, and for plain descriptors."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._poll = select.poll()
        self._sources = {
            source if isinstance(source, int) else int(source.getsockopt(zmq.FD)): source for source in sources
        }
        for descriptor in self._sources:
            self._poll.register(descriptor, select.POLLIN)
        self._used = {source for source in self._sources.values() if not isinstance(source, int)}

    def used(self, socket: "zmq.Socket[bytes]") -> None:
        """The socket was sent to, or not read to its end, since it was last asked."""
        self._used.add(socket)

    def wait(self, timeout_ms: int) -> set[Source]:
        """Sources that may be read without waiting; a socket among them may turn out to have nothing."""
        ready: set[Source] = {socket for socket in self._used if has_message(socket)}
        self._used.clear()
        for descriptor, _ in self._poll.poll(0 if ready else timeout_ms):
            ready.add(self._sources[descriptor])
        return ready


def has_message(socket: "zmq.Socket[bytes]") -> bool:
    """Ask the socket, which takes the news from its descriptor. Of the ways to ask the one with the least Python."""
    return bool(zmq.zmq_poll([(socket, _READABLE)], 0))

"""Who is connected: names, rights, leases, and sends that find out who is gone or does not read.

A send never blocks and never raises: a client that cannot be reached, or whose queue is full, goes to ``lost`` and
its owner reaps it before the next message. Knows no streams and no sockets (`Transport` is the seam).
"""

from collections.abc import Callable, Iterator
from typing import Final, Literal, Protocol

from rapidctl import wire
from rapidd.errors import RequestError
from rapidd.front.access import Peer, is_same_user

Clock = Callable[[], int]
"""Nanoseconds of the monotonic clock."""
Outcome = Literal["sent", "gone", "full"]

LEASE_NS: Final = int(wire.LEASE_INTERVAL_S * wire.LEASE_MISSES * 1e9) - 100_000_000
"""So that what follows from it is done in time too."""
LATE_NS: Final = int(1.25 * wire.LEASE_INTERVAL_S * 1e9)
"""A client with streams that is silent for so long is asked as those without are: who left is known sooner."""
PROBE_NS: Final = 30_000_000_000
"""A silent client without streams is sent an empty message this often, only to see whether it is still there."""
FULL_NS: Final = 1_000_000_000
"""While there is no room for a newcomer, they are asked this often, and those that were silent for so long."""
OWED_NS: Final = 60_000_000_000
"""A client that did not read is given this long to come back for the end of its streams."""


class Transport(Protocol):
    """What moves frames. Nothing here blocks."""

    def to_client(self, identity: bytes, frame: bytes) -> Outcome:
        """One frame to one connection."""

    def to_engine(self, identity: bytes, frame: bytes) -> bool:
        """One frame to an engine; false when it is not connected."""

    def publish(self, frame: bytes) -> None:
        """One frame to every subscriber."""


def refusal(
    error: RequestError, *, call: int | None = None, stream_id: str | None = None, output_tokens: int = 0
) -> wire.Failed:
    """An error as the client gets it."""
    return wire.Failed(
        code=error.code,
        message=str(error),
        hint=error.hint,
        call=call,
        id=stream_id,
        retry_after_s=error.retry_after_s,
        output_tokens=output_tokens,
    )


class Client:
    """One connection that said `Hello`."""

    __slots__ = ("control", "identity", "label", "last_seen_ns", "peer", "probed_ns", "stream_ids")

    def __init__(self, identity: bytes, label: str, control: bool, peer: Peer | None, now_ns: int) -> None:
        self.identity = identity
        self.label = label
        self.control = control
        self.peer = peer
        self.last_seen_ns = now_ns
        self.probed_ns = now_ns
        self.stream_ids: set[str] = set()


class Clients:
    """The registry. ``lost`` lists who has to be reaped, and why."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._by_identity: dict[bytes, Client] = {}
        self.lost: list[tuple[Client, Literal["gone", "full"]]] = []
        self._owed: list[tuple[int, bytes, bytes]] = []  # (give up at ns, identity, frame)
        self._made_room_ns = 0

    def __len__(self) -> int:
        return len(self._by_identity)

    def get(self, identity: bytes) -> Client | None:
        """The client behind a connection, null before its `Hello`."""
        return self._by_identity.get(identity)

    def heard(self, identity: bytes, peer: Peer | None) -> Client | None:
        """The client that a message is from, null before its `Hello`.

        One whose connection is another user's now is gone: clients may choose its name, and any that is free.
        """
        client = self._by_identity.get(identity)
        if client is None:
            return None
        if not is_same_user(client.peer, peer):
            self.lost.append((self._by_identity.pop(identity), "gone"))
            return None
        client.last_seen_ns = self._clock()
        return client

    def __iter__(self) -> Iterator[Client]:
        return iter(self._by_identity.values())

    def hello(self, identity: bytes, name: str, peer: Peer | None, control: bool) -> Client:
        """Register a connection, or rename it."""
        label = f"{name or 'client'}/{'?' if peer is None else peer.user}"
        client = self._by_identity.get(identity)
        if client is None:
            # It knows that its streams are gone, and may have opened them again: last words would end these.
            self._owed = [words for words in self._owed if words[1] != identity]
            client = self._by_identity[identity] = Client(identity, label, control, peer, self._clock())
        else:
            client.label, client.control, client.peer = label, control, peer
        return client

    def reply(self, identity: bytes, message: wire.Reply) -> bool:
        """Send to any connection, registered or not; false when it did not go out."""
        outcome = self._transport.to_client(identity, wire.encode(message))
        if outcome == "sent":
            return True
        client = self._by_identity.pop(identity, None)
        if client is not None:
            self.lost.append((client, outcome))
        return False

    def owe(self, identity: bytes, message: wire.Reply) -> None:
        """Last words to a client whose queue is full; sent when it reads again, if it does soon."""
        self._owed.append((self._clock() + OWED_NS, identity, wire.encode(message)))

    def settle(self) -> None:
        """Try again to say what is owed."""
        now_ns = self._clock()
        self._owed = [
            (until_ns, identity, frame)
            for until_ns, identity, frame in self._owed
            if now_ns < until_ns and self._transport.to_client(identity, frame) == "full"
        ]

    def is_there(self, identity: bytes) -> bool:
        """Whether a connection still takes messages. Sends an empty one, the only way to ask a ROUTER."""
        return identity in self._by_identity and self.reply(identity, wire.Deltas(items=[]))

    def next_look_ns(self) -> int:
        """When `silent` and `probe` may next find a client with streams, also one that has none yet."""
        quiet_since_ns = [self._clock()]
        for client in self._by_identity.values():
            if client.stream_ids:
                quiet_since_ns += client.last_seen_ns + LEASE_NS - LATE_NS, max(client.last_seen_ns, client.probed_ns)
        return min(quiet_since_ns) + LATE_NS

    def excuse(self) -> None:
        """Nobody listened: whoever seems to have missed a lease may have said something that was not read yet."""
        seen_ns = self._clock() - LEASE_NS + LATE_NS
        for client in self._by_identity.values():
            if client.stream_ids:
                client.last_seen_ns = max(client.last_seen_ns, seen_ns)

    def silent(self) -> list[Client]:
        """Clients with streams that have missed their lease; they are forgotten here."""
        before = self._clock() - LEASE_NS
        silent = [
            client for client in self._by_identity.values() if client.stream_ids and client.last_seen_ns <= before
        ]
        for client in silent:
            del self._by_identity[client.identity]
        return silent

    def make_room(self) -> None:
        """Nobody more is taken: find out now who has left, and not when it would be time."""
        if self._clock() - self._made_room_ns >= FULL_NS:
            self._made_room_ns = self._clock()
            self.probe(FULL_NS)

    def probe(self, longest_ns: int = PROBE_NS) -> None:
        """Find out which of the silent clients have left; those without streams after ``longest_ns``."""
        now_ns = self._clock()
        for client in list(self._by_identity.values()):
            patience_ns = min(LATE_NS, longest_ns) if client.stream_ids else longest_ns
            if now_ns - max(client.last_seen_ns, client.probed_ns) >= patience_ns:
                client.probed_ns = now_ns
                self.reply(client.identity, wire.Deltas(items=[]))

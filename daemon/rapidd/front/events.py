"""What happened, numbered without gaps since the front's boot: published once, kept for replay."""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from rapidctl import wire
from rapidd import log
from rapidd.front.clients import Transport

KEPT: Final = 1000
DECISIONS_SHOWN: Final = 8
QUIET: Final = ("decision", "applied", "config")
"""Lines at debug: the first two come with every change of load, and the supervisor has said what became of a reload."""


class EventLog:
    """The ring of events, and the decisions that a snapshot shows. ``wall``: seconds of the unix clock."""

    def __init__(self, transport: Transport, front_boot_id: str, wall: Callable[[], float]) -> None:
        self._transport = transport
        self._front_boot_id = front_boot_id
        self._wall = wall
        self._events: deque[wire.Event] = deque(maxlen=KEPT)
        self.decisions: deque[wire.Decision] = deque(maxlen=DECISIONS_SHOWN)
        self.next_seq = 0

    def emit(self, kind: Any, text: str, level: Any = "info", **fields: Any) -> None:
        """Number, keep and publish one event; ``kind``, ``level`` and ``fields`` are those of `wire.Event`."""
        event = wire.Event(
            seq=self.next_seq,
            front_boot_id=self._front_boot_id,
            at_unix_s=self._wall(),
            kind=kind,
            level=level,
            text=text,
            **fields,
        )
        self.next_seq += 1
        self._events.append(event)
        if kind in QUIET:
            log.debug(text, event=kind)
        else:
            log.event(level, text, event=kind, request_id=event.request_id, epoch=event.epoch)
        self._transport.publish(wire.EVENT_TOPIC + wire.encode(event))

    def decide(self, decision: int, epoch: int, source: Any, text: str) -> None:
        """Keep one line for the snapshot's list of decisions."""
        self.decisions.append(
            wire.Decision(at_unix_s=self._wall(), decision=decision, epoch=epoch, source=source, text=text)
        )

    def replay(self, call: int, from_seq: int, limit: int) -> wire.EventList:
        """Kept events from ``from_seq`` on, oldest first."""
        oldest = self._events[0].seq if self._events else self.next_seq
        events = [event for event in self._events if event.seq >= from_seq][:limit]
        return wire.EventList(call=call, oldest_seq=oldest, next_seq=self.next_seq, events=events)

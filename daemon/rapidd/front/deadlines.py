"""Which stream has to end next, of those that their clients gave a time. Knows no clock."""

import heapq
from collections.abc import Iterator
from typing import Final

from rapidd.front.journal import Journal, Stream

SLACK: Final = 64
"""Entries of ended streams, beyond as many as there are live ones, before they are thrown out together."""


class Deadlines:
    """A heap over the journal; an entry whose stream has ended is skipped when its turn comes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._heap: list[tuple[int, str]] = []

    def watch(self, stream: Stream) -> None:
        """A stream of the journal that has just begun; one without a deadline is nothing to watch."""
        if stream.deadline_ns is None:
            return
        heapq.heappush(self._heap, (stream.deadline_ns, stream.id))
        live = self._journal.streams.values()
        if len(self._heap) > 2 * len(live) + SLACK:
            self._heap = [(other.deadline_ns, other.id) for other in live if other.deadline_ns is not None]
            heapq.heapify(self._heap)

    def due(self, now_ns: int) -> Iterator[Stream]:
        """Live streams whose deadline has passed, each once."""
        while self._heap and self._heap[0][0] <= now_ns:
            deadline_ns, stream_id = heapq.heappop(self._heap)
            stream = self._journal.streams.get(stream_id)
            if stream is not None and stream.deadline_ns == deadline_ns:
                yield stream

    @property
    def next_ns(self) -> int | None:
        """When `due` may have something."""
        return self._heap[0][0] if self._heap else None


def age(stream: Stream, now_ns: int) -> str:
    """How long ago a stream's request arrived: "0.5 ms", "40 ms", "1.5 s"."""
    seconds = (now_ns - stream.arrival_ns) / 1e9
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.1f} s"

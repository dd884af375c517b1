"""Records and a target for tests of the load generator: the target is its declared seam, its clock is the test's."""

import heapq
import math
from array import array
from collections.abc import Callable, Sequence

from rapidctl.bench.records import Outcome, Record
from rapidctl.bench.trace import Part, TraceRequest


def request(arrival_s: float = 0.0, prompt_tokens: int = 100, output_tokens: int = 3, index: int = 0) -> TraceRequest:
    return TraceRequest(index, arrival_s, prompt_tokens, output_tokens, (Part(-1 - index, prompt_tokens),))


def record(
    stamps: Sequence[float], *, outcome: Outcome = "finished", sent_s: float = 0.0, prompt_tokens: int = 100
) -> Record:
    """A request that was sent at ``sent_s``, got tokens at ``stamps`` and ended with the last one."""
    made = Record(request(sent_s, prompt_tokens, max(1, len(stamps))), due_s=sent_s, sent_s=sent_s)
    made.stamps = array("d", stamps)
    made.end(outcome, stamps[-1] if stamps else sent_s + 1.0)
    return made


class FakeServer:
    """Serves one request after another: ``prefill_s`` to its first token, then a token each ``step_s``.

    `poll` moves the clock to what happens next. ``limit``: more requests than that at once are refused.
    """

    def __init__(self, prefill_s: float = 0.1, step_s: float = 0.01, limit: int | None = None) -> None:
        self.now_s = 1000.0
        self.slow_send_s = 0.0
        """What sending takes of the generator's own time."""
        self.abandoned = 0
        self._prefill_s, self._step_s, self._limit = prefill_s, step_s, limit
        self._free_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._open: set[Record] = set()

    def clock(self) -> float:
        return self.now_s

    @property
    def open(self) -> int:
        return len(self._open)

    def prepare(self, request: TraceRequest) -> int:
        return request.index

    def send(self, record: Record, message: int) -> None:
        assert message == record.request.index
        self.now_s += self.slow_send_s
        if self._limit is not None and len(self._open) >= self._limit:
            record.end("refused", self.now_s, "queue_full")
            return
        self._open.add(record)
        at_s = max(self.now_s, self._free_s) + self._prefill_s
        for _ in range(record.request.output_tokens):
            self._at(at_s, record.stamps.append)
            at_s += self._step_s
        self._free_s = at_s - self._step_s
        self._at(self._free_s, lambda now_s: self._end(record, now_s))

    def _end(self, record: Record, now_s: float) -> None:
        record.end("finished", now_s)
        self._open.discard(record)

    def _at(self, at_s: float, action: Callable[[float], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (at_s, self._order, lambda: action(at_s)))

    def poll(self, timeout_s: float) -> None:
        until = self.now_s + timeout_s
        if self._due and self._due[0][0] <= until:
            self.now_s = max(self.now_s, self._due[0][0])
            while self._due and self._due[0][0] <= self.now_s:
                heapq.heappop(self._due)[2]()
        else:  # a real clock moves however short the sleep
            self.now_s = max(until, math.nextafter(self.now_s, math.inf))

    def abandon(self) -> None:
        self.abandoned = len(self._open)
        for record in self._open:
            record.end("unfinished", self.now_s)
        self._open.clear()

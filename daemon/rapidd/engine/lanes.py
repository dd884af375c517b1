"""Lanes: each executes batches in order on the stream of the partition that the batch names.

A lane adopts a new partition at its own next batch: the new stream waits for the old stream's last batch, the
other lane is not involved. In modes where the lanes take turns both use one stream of the whole device, so nothing
is handed over between them. Knows streams only by `submit`; a runner turns a batch into tensors.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from rapidctl.wire import LanePlacement, LaneStats, Mode
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.request import Lane

WINDOW_NS = 1_000_000_000
"""Over which `LaneStats.busy` is taken."""
TURNS: Final[frozenset[Mode]] = frozenset({"serial", "hybrid"})
"""Modes in which only one lane runs at a time."""


class Done(Protocol):
    """A batch on a stream."""

    @property
    def done(self) -> bool:
        """Whether it ended."""

    @property
    def value(self) -> BatchResult:
        """Its result, once it ended."""

    def wait(self) -> None:
        """Block until it ended."""


class Stream(Protocol):
    """Runs callables in order on its compute units."""

    def submit(self, call: Callable[[], BatchResult], after: Done | None) -> Done:
        """Queue a callable behind ``after``, which may be on another stream."""

    def placement(self) -> list[int]:
        """Units on which it was seen to run."""


class LaneExecutor:
    """One lane: a stream for each unit count it may get, and at most ``depth`` batches in flight.

    ``whole``: the stream of all units that both lanes use in the modes of `TURNS`. ``run``: called on the stream with
    the batch; never raises (failures are in the result).
    """

    def __init__(
        self,
        name: Lane,
        streams: Mapping[int, Stream],
        whole: Stream,
        run: Callable[[Batch], BatchResult],
        depth: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.depth = depth
        self._streams = streams
        self._whole = whole
        self._run = run
        self._clock = clock
        self._queue: deque[tuple[Batch, Done]] = deque()
        self._last: tuple[Stream, Done] | None = None
        self._stream = whole
        self.forget()

    def forget(self) -> None:
        """Start counting anew; after the warm-up, which served nobody."""
        assert self.idle
        self._spans: deque[tuple[int, int]] = deque()
        self._since_ns = 0
        """When it last stopped being idle."""
        self.batches = 0
        self.tokens = 0
        self.busy_ns = {"decode": 0, "prefill": 0, "mixed": 0}
        self.units = max(self._streams)
        """Of the newest batch, or of the plan that an idle lane adopted."""

    def adopt(self, mode: Mode, units: int) -> None:
        """A new plan's units. A lane that works adopts them at its next batch, by itself."""
        if self.idle:
            self._choose(mode, units)

    def _choose(self, mode: Mode, units: int) -> None:
        self._stream = self._whole if mode in TURNS else self._streams[units]
        self.units = units

    @property
    def room(self) -> bool:
        """Whether one more batch may be enqueued."""
        return len(self._queue) < self.depth

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._queue

    def enqueue(self, batch: Batch) -> None:
        """Hand a batch to the stream of its units, behind everything enqueued before."""
        self._choose(batch.mode, batch.units)
        after = self._last[1] if self._last and self._last[0] is not self._stream else None
        if self.idle:
            self._since_ns = self._clock()
        task = self._stream.submit(lambda: self._run(batch), after)
        self._last = (self._stream, task)
        self._queue.append((batch, task))

    def wait(self) -> None:
        """Block until everything enqueued has ended; for the warm-up."""
        for _, task in self._queue:
            task.wait()

    def collect(self) -> list[tuple[Batch, BatchResult]]:
        """Batches that ended since the last call, oldest first."""
        done = []
        while self._queue and self._queue[0][1].done:
            batch, task = self._queue.popleft()
            result = task.value
            self._account(batch, result)
            done.append((batch, result))
        return done

    def _account(self, batch: Batch, result: BatchResult) -> None:
        self.batches += 1
        self.tokens += sum(row.count for row in batch.rows)
        self.busy_ns[batch.kind] += result.ended_ns - result.started_ns
        self._spans.append((result.started_ns, result.ended_ns))

    def share(self, start_ns: int, end_ns: int) -> float:
        """How much of a time within the last second this lane ran; what it runs now counts from when it could begin."""
        spans = list(self._spans)
        if self._queue:
            spans.append((max(self._since_ns, spans[-1][1] if spans else 0), end_ns))
        ran = sum(max(0, min(end, end_ns) - max(begin, start_ns)) for begin, end in spans)
        return ran / max(end_ns - start_ns, 1)

    def placement(self) -> LanePlacement:
        """Where the stream of the newest batch was seen to run."""
        units = self._stream.placement()
        return LanePlacement(lane=self.name, units=units, measured=bool(units))

    def stats(self, units_total: int) -> LaneStats:
        """Busy share of the last second, and totals. A running batch counts once it ended, spread over its time."""
        now = self._clock()
        start = now - WINDOW_NS
        while self._spans and self._spans[0][1] <= start:
            self._spans.popleft()
        busy = sum(end - max(begin, start) for begin, end in self._spans) / WINDOW_NS
        if self._queue and not self._spans:
            busy = 1.0  # one batch has been running for longer than the window
        return LaneStats(
            lane=self.name,
            units=self.units,
            busy=min(busy, 1.0),
            occupancy=min(busy, 1.0) * self.units / units_total,
            window_s=WINDOW_NS / 1e9,
            batches_total=self.batches,
            tokens_total=self.tokens,
            busy_decode_s_total=self.busy_ns["decode"] / 1e9,
            busy_prefill_s_total=self.busy_ns["prefill"] / 1e9,
            busy_mixed_s_total=self.busy_ns["mixed"] / 1e9,
            running=bool(self._queue),
        )

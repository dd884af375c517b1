"""Lanes: each executes batches in order on the stream of the partition that the batch names.

A lane adopts a new partition at its own next batch: the new stream waits for the old stream's last batch, the
other lane is not involved. In modes where the lanes take turns both use one stream of the whole device, so nothing
is handed over between them. Knows streams only by `submit`; a runner turns a batch into tensors.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from rapidctl.wire import LaneStats, Mode
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.meter import WINDOW_NS, Meter
from rapidd.engine.request import Lane
from rapidd.partition.table import Seen
from rapidd.policy.plan import TURNS


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

    def placement(self) -> Seen:
        """Where it was seen to run, and when."""

    def probe(self) -> Callable[[], bool]:
        """Look again where it runs, behind everything queued; the answer tells whether that is done."""


class _Enqueued(NamedTuple):
    batch: Batch
    task: Done
    host_ns: int
    """Time that enqueuing took of the caller."""
    switched: bool
    """Whether it went to another stream than the batch before."""


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
        self._queue: deque[_Enqueued] = deque()
        self._last: tuple[Stream, Done] | None = None
        self._stream = whole
        self.forget()

    def forget(self, meter: Meter | None = None) -> None:
        """Start counting anew, with ``meter`` if given; after the warm-up, which served nobody."""
        assert self.idle
        self._meter = meter or Meter()
        self._since_ns = 0
        """When it last stopped being idle."""
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

    @property
    def running(self) -> Batch | None:
        """The oldest batch in flight."""
        return self._queue[0].batch if self._queue else None

    def enqueue(self, batch: Batch) -> None:
        """Hand a batch to the stream of its units, behind everything enqueued before."""
        begin_ns = self._clock()
        self._choose(batch.mode, batch.units)
        switched = self._last is not None and self._last[0] is not self._stream
        after = self._last[1] if self._last and switched else None
        if self.idle:
            self._since_ns = begin_ns
        task = self._stream.submit(lambda: self._run(batch), after)
        self._last = (self._stream, task)
        self._queue.append(_Enqueued(batch, task, self._clock() - begin_ns, switched))

    def wait(self) -> None:
        """Block until everything enqueued has ended; for the warm-up."""
        for enqueued in self._queue:
            enqueued.task.wait()

    def collect(self) -> list[tuple[Batch, BatchResult]]:
        """Batches that ended since the last call, oldest first."""
        done = []
        while self._queue and self._queue[0].task.done:
            batch, task, host_ns, switched = self._queue.popleft()
            result = task.value
            self._meter.enqueued(host_ns + result.launch_ns, switched)
            self._meter.ended(batch, result)
            done.append((batch, result))
        return done

    def share(self, start_ns: int, end_ns: int) -> float:
        """How much of a time this lane ran; what it runs now counts from when it could begin."""
        return self._meter.share(start_ns, end_ns, self._since_ns if self._queue else None)

    def placement(self) -> Seen:
        """Where the stream of the newest batch was seen to run."""
        return self._stream.placement()

    def probe(self) -> Callable[[], bool]:
        """See `Stream`, of that stream."""
        return self._stream.probe()

    def stats(self, units_total: int) -> LaneStats:
        """Busy share of the last second, and totals. A running batch counts once it ended, spread over its time."""
        now, meter = self._clock(), self._meter
        busy = meter.busy(now)
        if busy is None:
            busy = 1.0 if self._queue else 0.0  # one batch may have been running for longer than the window
        return LaneStats(
            lane=self.name,
            units=self.units,
            busy=busy,
            occupancy=busy * self.units / units_total,
            window_s=WINDOW_NS / 1e9,
            batches_total=meter.batches,
            tokens_total=meter.tokens,
            busy_decode_s_total=meter.busy_s("decode"),
            busy_prefill_s_total=meter.busy_s("prefill"),
            busy_mixed_s_total=meter.busy_s("mixed"),
            running=bool(self._queue),
            work=meter.work(now),
            enqueue_s=meter.enqueues(),
            switch_s=meter.switches(),
        )

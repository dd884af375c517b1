"""Runs batches that nobody asked for on the lanes, and tells how long they took on the device.

Rows are hand-made: each has its own slot and its own blocks, in shuffled order. Rows that shared blocks would find them
in the device's caches, so a batch for which there are too few is refused. What the blocks hold does not matter, as long
as it is finite. Durations are the lanes': device events on a GPU, the worker's clock on a CPU. Waits for one event that
the lanes set.
"""

from __future__ import annotations

import statistics
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from random import Random
from typing import Final

from msgspec import Struct

from rapidctl.wire import Mode
from rapidd.calibrate.points import Chunk, Limits, Step
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.request import Lane, Request, SamplingParams
from rapidd.errors import DeviceError, is_out_of_memory

WAITED_SHARE: Final = 0.05
"""Of a run, which its threads may have waited for a core: one that others displaced for longer does not count, unless
all were."""
QUICK_S: Final = 0.05
"""A batch shorter than this is queued behind the one before, so that nothing between them counts."""
BESIDE_STEPS, BESIDE_CHUNKS = 6, 3
"""Of each lane, wholly beside the other one, that are enough."""
BESIDE_LONG_S: Final = 4.0
"""After so long none of one lane is enough, too."""
GREEDY: Final = SamplingParams()

Span = tuple[int, int]
"""Start and end of a batch on the device, in ns."""


def nobody_waits() -> float:
    """On a device that is ours alone."""
    return 0.0


class TooLarge(Exception):
    """The batch needs more memory than there is."""


class Beside(Struct, frozen=True):
    """Seconds of a decode step and of a chunk while the other lane worked all the time."""

    step_s: float
    chunk_s: float


class Manner(Struct, frozen=True):
    """How often a batch is run, and what of its runs counts."""

    typical: Callable[[Sequence[float]], float] = statistics.median
    """Of what the runs of a batch alone took; the least where others only make it longer, on a processor."""
    waited: Callable[[], float] = nobody_waits
    """Seconds that threads of this process have wanted a core and had none, all together."""
    settle_s: float = 0.0
    """For so long a batch with prompt tokens, or both lanes, run again and again before they count."""
    first_counts: bool = False
    """Also a batch's first run, which on a GPU may make kernels."""
    fewest: int = 3
    """Times that a batch alone is measured, unless it is long."""
    most: int = 7
    """The same at most."""
    enough_s: float = 0.15
    """Of running one batch alone, once it was measured `fewest` times."""
    long_s: float = 0.5
    """The same, once a run of it counts."""
    patient_s: float = 2.0
    """The same, though no run counts."""
    beside_s: float = 1.5
    """Of running both lanes, for an incomplete number of both to be enough."""


class Probe:
    """``wake`` is set by the lanes whenever a batch has ended; ``limits`` are those of their cache."""

    def __init__(
        self,
        lanes: Mapping[Lane, LaneExecutor],
        wake: threading.Event,
        limits: Limits,
        units_total: int,
        vocab_size: int,
        clock: Callable[[], float] = time.monotonic,
        manner: Manner | None = None,
    ) -> None:
        self._lanes = lanes
        self._wake = wake
        self._limits = limits
        self._total = units_total
        self._vocab_size = vocab_size
        self._clock = clock
        self._manner = manner or Manner()
        self._order = list(range(1, limits.kv_blocks + 1))
        Random(0).shuffle(self._order)

    # --- what can be measured

    def decode(self, step: Step, units: int) -> float:
        """Seconds of a decode step alone, on all units or on the decode side of a split. Raises TooLarge."""
        return self._alone(self._batch("decode", self._mode(units), units, step=step))

    def prefill(self, chunk: Chunk, units: int) -> float:
        """Seconds of a chunk alone, on all units or on the prefill side of a split. Raises TooLarge."""
        return self._alone(self._batch("prefill", self._mode(units), units, chunk=chunk))

    def hybrid(self, step: Step, chunk: Chunk) -> float:
        """Seconds of both in one batch, on all units. Raises TooLarge."""
        return self._alone(self._batch("decode", "hybrid", self._total, step=step, chunk=chunk))

    def beside(self, step: Step, chunk: Chunk, decode_units: int) -> Beside | None:
        """Both lanes at once, each with its own batch again and again: shared on all units, else split.

        None when not one of each was seen to run wholly beside the other in `BESIDE_LONG_S`. Raises TooLarge.
        """
        shared = decode_units == self._total
        mode: Mode = "shared" if shared else "split"
        blocks = iter(self._order)
        batches: dict[Lane, Batch] = {
            "decode": self._batch("decode", mode, decode_units, step=step, blocks=blocks),
            "prefill": self._batch(
                "prefill", mode, self._total if shared else self._total - decode_units, chunk=chunk, blocks=blocks
            ),
        }
        spans = self._together(batches)
        inner = _wholly_beside(spans)
        if not inner["decode"] or not inner["prefill"]:
            return None
        return Beside(_median_s(inner["decode"]), _median_s(inner["prefill"]))

    # --- running

    def _mode(self, units: int) -> Mode:
        return "serial" if units == self._total else "split"

    def _alone(self, batch: Batch) -> float:
        """Typical of runs of the batch: perhaps without the first one, and without those while it settles."""
        lane = self._lanes[batch.lane]
        settle_s = self._manner.settle_s if batch.num_prefill_tokens else 0.0
        with self._nothing_left_behind():
            runs, started = _Runs(self._manner), self._clock()
            lane.enqueue(batch)
            first = self._drain(lane)
            is_quick = _median_s(first) < QUICK_S
            if self._manner.first_counts:
                runs.add(first)
            else:
                runs, started = _Runs(self._manner), self._clock()
            while not runs.enough(self._clock() - started):
                if is_quick:
                    self._fill(lane, batch)
                else:
                    lane.enqueue(batch)
                ended = self._collect(lane)
                if self._clock() - started >= settle_s:
                    runs.add(ended)
            runs.add(self._drain(lane))
        return self._manner.typical(runs.counting)

    def _together(self, batches: Mapping[Lane, Batch]) -> dict[Lane, list[Span]]:
        """Decode is fed until the last chunk has ended, so that this one too ran beside it."""
        spans: dict[Lane, list[Span]] = {"decode": [], "prefill": []}
        decode, prefill = self._lanes["decode"], self._lanes["prefill"]
        started, is_settled = self._clock(), self._manner.settle_s == 0
        with self._nothing_left_behind():
            while True:
                is_over = is_settled and self._seen_enough(_wholly_beside(spans), self._clock() - started)
                if is_over and prefill.idle:
                    break
                self._fill(decode, batches["decode"])
                if not is_over:
                    self._fill(prefill, batches["prefill"])
                self._wake.wait()
                self._wake.clear()
                spans["decode"] += self._finished(decode)
                spans["prefill"] += self._finished(prefill)
                if not is_settled and self._clock() - started >= self._manner.settle_s:
                    is_settled = True
                    spans = {"decode": [], "prefill": []}
            spans["decode"] += self._drain(decode)
        return spans

    def _seen_enough(self, inner: Mapping[Lane, list[Span]], spent_s: float) -> bool:
        num_steps, num_chunks = len(inner["decode"]), len(inner["prefill"])
        if num_steps >= BESIDE_STEPS and num_chunks >= BESIDE_CHUNKS:
            return True
        return spent_s >= BESIDE_LONG_S or (spent_s >= self._manner.beside_s and num_steps > 0 and num_chunks > 0)

    @contextmanager
    def _nothing_left_behind(self) -> Iterator[None]:
        """Whatever goes wrong, the lanes are idle afterwards."""
        try:
            yield
        except BaseException:
            for lane in self._lanes.values():
                lane.wait()
                lane.collect()
            raise

    def _fill(self, lane: LaneExecutor, batch: Batch) -> None:
        while lane.room:
            lane.enqueue(batch)

    def _collect(self, lane: LaneExecutor) -> list[Span]:
        """What has ended; waits until something has."""
        while True:
            self._wake.wait()
            self._wake.clear()
            if found := self._finished(lane):
                return found

    def _drain(self, lane: LaneExecutor) -> list[Span]:
        lane.wait()
        return self._finished(lane)

    def _finished(self, lane: LaneExecutor) -> list[Span]:
        return [_span(result) for _, result in lane.collect()]

    # --- making batches

    def _batch(
        self,
        lane: Lane,
        mode: Mode,
        units: int,
        *,
        step: Step | None = None,
        chunk: Chunk | None = None,
        blocks: Iterator[int] | None = None,
    ) -> Batch:
        own = iter(self._order) if blocks is None else blocks
        rows = [self._row(slot + 1, step.context, 1, own) for slot in range(step.rows)] if step else []
        # A chunk alone has the last slot. Decode rows of the other lane may share it: what they compute means nothing.
        slot = len(rows) + 1 if rows else self._limits.max_rows
        rows += [self._row(slot, chunk.context, chunk.tokens, own, is_prompt=True)] if chunk else []
        return Batch(
            number=0,
            lane=lane,
            units=units,
            mode=mode,
            rows=rows,
            num_decode=step.rows if step else 0,
            num_prefill_tokens=chunk.tokens if chunk else 0,
            context=chunk.context if chunk else 0,
        )

    def _row(self, slot: int, start: int, count: int, blocks: Iterator[int], *, is_prompt: bool = False) -> Row:
        needed = -(-(start + count) // self._limits.block_tokens)
        own = list(islice(blocks, needed))
        if len(own) < needed or slot > self._limits.max_rows or start + count > self._limits.max_model_len:
            raise TooLarge
        ids = array("I", (index * 7919 % self._vocab_size for index in range(count))) if is_prompt else array("I")
        return Row(
            request=Request(slot, array("I", [0]), array("I"), max_output=1, sampling=GREEDY),
            generation=0,
            slot=slot,
            start=start,
            count=count,
            blocks=own,
            samples=True,
            known_start=start,
            known_ids=ids,
            prompt_len=start + count,
            sampling=GREEDY,
        )


def _span(result: BatchResult) -> Span:
    error = result.error
    if is_out_of_memory(error):
        raise TooLarge from error
    if error is not None:
        raise DeviceError(f"a batch failed while calibrating: {error}", "see what rapidd doctor says") from error
    return result.started_ns, result.ended_ns


class _Runs:
    """Of one batch, in seconds."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._waited_s = manner.waited()
        self._all: list[float] = []
        self._undisturbed: list[float] = []

    def add(self, spans: Sequence[Span]) -> None:
        """What has ended since the last time."""
        seconds = [_seconds(span) for span in spans]
        before, self._waited_s = self._waited_s, self._manner.waited()
        self._all += seconds
        if self._waited_s - before <= WAITED_SHARE * sum(seconds):
            self._undisturbed += seconds

    @property
    def counting(self) -> list[float]:
        """Those that nobody disturbed, or all."""
        return self._undisturbed or self._all

    def enough(self, spent_s: float) -> bool:
        """Whether another run would tell little."""
        times = len(self._undisturbed)
        manner = self._manner
        if times >= manner.most or (times > 0 and spent_s >= manner.long_s):
            return True
        if times >= manner.fewest and spent_s >= manner.enough_s:
            return True
        return len(self._all) > 0 and spent_s >= manner.patient_s


def _wholly_beside(spans: Mapping[Lane, list[Span]]) -> dict[Lane, list[Span]]:
    """Batches during which the other lane ran all the time; a lane's first one only where there is no other."""
    if not all(spans.values()):
        return {name: [] for name in spans}
    begin = max(those[0][0] for those in spans.values())
    end = min(those[-1][1] for those in spans.values())
    inner: dict[Lane, list[Span]] = {}
    for name, those in spans.items():
        within = [span for span in those if span[0] >= begin and span[1] <= end]
        inner[name] = [span for span in within if span != those[0]] or within
    return inner


def _median_s(spans: list[Span]) -> float:
    return statistics.median(_seconds(span) for span in spans)


def _seconds(span: Span) -> float:
    return max(span[1] - span[0], 1) / 1e9

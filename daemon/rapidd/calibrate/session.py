"""Spends a time budget on measurements, the most valuable first, and gives the samples of a profile.

What others do on a processor only makes batches longer, and for seconds at a time. So there the same batches are
measured in several passes, and of each one the least counts.
Each stage may take its share of the budget and what earlier stages left over. The device is first measured as a whole:
on a CPU the workers of splits, once started, change how long steps on all cores take. A batch that would hold the lane
far longer than a chunk may is left out, and so is one that does not fit in memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Final, TypeVar

from msgspec.structs import replace

from rapidd.calibrate.points import SHORT_CONTEXT, Chunk, Limits, Step, chunks, mixed, neighbours, steps
from rapidd.calibrate.probe import Probe, TooLarge
from rapidd.partition.table import PartitionTable
from rapidd.policy.curve import fit
from rapidd.policy.profile import DecodeSample, HybridSample, PrefillSample

Progress = Callable[[float, str, str], None]
"""Share of the budget spent, the stage, and what is being measured."""
Task = tuple[str, Callable[[], None]]
T = TypeVar("T", DecodeSample, PrefillSample, HybridSample)

LONG: Final = 1.5
"""Times the longest that a chunk may take while serving: batches that would take longer are not measured."""


class Session:
    """``max_chunk_s``: the longest that a chunk may take while serving. The samples are in the attributes.

    ``passes`` share the budget evenly.
    """

    def __init__(
        self,
        probe: Probe,
        limits: Limits,
        table: PartitionTable,
        *,
        max_chunk_s: float,
        budget_s: float,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
        passes: int = 1,
    ) -> None:
        self.decode: list[DecodeSample] = []
        self.prefill: list[PrefillSample] = []
        self.hybrid: list[HybridSample] = []
        self.too_large: list[str] = []
        """Batches for which there was not enough memory."""
        self.skipped = 0
        """Batches for which there was no time in the last pass."""
        self.passes_differ: float | None = None
        """Median over batches of several passes: by how much the slowest took longer than the quickest, 0.1: 10 %."""
        self._probe = probe
        self._limits = limits
        self._total = table.units_total
        self._splits = table.splits
        self._max_chunk_s = max_chunk_s
        self._budget_s = budget_s
        self._progress = progress
        self._clock = clock
        self._passes = passes

    def run(self) -> None:
        """Measure. Raises DeviceError when a batch fails for another reason than memory."""
        begun = self._clock()
        before: tuple[list[DecodeSample], list[PrefillSample], list[HybridSample]] = [], [], []
        for number in range(self._passes):
            # A pass knows nothing of those before: by disturbed times it would leave out what is not too long.
            self.decode, self.prefill, self.hybrid = [], [], []
            self.too_large.clear()
            self.skipped = 0
            self._pass(number / self._passes, begun + number * self._budget_s / self._passes)
            before = before[0] + self.decode, before[1] + self.prefill, before[2] + self.hybrid
        self.decode, self.prefill, self.hybrid = least(before[0]), least(before[1]), least(before[2])
        found = [*differences(before[0]), *differences(before[1]), *differences(before[2])]
        self.passes_differ = statistics.median(found) if found else None
        self._progress(1.0, "done", "")

    def _pass(self, done: float, started: float) -> None:
        budget_s = self._budget_s / self._passes
        for until, stage, tasks in (
            (0.2, "decode steps", self._decode_alone()),
            (0.4, "prompt chunks", self._prefill_alone()),
            (0.55, "hybrid batches", self._hybrids()),
            (0.8, "splits", self._on_splits()),
            (1.0, "both lanes at once", self._beside()),
        ):
            todo = list(tasks)
            for index, (text, measure) in enumerate(todo):
                spent = self._clock() - started
                if index and spent >= until * budget_s:
                    self.skipped += len(todo) - index
                    break
                self._progress(min(done + spent / self._budget_s, 1.0), stage, text)
                try:
                    measure()
                except TooLarge:
                    self.too_large.append(text)

    # --- stages

    def _decode_alone(self) -> Iterator[Task]:
        for step in steps(self._limits):
            yield self._step(step, self._total)

    def _prefill_alone(self) -> Iterator[Task]:
        for chunk in chunks(self._limits):
            yield self._chunk(chunk, self._total)

    def _hybrids(self) -> Iterator[Task]:
        for step, chunk in mixed(self._limits):
            yield self._mixed(step, chunk)

    def _on_splits(self) -> Iterator[Task]:
        for step, chunk in zip_longest(steps(self._limits), chunks(self._limits)):
            for units in self._splits:
                if step is not None:
                    yield self._step(step, units)
                if chunk is not None:
                    yield self._chunk(chunk, self._total - units)

    def _beside(self) -> Iterator[Task]:
        for one in neighbours(self._limits):
            for units in (*((self._total,) if one.shared else ()), *(self._splits if one.split else ())):
                yield self._both(one.step, units, behind_context=one.behind_context)

    # --- single measurements

    def _step(self, step: Step, units: int) -> Task:
        def measure() -> None:
            if step.context <= SHORT_CONTEXT or self._step_s(step, units) <= LONG * self._max_chunk_s:
                seconds = self._probe.decode(step, units)
                self.decode.append(DecodeSample(step.rows, step.kv_tokens, units, seconds))

        return f"{_words(step)} on {units}", measure

    def _chunk(self, chunk: Chunk, units: int) -> Task:
        def measure() -> None:
            if self._chunk_s(chunk, units) <= LONG * self._max_chunk_s:
                seconds = self._probe.prefill(chunk, units)
                self.prefill.append(PrefillSample(chunk.tokens, chunk.context, units, seconds))

        return f"{_words(chunk)} on {units}", measure

    def _mixed(self, step: Step, chunk: Chunk) -> Task:
        def measure() -> None:
            if self._step_s(step, self._total) + self._chunk_s(chunk, self._total) <= LONG * self._max_chunk_s:
                seconds = self._probe.hybrid(step, chunk)
                self.hybrid.append(HybridSample(step.rows, step.kv_tokens, chunk.tokens, chunk.context, seconds))

        return f"{_words(step)} with {_words(chunk)}", measure

    def _both(self, step: Step, units: int, *, behind_context: bool) -> Task:
        def measure() -> None:
            prefill_units = self._total if units == self._total else self._total - units
            chunk = self._chunk_beside(prefill_units, behind_context)
            found = self._probe.beside(step, chunk, units) if chunk else None
            if found is None or chunk is None:
                return
            self.decode.append(DecodeSample(step.rows, step.kv_tokens, units, found.step_s, True))
            self.prefill.append(
                PrefillSample(
                    chunk.tokens, chunk.context, prefill_units, found.chunk_s, True, step.rows, step.kv_tokens
                )
            )

        name = "shared" if units == self._total else f"split {units}/{self._total - units}"
        return f"{_words(step)}, {name}", measure

    def _chunk_beside(self, units: int, behind_context: bool) -> Chunk | None:
        """The longest one measured alone on so many units that is short enough; behind the longest context, perhaps."""
        alone = [one for one in self.prefill if one.units == units and not one.beside]
        short = [one for one in alone if one.seconds <= self._limits.grid.beside_share * self._max_chunk_s] or alone[:1]
        best = max(short, key=lambda one: (one.tokens, one.context if behind_context else -one.context), default=None)
        return Chunk(best.tokens, best.context) if best else None

    def _step_s(self, step: Step, units: int) -> float:
        """Seconds that a decode step alone may take."""
        seen = [(one.rows, one.kv_tokens, one.seconds) for one in self.decode if one.units == units and not one.beside]
        return _foretold(seen, step.rows, step.kv_tokens)

    def _chunk_s(self, chunk: Chunk, units: int) -> float:
        """Seconds that a chunk alone may take."""
        alone = [one for one in self.prefill if one.units == units and not one.beside]
        seen = [(one.tokens, one.tokens * (one.context + one.tokens / 2), one.seconds) for one in alone]
        return _foretold(seen, chunk.tokens, chunk.tokens * (chunk.context + chunk.tokens / 2))


def least(samples: Sequence[T]) -> list[T]:
    """Of samples of the same batch the one that took least, in order of first appearance."""
    return [min(those, key=lambda sample: sample.seconds) for those in _by_batch(samples)]


def differences(samples: Sequence[T]) -> list[float]:
    """Of each batch with several samples, by how much the longest took longer than the shortest."""
    times = [[sample.seconds for sample in those] for those in _by_batch(samples)]
    return [max(those) / min(those) - 1 for those in times if len(those) > 1]


def _by_batch(samples: Sequence[T]) -> list[list[T]]:
    found: dict[T, list[T]] = {}
    for sample in samples:
        found.setdefault(replace(sample, seconds=1.0), []).append(sample)
    return list(found.values())


def _foretold(seen: Sequence[tuple[int, float, float]], n: int, work: float) -> float:
    """Seconds, by what was measured so far; 0 before the first."""
    if not seen:
        return 0.0
    curve, line = fit(seen)
    return curve.at(n) + line.at(work)


def _words(what: Step | Chunk) -> str:
    if isinstance(what, Step):
        return f"{what.rows} rows of {what.context:,} tokens"
    return f"{what.tokens:,} tokens behind {what.context:,}"

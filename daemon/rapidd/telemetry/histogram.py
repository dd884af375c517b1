"""Latency distributions: mergeable log-bucket histograms, and sliding windows of them.

Buckets are 1.1 % wide (64 an octave), so a quantile is within 0.6 % of the exact nearest-rank one: fine enough for
1 ms, and exact for the maximum. A window of W slices covers the running slice and the W - 1 before it. Time comes in
as nanoseconds of any monotonic clock; nothing here reads a clock or knows what is measured.
"""

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from rapidctl.wire import LATENCY_EDGES_S, BucketCounts, Quantiles

BUCKETS_PER_OCTAVE: Final = 64
FLOOR: Final = 1e-6
"""Smaller values, zero included, count as this one: a microsecond, when the unit is seconds."""
RELATIVE_ERROR: Final = 2 ** (0.5 / BUCKETS_PER_OCTAVE) - 1
"""Largest distance between a value and the middle of its bucket."""
SLICE_NS: Final = 1_000_000_000

_SCALE: Final = BUCKETS_PER_OCTAVE / math.log(2)


def bucket_of(value: float) -> int:
    """Number of the bucket that counts ``value``."""
    return int(math.log(value / FLOOR) * _SCALE) if value > FLOOR else 0


def _middle(bucket: int) -> float:
    return float(FLOOR * 2 ** ((bucket + 0.5) / BUCKETS_PER_OCTAVE))


class Histogram:
    """Counts by bucket, with the exact number, sum and maximum of what was recorded."""

    __slots__ = ("counts", "max", "n", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.n = 0
        self.total = 0.0
        self.max = 0.0

    def record(self, value: float) -> None:
        """Count one value >= 0."""
        self.add(bucket_of(value), value, 1)

    def record_all(self, values: Sequence[float]) -> None:
        """Count each of the values >= 0; for many, as it makes no call for each."""
        counts = self.counts
        for value in values:
            bucket = int(math.log(value / FLOOR) * _SCALE) if value > FLOOR else 0
            counts[bucket] = counts.get(bucket, 0) + 1
        self.n += len(values)
        self.total += sum(values)
        self.max = max(self.max, max(values, default=0.0))

    def add(self, bucket: int, value: float, count: int) -> None:
        """Count a value >= 0 so many times, by somebody who knows its bucket."""
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.n += count
        self.total += value * count
        if value > self.max:
            self.max = value

    def merge(self, other: "Histogram") -> None:
        """Add all that ``other`` counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.n += other.n
        self.total += other.total
        self.max = max(self.max, other.max)

    @property
    def mean(self) -> float | None:
        """Exact; null without values."""
        return self.total / self.n if self.n else None

    def quantile(self, q: float) -> float | None:
        """Nearest rank, 0 < q <= 1; null without values."""
        return self.quantiles((q,))[0]

    def quantiles(self, qs: tuple[float, ...]) -> list[float | None]:
        """Several at once, in ascending order of ``qs``."""
        found: list[float | None] = []
        seen = 0
        buckets = iter(sorted(self.counts.items()))
        value = 0.0
        for q in qs:
            if not self.n:
                found.append(None)
                continue
            rank = max(1, math.ceil(q * self.n))
            while seen < rank:
                bucket, count = next(buckets)
                seen += count
                value = min(_middle(bucket), self.max)
            found.append(self.max if rank == self.n else value)
        return found

    def summary(self) -> Quantiles:
        """The quantiles that are published."""
        p50, p95, p99 = self.quantiles((0.5, 0.95, 0.99))
        return Quantiles(n=self.n, p50=p50, p95=p95, p99=p99, max=self.max if self.n else None)


class BucketCounter:
    """One latency in seconds, counted since the start by `LATENCY_EDGES_S`: never forgets, so that rates can be
    taken of it over any time."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_EDGES_S) + 1)
        self._n = 0
        self._total = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Count a value so many times."""
        self._counts[bisect_left(LATENCY_EDGES_S, value)] += count
        self._n += count
        self._total += value * count

    def counts(self) -> BucketCounts:
        """As published."""
        return BucketCounts(n=self._n, total=self._total, counts=self._counts.copy())


class _Window:
    """Sum of the closed slices that a window still covers; a slice leaves by subtraction."""

    def __init__(self, num_slices: int) -> None:
        self.num_slices = num_slices
        self.slices: deque[tuple[int, Histogram]] = deque()
        self.counts: Counter[int] = Counter()

    def close(self, index: int, closed: Histogram) -> None:
        self.slices.append((index, closed))
        self.counts.update(closed.counts)

    def advance(self, index: int) -> None:
        """Let go of slices older than the window that ends in slice ``index``."""
        while self.slices and self.slices[0][0] <= index - self.num_slices:
            _, old = self.slices.popleft()
            for bucket, count in old.counts.items():
                left = self.counts[bucket] - count
                if left:
                    self.counts[bucket] = left
                else:
                    del self.counts[bucket]

    def merged(self, current: Histogram) -> Histogram:
        whole = Histogram()
        whole.counts = dict(self.counts)
        for _, part in self.slices:
            whole.n += part.n
            whole.total += part.total
            whole.max = max(whole.max, part.max)
        whole.merge(current)
        return whole


class SlidingHistogram:
    """One distribution over several windows at once. Recording costs the same however many there are."""

    def __init__(self, windows_s: tuple[int, ...]) -> None:
        self._windows = {seconds: _Window(seconds) for seconds in windows_s}
        self._current = Histogram()
        self._index = 0

    def record(self, value: float, now_ns: int) -> None:
        """Count one value >= 0 in the slice of ``now_ns``."""
        self.add(bucket_of(value), value, 1, now_ns)

    def add(self, bucket: int, value: float, count: int, now_ns: int) -> None:
        """See `Histogram.add`."""
        if now_ns // SLICE_NS != self._index:
            self._advance(now_ns // SLICE_NS)
        self._current.add(bucket, value, count)

    def window(self, seconds: int, now_ns: int) -> Histogram:
        """The distribution over one of the windows, as a histogram of its own."""
        self._advance(now_ns // SLICE_NS)
        return self._windows[seconds].merged(self._current)

    def _advance(self, index: int) -> None:
        if index <= self._index:
            return
        if self._current.n:
            for window in self._windows.values():
                window.close(self._index, self._current)
            self._current = Histogram()
        self._index = index
        for window in self._windows.values():
            window.advance(index)


class SlidingCounter:
    """How much was added within a window of whole slices."""

    def __init__(self, longest_s: int) -> None:
        self._longest_s = longest_s
        self._slices: deque[list[int]] = deque()  # [slice index, amount]

    def add(self, amount: int, now_ns: int) -> None:
        """Count ``amount`` in the slice of ``now_ns``."""
        index = now_ns // SLICE_NS
        if self._slices and self._slices[-1][0] >= index:
            self._slices[-1][1] += amount
            return
        self._slices.append([index, amount])
        while self._slices[0][0] <= index - self._longest_s:
            self._slices.popleft()

    def total(self, seconds: int, now_ns: int) -> int:
        """The sum over the window of ``seconds`` that ends now."""
        first = now_ns // SLICE_NS - seconds
        return sum(amount for index, amount in self._slices if index > first)

"""Histograms and sliding windows against sorted lists."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.wire import LATENCY_EDGES_S
from rapidd.telemetry.histogram import (
    FLOOR,
    RELATIVE_ERROR,
    SLICE_NS,
    BucketCounter,
    Histogram,
    SlidingCounter,
    SlidingHistogram,
)

values = st.lists(st.floats(0, 1e4, allow_nan=False), max_size=60)
quantiles = st.floats(0.001, 1)
WINDOWS = (3, 10)
recordings = st.lists(st.tuples(st.integers(0, 4 * SLICE_NS), st.floats(0, 100)), max_size=60)
"""Time since the recording before, and the value."""


def nearest_rank(ordered: list[float], q: float) -> float:
    return ordered[max(1, math.ceil(q * len(ordered))) - 1]


def agrees(measured: float | None, exact: float) -> bool:
    return measured is not None and abs(measured - max(exact, FLOOR)) <= max(exact, FLOOR) * RELATIVE_ERROR * 1.0001


def histogram_of(recorded: list[float]) -> Histogram:
    histogram = Histogram()
    for value in recorded:
        histogram.record(value)
    return histogram


@given(values, quantiles)
def test_a_quantile_is_within_half_a_bucket_of_the_exact_one(recorded: list[float], q: float) -> None:
    histogram = histogram_of(recorded)
    if not recorded:
        assert histogram.quantile(q) is None
    else:
        exact = nearest_rank(sorted(recorded), q)
        found = histogram.quantile(q)
        assert agrees(found, exact) or found == max(recorded)
        assert histogram.quantile(1) == max(recorded)


@given(values, values)
def test_many_values_count_as_they_would_one_by_one(first: list[float], second: list[float]) -> None:
    together, one_by_one = histogram_of(first), histogram_of(first + second)
    together.record_all(second)
    assert (together.counts, together.n, together.max) == (one_by_one.counts, one_by_one.n, one_by_one.max)
    assert together.total == pytest.approx(one_by_one.total)


@given(values)
def test_quantiles_ascend_up_to_the_exact_maximum(recorded: list[float]) -> None:
    summary = histogram_of(recorded).summary()
    assert summary.n == len(recorded)
    if recorded:
        found = [summary.p50, summary.p95, summary.p99, summary.max]
        assert found == sorted(found, key=lambda value: value or 0.0)
        assert summary.max == max(recorded)


@given(values, values)
def test_merging_is_recording_both(left: list[float], right: list[float]) -> None:
    merged = histogram_of(left)
    merged.merge(histogram_of(right))
    both = histogram_of(left + right)
    assert (merged.counts, merged.n, merged.max) == (both.counts, both.n, both.max)


@given(recordings, st.integers(0, 12 * SLICE_NS), quantiles)
def test_a_window_holds_its_slices_and_nothing_else(recorded: list[tuple[int, float]], idle: int, q: float) -> None:
    sliding = SlidingHistogram(WINDOWS)
    counter = SlidingCounter(WINDOWS[-1])
    now = 1000 * SLICE_NS
    kept: list[tuple[int, float]] = []
    for gap, value in recorded:
        now += gap
        sliding.record(value, now)
        counter.add(1, now)
        kept.append((now // SLICE_NS, value))
    now += idle
    for seconds in WINDOWS:
        expected = [value for index, value in kept if index > now // SLICE_NS - seconds]
        window = sliding.window(seconds, now)
        assert window.n == counter.total(seconds, now) == len(expected)
        assert window.counts == histogram_of(expected).counts
        assert window.max == max(expected, default=0.0)
        assert window.quantile(q) == histogram_of(expected).quantile(q)


def test_one_millisecond_steps_are_told_apart_below_90_ms() -> None:
    medians = [histogram_of([step / 1000]).summary().p50 for step in range(1, 90)]
    assert len(set(medians)) == 89
    two = Histogram()
    two.record(0.088)
    two.record(0.089)
    assert len(two.counts) == 2


@given(st.lists(st.floats(0, 2000), max_size=50))
def test_counts_since_the_start_put_each_value_below_its_edge(recorded: list[float]) -> None:
    counter = BucketCounter()
    for value in recorded:
        counter.add(value)
    found = counter.counts()
    assert (found.n, sum(found.counts)) == (len(recorded), len(recorded))
    assert found.total == pytest.approx(sum(recorded))
    for index, edge in enumerate(LATENCY_EDGES_S):
        assert sum(found.counts[: index + 1]) == sum(value <= edge for value in recorded)

"""Curves of fewer units in the shape of all units': never falling, and bounded by what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidd.policy.curve import Curve, Line, Point, fit_like


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(0, 1e6), st.floats(1e-4, 10)), min_size=1, max_size=12),
    st.lists(st.floats(1e-9, 1), min_size=3, max_size=3),
)
@settings(deadline=None, derandomize=True)
def test_a_lane_like_another_never_falls_with_its_size_and_is_bounded_by_its_samples(
    points: list[Point], values: list[float]
) -> None:
    whole, longest = Curve((1, 64, 256), sorted(values)), max(seconds for _, _, seconds in points)
    curve, line = fit_like(whole, Line(1e-8), points)
    times = [curve.at(n) for n in range(400)]
    assert times == sorted(times)
    assert times[0] > 0
    assert line.slope >= 0
    assert times[-1] < 100 * longest


def test_where_all_units_take_no_time_but_for_attention_fewer_units_stay_near_what_they_took() -> None:
    """A curve that begins at nothing made any time there an endless factor: 430 s for 8 rows between 2 and 8 ms."""
    whole = Curve((1, 16, 64, 256), (1e-9, 1e-3, 2e-3, 5e-3))
    curve, _ = fit_like(whole, Line(1e-6), [(1, 1000, 2e-3), (1, 16000, 17e-3), (256, 1000, 8e-3)])
    assert 1e-3 < curve.at(8) < 8e-3
    assert curve.at(256) == pytest.approx(7e-3, rel=0.05)

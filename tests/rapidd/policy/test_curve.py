"""Curves of fewer units in the shape of all units': never falling, and bounded by what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidd.policy.curve import Curve, Line, Point, fit, fit_like


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


@pytest.mark.parametrize("off", [0.8, 1.0, 1.3])
def test_a_size_that_was_measured_behind_a_long_context_only_does_not_bend_the_curve(off: float) -> None:
    """A tenth by which attention of its sample was no line became half of what the size takes without any: -46 %."""
    points = [(n, work, 1e-3 * n + work * 1e-6) for n in (16, 64, 512) for work in (0.0, 5e5, 2e6)]
    curve, line = fit([*points, (256, 5e5, off * (0.256 + 0.5))])
    assert 256 not in curve.knots
    assert curve.at(256) == pytest.approx(0.256, rel=0.1)
    assert line.slope == pytest.approx(1e-6, rel=0.1)


def test_one_sample_with_little_work_makes_a_size_a_knot() -> None:
    points = [(n, work, 1e-3 * n + work * 1e-6) for n in (16, 64, 512) for work in (0.0, 5e5, 2e6)]
    curve, _ = fit([*points, (256, 5e5, 0.8), (256, 1e4, 0.31)])
    assert 256 in curve.knots
    assert curve.at(256) == pytest.approx(0.3, rel=0.02)

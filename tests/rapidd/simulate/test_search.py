"""Goodput: the search on a grid, and what counts as a miss."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.wire import Slo
from rapidd.simulate.load import slice_of
from rapidd.simulate.machine import Record
from rapidd.simulate.metrics import judged_gap
from rapidd.simulate.search import HIGHEST, LOWEST, STEP, Prober, Tally, highest
from rapidd.simulate.sweep import Goodput, geometric_mean, markdown, verdicts
from support.h100 import calibration
from support.simulated import load, setup

SLO = Slo(itl_s=0.02, ttft_floor_s=0.25, ttft_per_1k_s=1.0)


@given(limit=st.integers(LOWEST - 5, HIGHEST + 5), guess=st.integers(LOWEST - 50, HIGHEST + 50))
def test_the_search_finds_the_highest_step_from_any_guess(limit: int, guess: int) -> None:
    asked: list[int] = []

    def keeps(step: int) -> bool:
        asked.append(step)
        return step <= limit

    assert highest(keeps, guess) == (None if limit < LOWEST else min(limit, HIGHEST))
    assert all(LOWEST <= step <= HIGHEST for step in asked)
    assert len(set(asked)) <= 20


def record(ttft_s: float, gaps: list[float], prompt_tokens: int = 100) -> Record:
    times = array("d", [10.0 + ttft_s])
    for gap in gaps:
        times.append(times[-1] + gap)
    return Record(10.0, prompt_tokens, len(times), times)


def tally(records: list[Record], offered: int) -> list[int]:
    counted = Tally(SLO, [0.01, 0.02], offered)
    for one in records:
        counted.first_token(one)
        counted.finished(one)
    return counted.missed


def test_a_request_misses_by_its_first_token_or_by_its_gaps_and_is_counted_once() -> None:
    assert tally([record(0.2, [0.005] * 5)], 10) == [0, 0]
    assert tally([record(0.2, [0.015] * 5)], 10) == [1, 0]
    assert tally([record(0.3, [0.05] * 5)], 10) == [1, 1]
    assert tally([record(0.3, [0.005] * 5, prompt_tokens=1000)], 10) == [0, 0]


def test_exactly_the_share_that_goodput_asks_for_is_enough() -> None:
    """(1 - 0.9) * 10 is a little less than 1, and so one of ten was one too many."""
    for offered, missed, kept in ((10, 1, True), (10, 2, False), (300, 30, True), (300, 31, False)):
        counted = Tally(SLO, [0.02], offered)
        counted.refuse(missed)
        assert counted.kept(0) is kept
        assert counted.enough is not kept


def test_of_few_gaps_the_largest_counts_of_many_the_95th_percentile() -> None:
    assert judged_gap([0.01] * 18 + [0.9]) == 0.9
    assert judged_gap([0.01] * 19 + [0.9]) == 0.01
    assert judged_gap([0.01] * 38 + [0.9, 0.9]) == 0.01
    assert judged_gap([0.01] * 37 + [0.9] * 3) == 0.9
    assert judged_gap([]) == 0.0


def test_a_run_ends_once_too_many_have_missed() -> None:
    items = load("3000/10@4", 80)
    prober = Prober(calibration(), "auto", setup(), lambda scale: slice_of(items, scale, 1000.0), [0.025])
    step = prober.goodput(0, 0)
    assert step is not None
    assert prober.kept(step, 0)
    assert not prober.kept(step + 1, 0)
    assert 4 * STEP**step > 1.0


def result(arm: str, scale: float | None, trace: str = "t", *, at_ceiling: bool = False) -> Goodput:
    rate = None if scale is None else 3 * scale
    return Goodput(
        trace=trace,
        arm=arm,
        itl_s=0.025,
        scale=scale,
        requests_per_s=rate,
        at_ceiling=at_ceiling,
        checked=None,
        slice_s=60.0,
        runs=1,
        wall_s=1.0,
    )


def test_auto_is_compared_with_the_best_static_arm_not_with_the_other_adaptive_ones() -> None:
    results = [result("hybrid:512", 1.0), result("split:24", 1.5), result("rapid", 9.0), result("auto", 1.8)]
    (verdict,) = verdicts(results)
    assert (verdict.best_static, verdict.over_hybrid) == ("split:24", 1.8)
    assert verdict.over_best == pytest.approx(1.2)
    assert "| t | 25 | 1.80 | split:24 1.50 | 1.20 | 1.80 |" in markdown(results)


def test_a_trace_that_no_static_arm_serves_has_no_ratio() -> None:
    (verdict,) = verdicts([result("hybrid:512", None), result("auto", 1.8)])
    assert (verdict.best_static, verdict.over_best, verdict.over_hybrid) == (None, None, None)
    assert geometric_mean([None, 2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([None]) is None


def test_only_static_arms_that_were_tried_serve_nothing() -> None:
    """A search for `auto` alone said of them all that none serves the trace."""
    assert "| t | 25 | 1.80 | none serves it | - | - |" in markdown([result("hybrid:512", None), result("auto", 1.8)])
    assert "| t | 25 | 1.80 | - | - | - |" in markdown([result("rapid", 1.0), result("auto", 1.8)])


def test_cells_that_only_a_static_arm_serves_are_counted_beside_the_mean() -> None:
    """They have no ratio, so a sweep told of a geometric mean of the cells that `auto` serves, and of no other."""
    lost = [result("hybrid:512", 2.0, "lost"), result("auto", None, "lost")]
    found = [*lost, result("hybrid:512", 2.0), result("auto", 4.0)]
    assert "| geometric mean | | | | 2.00 | 2.00 |" in markdown(found)
    assert "Cells that a static arm serves and auto does not, worse and in no mean: 1." in markdown(found)
    assert "in no mean" not in markdown(found[2:])
    assert "in no mean" not in markdown([result("hybrid:512", 2.0)]), "it was not tried"


def test_a_goodput_at_the_search_s_ceiling_is_a_bound_and_in_no_ratio_and_no_mean() -> None:
    easy = [result("hybrid:512", 50.0, "easy", at_ceiling=True), result("auto", 50.0, "easy", at_ceiling=True)]
    best = [
        result("hybrid:512", 2.0, "best"),
        result("shared", 50.0, "best", at_ceiling=True),
        result("auto", 3.0, "best"),
    ]
    found = [*easy, *best, result("hybrid:512", 2.0, "hard"), result("auto", 4.0, "hard")]
    ratios = {v.trace: (v.auto_at_ceiling, v.best_at_ceiling, v.over_best, v.over_hybrid) for v in verdicts(found)}
    assert ratios["easy"] == (True, True, None, None)
    assert ratios["best"] == (False, True, None, 1.5)
    assert ratios["hard"] == (False, False, 2.0, 2.0)
    told = markdown(found)
    assert "| easy | >= 150.00 | >= 150.00 | - |" in told
    assert "| easy | 25 | >= 50.00 | hybrid:512 >= 50.00 | - | - |" in told
    assert "| geometric mean | | | | 2.00 | 1.73 |" in told
    assert "in no ratio and in no mean" in told
    assert "a static arm ends there and auto below it, worse and in no mean: 1" in told, "or only its wins count"
    assert "worse and in no mean" not in markdown([one for one in found if one.trace != "best"])
    assert "worse and in no mean" not in markdown([one for one in found if one.arm != "auto"]), "it was not tried"
    assert ">=" not in markdown([one for one in found if one.trace == "hard"])

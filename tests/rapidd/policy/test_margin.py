"""The margin for gaps: whatever the errors are, no more gaps are late than may be, and it goes when they do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidd.policy.margin import LATE_SHARE, MOST, STEP, GapMargin

SLO_S = 0.025
OVER_NS, UNDER_NS = 26_000_000, 24_000_000


def see(margin: GapMargin, gaps_ns: list[int]) -> None:
    """Steps one after the other with these gaps between them."""
    now_ns = 10**9
    margin.step_ended(now_ns, SLO_S, goes_on=False)
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        margin.step_ended(now_ns, SLO_S, goes_on=True)


RUNS = st.lists(st.tuples(st.floats(0.5, MOST - STEP), st.integers(1, 60)), min_size=1, max_size=40)
"""What a batch of a run takes over what it should, and how many batches in succession do."""


@settings(max_examples=100, deadline=None)
@given(runs=RUNS)
def test_however_long_errors_last_only_so_many_gaps_are_late(runs: list[tuple[float, int]]) -> None:
    """Whose work is sized so that its gap is the objective once it counts ``factor`` times as long."""
    margin = GapMargin()
    now_ns = late = gaps = 0
    margin.step_ended(now_ns, SLO_S, goes_on=False)
    for error, count in runs:
        for _ in range(count):
            gap_ns = int(1e9 * SLO_S * error / margin.factor)
            now_ns += gap_ns
            late += gap_ns / 1e9 > SLO_S
            gaps += 1
            margin.step_ended(now_ns, SLO_S, goes_on=True)
            assert 1.0 <= margin.factor <= MOST
    assert late <= LATE_SHARE * gaps + (MOST - 1.0) / STEP


@settings(max_examples=50, deadline=None)
@given(late=st.lists(st.booleans(), max_size=200))
def test_a_margin_is_forgotten_when_gaps_are_in_time_again(late: list[bool]) -> None:
    margin = GapMargin()
    see(margin, [OVER_NS if one else UNDER_NS for one in late])
    see(margin, [UNDER_NS] * round((MOST - 1.0) / (STEP * LATE_SHARE) + 1))
    assert margin.factor == 1.0


def test_five_late_gaps_in_succession_are_a_tenth_of_the_objective() -> None:
    margin = GapMargin()
    see(margin, [UNDER_NS] * 50 + [OVER_NS] * 5)
    assert margin.factor == pytest.approx(1.1, abs=0.005)


def test_where_no_row_went_on_nobody_waited_and_there_was_no_gap() -> None:
    margin = GapMargin()
    margin.step_ended(0, SLO_S, goes_on=False)
    margin.step_ended(10**9, SLO_S, goes_on=False)
    assert (margin.factor, margin.n) == (1.0, 0)
    margin.step_ended(2 * 10**9, SLO_S, goes_on=True)
    assert margin.factor == pytest.approx(1.0 + STEP * (1.0 - LATE_SHARE))
    assert margin.n == 1


def test_the_first_batch_of_an_engine_ends_no_gap() -> None:
    """Resumed streams had their last steps in the engine before: the time since the machine started counted as late."""
    margin = GapMargin()
    margin.step_ended(10**12, SLO_S, goes_on=True)
    assert margin.factor == 1.0
    margin.step_ended(10**12 + OVER_NS, SLO_S, goes_on=True)
    assert margin.factor > 1.0


def test_a_margin_that_was_learnt_of_one_objective_is_forgotten_with_it() -> None:
    """A reload that raised an objective nobody could keep left its margin of 1.3, for 750 gaps."""
    margin = GapMargin()
    see(margin, [OVER_NS] * 20)
    assert margin.factor == MOST
    margin.step_ended(10**12, 2 * SLO_S, goes_on=False)
    assert (margin.factor, margin.n) == (1.0, 0)

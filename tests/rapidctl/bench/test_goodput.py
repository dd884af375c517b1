"""The goodput search on servers that are a formula, and the arithmetic of comparisons."""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.bench.command import _search
from rapidctl.bench.compare import Compared, means, order, ratios, reference_of
from rapidctl.bench.goodput import WIDEST, search
from rapidctl.bench.report import show_goodput, show_ratios
from rapidctl.bench.trace import Trace
from rapidctl.out import Out

FACTORS = st.floats(0.01, 100)


@given(limit=FACTORS, first=FACTORS, tolerance=st.sampled_from([0.02, 0.1, 0.5]))
def test_the_edge_is_found_within_the_tolerance(limit: float, first: float, tolerance: float) -> None:
    found = search(lambda scale: float(scale <= limit), first=first, max_runs=40, tolerance=tolerance)
    if not first / WIDEST < limit < first * WIDEST / 2:
        return
    assert found.edge == "found"
    assert found.scale is not None
    assert found.scale <= limit < found.scale * (1 + tolerance) * (1 + 1e-9)
    assert len(found.trials) < 30, "it ends when it has found it"


@given(shares=st.lists(st.floats(0, 1), min_size=12, max_size=12), max_runs=st.integers(1, 12))
def test_any_server_is_asked_at_most_so_often_and_never_overrated(shares: list[float], max_runs: int) -> None:
    """Noise included: what is reported was measured good, and everything measured is reported."""
    answers = iter(shares)
    found = search(lambda scale: next(answers), max_runs=max_runs)
    assert 1 <= len(found.trials) <= max_runs
    assert [trial.share for trial in found.trials] == shares[: len(found.trials)]
    good = {trial.scale for trial in found.trials if trial.share is not None and trial.share >= 0.9}
    assert (found.scale in good) if good else (found.scale is None and found.edge == "none")


def test_a_server_that_never_fails_is_at_least_that_good() -> None:
    found = search(lambda scale: 0.9, max_runs=4)
    assert ([trial.scale for trial in found.trials], found.scale, found.edge) == ([1, 2, 4, 8], 8, "at_least")


def test_a_server_that_always_fails_has_none() -> None:
    found = search(lambda scale: 0.89, max_runs=3)
    assert ([trial.scale for trial in found.trials], found.scale, found.edge) == ([1, 0.5, 0.25], None, "none")


def test_runs_may_run_out_inside_the_bracket() -> None:
    found = search(lambda scale: float(scale <= 1.5), max_runs=3)
    assert found.scale == pytest.approx(2**0.5)
    assert found.edge == "coarse"


def test_nothing_offered_is_not_good() -> None:
    assert search(lambda scale: None, max_runs=2).edge == "none"


class LateGenerator:
    """A `Bench` whose server meets everything, and whose generator is late beyond a scale."""

    def __init__(self, keeps_up: float) -> None:
        self.args = Namespace(first=1.0, max_runs=10, tolerance=0.05)
        self.results: dict[str, Any] = {}
        self.runs: list[float] = []
        self._keeps_up = keeps_up

    def run(self, trace: Trace, scale: float, **options: object) -> SimpleNamespace:
        self.runs.append(scale)
        return SimpleNamespace(
            valid=scale <= self._keeps_up, ending="whole", offered_per_s=scale, summary=SimpleNamespace(both_met=1.0)
        )


@pytest.mark.parametrize(
    ("keeps_up", "scale", "edge", "text"),
    [(5.0, 4.0, "at_least", ">= 4 times the rate"), (0.5, None, "none", "unknown; no run counts")],
)
def test_what_a_late_generator_did_not_offer_was_not_met(
    keeps_up: float, scale: float | None, edge: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind a generator that keeps up with 5 times the rate the goodput was told as 512 times and more: a request
    that leaves late waits for nobody, so runs that count for nothing were taken for good ones."""
    bench = LateGenerator(keeps_up)
    found = _search(bench, Trace("t", ()))  # type: ignore[arg-type]
    assert (found.scale, found.edge) == (scale, edge)
    assert bench.runs[-1] > keeps_up
    assert found.trials[-1].share is None
    show_goodput("t", None, found, 4.0, Out(json=False, color="never"))
    assert text in capsys.readouterr().out


def test_only_a_goodput_with_something_bad_above_it_or_none_may_be_compared() -> None:
    assert search(lambda scale: 1.0, max_runs=2).figure is None
    assert search(lambda scale: 0.0, max_runs=2).figure == 0.0
    found = search(lambda scale: float(scale <= 1.5))
    assert found.figure == found.scale


def test_a_lower_bound_is_printed_as_one_and_is_said_to_be_in_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Out(json=False, color="never")
    show_goodput("t", "auto", search(lambda scale: 1.0, max_runs=2), 6.0, shown)
    show_goodput("t", "auto", search(lambda scale: float(scale <= 1.5)), 4.0, shown)
    figures: dict[str, dict[int, float | None]] = {"auto": {0: None, 1: 8.0}, "hybrid": {0: 4.0, 1: 4.0}}
    found = ratios("t", figures, "auto")
    show_ratios(Compared("goodput", "auto", found, means(found), unbounded=1), shown)
    out = capsys.readouterr().out
    assert ">= 2 times the rate, >= 6 requests/s (the search ended, nothing failed)" in out
    assert out.count(">=") == 2
    assert "a lower bound and in no ratio: 1" in out


# --- comparing ----------------------------------------------------------------------------------------------------


def test_ratios_are_of_pairs_and_carry_their_spread() -> None:
    found = ratios("t", {"auto": {0: 8.0, 1: 6.0}, "hybrid": {0: 4.0, 1: 6.0}}, "auto")
    assert [(r.baseline, r.low, r.high, r.n, r.fails) for r in found] == [("hybrid", 1.0, 2.0, 2, False)]
    assert found[0].mean == pytest.approx(2**0.5)


def test_repeats_that_do_not_count_are_left_out_in_pairs() -> None:
    figures: dict[str, dict[int, float | None]] = {"auto": {0: 8.0, 1: None, 2: 9.0}, "hybrid": {0: 4.0, 1: 1.0}}
    assert [(r.low, r.high, r.n) for r in ratios("t", figures, "auto")] == [(2.0, 2.0, 1)]


def test_a_baseline_below_a_tenth_fails_and_is_in_no_mean() -> None:
    one = ratios("one", {"auto": {0: 100.0, 1: 100.0}, "bad": {0: 9.0, 1: 10.0}, "fine": {0: 50.0, 1: 50.0}}, "auto")
    two = ratios("two", {"auto": {0: 100.0, 1: 100.0}, "bad": {0: 50.0, 1: 50.0}, "fine": {0: 12.5, 1: 12.5}}, "auto")
    assert (one[0].baseline, one[0].fails, one[0].mean) == ("bad", True, None)
    overall = {mean.baseline: mean for mean in means([*one, *two])}
    assert overall["bad"].mean == pytest.approx(2.0)
    assert (overall["bad"].traces, overall["bad"].failed, overall["bad"].without) == (1, 1, 0)
    assert overall["fine"].mean == pytest.approx(4.0)  # geometric: sqrt(2 x 8)
    assert overall["fine"].traces == 2


def test_a_reference_of_nothing_has_no_ratio() -> None:
    found = ratios("t", {"auto": {0: 0.0}, "hybrid": {0: 5.0}}, "auto")
    assert (found[0].mean, found[0].fails) == (None, False)


COUNTS = st.integers(0, 3).map(float)


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=4))
def test_a_repeat_in_which_one_of_the_two_had_nothing_is_not_dropped_from_the_ratio(
    pairs: list[tuple[float, float]],
) -> None:
    """With 100, 100 and 100 requests met over 100, 0 and 0 the ratio was told as 1, from 1 to 1, of three repeats."""
    figures = {"auto": dict(enumerate(a for a, _ in pairs)), "hybrid": dict(enumerate(b for _, b in pairs))}
    (found,) = ratios("t", figures, "auto")
    if any(0 in pair for pair in pairs) or found.fails:
        assert (found.mean, found.low, found.high) == (None, None, None)
    else:
        each = [a / b for a, b in pairs]
        assert (found.low, found.high, found.n) == (min(each), max(each), len(pairs))


def test_a_trace_without_a_ratio_is_counted_beside_the_mean(capsys: pytest.CaptureFixture[str]) -> None:
    """A trace on which the reference met nothing was left out of its mean, and nobody was told."""
    bad = ratios("bad", {"auto": {0: 0.0, 1: 0.0}, "hybrid": {0: 50.0, 1: 60.0}}, "auto")
    good = ratios("good", {"auto": {0: 60.0, 1: 60.0}, "hybrid": {0: 30.0, 1: 30.0}}, "auto")
    found = means([*bad, *good])
    assert [(mean.traces, mean.failed, mean.without) for mean in found] == [(1, 0, 1)]
    show_ratios(Compared("goodput", "auto", [*bad, *good], found), Out(json=False, color="never"))
    assert "no ratio on 1" in capsys.readouterr().out


@given(st.lists(st.text(min_size=1), min_size=2, max_size=5, unique=True), st.integers(0, 20))
def test_everybody_runs_once_a_repeat_and_goes_first_in_turn(policies: list[str], repeat: int) -> None:
    assert sorted(order(policies, repeat)) == sorted(policies)
    firsts = {order(policies, number)[0] for number in range(repeat, repeat + len(policies))}
    assert firsts == set(policies)


def test_ratios_are_auto_s_where_it_runs() -> None:
    assert reference_of(["hybrid:512", "auto"]) == "auto"
    assert reference_of(["hybrid:512", "shared"]) == "hybrid:512"

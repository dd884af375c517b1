"""What records say, against the definitions written out."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.bench.metrics import Percentiles, geometric_mean, has_missed, judge, percentiles, summarize
from rapidctl.bench.records import Record
from rapidctl.wire import Slo
from rapidd.telemetry import latency
from rapidd.telemetry.histogram import Histogram
from support.load import record, request

SLO = Slo(itl_s=0.1, ttft_floor_s=0.5, ttft_per_1k_s=1.0)
TIMES = st.integers(0, 5_000_000).map(lambda us: us / 1e6)


@st.composite
def records(draw: st.DrawFn) -> Record:
    stamps = sorted(draw(st.lists(TIMES, max_size=40)))
    outcome = draw(st.sampled_from(["finished", "refused", "failed", "unfinished"])) if stamps else "refused"
    return record(stamps, outcome=outcome, prompt_tokens=draw(st.integers(1, 3000)))  # type: ignore[arg-type]


def smallest_covering(values: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed."""
    return min(v for v in values if sum(w <= v for w in values) >= share * len(values) - 1e-9)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=150))
def test_percentiles_are_nearest_ranks(values: list[float]) -> None:
    found = percentiles(values)
    assert (found.n, found.max) == (len(values), max(values))
    for value, share in ((found.p50, 0.5), (found.p90, 0.9), (found.p95, 0.95), (found.p99, 0.99)):
        assert value == smallest_covering(values, share)


def test_of_a_hundred_values_the_percentile_is_the_value_of_that_rank() -> None:
    assert percentiles(range(100, 0, -1)) == Percentiles(100, 50, 90, 95, 99, 100)


def test_no_values_have_no_percentiles() -> None:
    empty = percentiles([])
    assert (empty.n, empty.p50, empty.max) == (0, None, None)


@given(records())
def test_a_request_is_judged_as_defined(made: Record) -> None:
    gaps = [after - before for before, after in pairwise(made.stamps)]
    verdict = judge(made, SLO)
    if made.outcome != "finished":
        assert verdict == (False, False)
        return
    assert verdict.ttft == (made.stamps[0] - made.sent_s <= max(0.5, made.request.prompt_tokens / 1000))
    judged = 0.0 if not gaps else max(gaps) if len(gaps) < 20 else smallest_covering(gaps, 0.95)
    assert verdict.itl == (judged <= 0.1)
    assert verdict.both == (verdict.ttft and verdict.itl)


@given(records().filter(lambda made: made.outcome == "finished"))
def test_the_daemon_judges_alike(made: Record) -> None:
    """Its histogram rounds gaps by at most 2 %, so gaps near the objective are left out."""
    gaps = Histogram()
    for gap in made.gaps_s:
        if abs(gap / SLO.itl_s - 1) < 0.05:
            return
        gaps.record(gap)
    ttft_s = made.stamps[0] - made.sent_s
    theirs = latency.judge(SLO, made.request.prompt_tokens, ttft_s, [gaps])
    assert (theirs.ttft, theirs.itl) == tuple(judge(made, SLO))


@pytest.mark.parametrize(("slow_gaps", "gaps", "met"), [(1, 20, True), (2, 20, False), (1, 19, False), (0, 19, True)])
def test_one_slow_gap_in_twenty_is_forgiven(slow_gaps: int, gaps: int, met: bool) -> None:
    stamps = [0.1]
    for number in range(gaps):
        stamps.append(stamps[-1] + (1.0 if number < slow_gaps else 0.01))
    assert judge(record(stamps), SLO).itl is met


def test_exactly_the_limit_is_met() -> None:
    """Times that floats hold exactly."""
    slo = Slo(itl_s=0.25, ttft_floor_s=0.5, ttft_per_1k_s=1.0)
    assert judge(record([0.5, 0.75], prompt_tokens=500), slo) == (True, True)
    assert not has_missed(Record(request(prompt_tokens=500), due_s=1.0, sent_s=1.0), slo, 1.5)


@given(st.lists(records(), max_size=20))
def test_a_summary_adds_up(made: list[Record]) -> None:
    summary = summarize(made, SLO)
    outcomes = [r.outcome for r in made]
    assert summary.offered == len(made)
    assert summary.finished == outcomes.count("finished")
    assert summary.finished + summary.refused + summary.failed + summary.unfinished == len(made)
    assert summary.met == sum(judge(r, SLO).both for r in made)
    assert summary.both_met == (summary.met / len(made) if made else None)
    assert summary.itl_s.n == sum(max(0, len(r.stamps) - 1) for r in made)
    assert summary.ttft_s.n == sum(bool(r.stamps) for r in made)
    assert summary.ttft_s.max == max((r.stamps[0] for r in made if r.stamps), default=None)
    tokens = sum(len(r.stamps) for r in made)
    if summary.output_tokens_per_s is not None and summary.total_tokens_per_s is not None:
        assert summary.duration_s == max(r.stamps[-1] for r in made if r.stamps)
        assert summary.output_tokens_per_s * summary.duration_s == pytest.approx(tokens)
        assert summary.total_tokens_per_s * summary.duration_s == pytest.approx(tokens + summary.prompt_tokens)


def test_the_warm_up_is_left_out() -> None:
    warm, cold = record([0.1, 0.2]), record([9.0, 9.9])
    cold.measured = False
    assert summarize([warm, cold], SLO) == summarize([warm], SLO)


def test_the_longest_wait_counts_those_that_waited_in_vain() -> None:
    refused = Record(request(), due_s=0.0, sent_s=1.0)
    refused.end("unfinished", 31.0)
    assert summarize([record([0.2]), refused], SLO).longest_wait_s == 30.0


def test_rates_and_times_are_counted_from_when_requests_were_sent() -> None:
    """Times of a run are those of a clock that has run for days."""
    early, late = record([1001.0, 1002.0], sent_s=1000.0), record([1003.0, 1004.5], sent_s=1002.0)
    late.request = request(output_tokens=3)
    found = summarize([early, late, Record(request(), due_s=1004.0, sent_s=1004.0)], SLO)
    assert (found.duration_s, found.output_tokens_per_s) == (4.5, 4 / 4.5)
    assert (found.e2e_s.p50, found.e2e_s.max) == (2.0, 2.5)
    assert (found.finished, found.unfinished, found.short) == (2, 1, 1)


def test_the_first_end_counts() -> None:
    made = record([0.1])
    made.end("failed", 5.0, "late")
    assert (made.outcome, made.error) == ("finished", "")


@given(records(), st.floats(0, 10))
def test_who_has_missed_is_never_judged_good(made: Record, now_s: float) -> None:
    if has_missed(made, SLO, now_s):
        assert not judge(made, SLO).both


def test_an_open_request_misses_when_its_first_token_is_overdue() -> None:
    waiting = Record(request(prompt_tokens=2000), due_s=10.0, sent_s=10.0)
    assert not has_missed(waiting, SLO, 11.9)
    assert has_missed(waiting, SLO, 12.1)
    waiting.end("failed", 11.0)
    assert has_missed(waiting, SLO, 11.0), "and at once when it ends badly"


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=10))
def test_the_geometric_mean_is_the_root_of_the_product(values: list[float]) -> None:
    assert geometric_mean(values) == pytest.approx(math.prod(values) ** (1 / len(values)))


@pytest.mark.parametrize("values", [[], [0.0], [1.0, -1.0]])
def test_nothing_has_no_geometric_mean(values: list[float]) -> None:
    assert geometric_mean(values) is None


def test_a_first_token_in_time_stays_in_time() -> None:
    running = Record(request(prompt_tokens=2000), due_s=10.0, sent_s=10.0)
    running.stamps.append(11.9)
    assert not has_missed(running, SLO, 100.0)


def test_what_a_server_tells_of_some_requests_is_summed_over_those() -> None:
    told, silent = record([0.1, 0.2]), record([0.1, 0.2])
    told.preemptions, told.cached_tokens = 2, 64
    found = summarize([told, silent, told], SLO)
    assert (found.preemptions, found.cached_tokens) == (4, 128)
    nothing = summarize([silent], SLO)
    assert (nothing.preemptions, nothing.cached_tokens) == (None, None)


def test_a_run_of_less_than_a_second_has_rates_and_one_of_no_time_none() -> None:
    assert summarize([record([0.25, 0.5])], SLO).output_tokens_per_s == 4.0
    assert summarize([record([0.0])], SLO).output_tokens_per_s is None

"""SLO judgement and windows, by the definitions of the design."""

import pytest

from rapidctl.wire import Slo
from rapidd.config import SloConfig
from rapidd.telemetry.histogram import Histogram
from rapidd.telemetry.latency import LatencyRecorder, Verdict, judge, resolve_slo
from rapidd.telemetry.snapshot import KvTrend

SLO = Slo(itl_s=0.1, ttft_floor_s=1.0, ttft_per_1k_s=2.0)
S = 1_000_000_000


def gaps(*values: float) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def test_defaults_follow_the_device_and_settings_win() -> None:
    assert resolve_slo(SloConfig(), "cpu") == Slo(itl_s=0.3, ttft_floor_s=2.0, ttft_per_1k_s=10.0)
    assert resolve_slo(SloConfig(), "hip") == resolve_slo(SloConfig(), "cuda")
    assert resolve_slo(SloConfig(itl_s=0.02), "cuda") == Slo(itl_s=0.02, ttft_floor_s=0.25, ttft_per_1k_s=1.0)


def test_the_ttft_objective_grows_with_the_prompt_above_its_floor() -> None:
    assert SLO.ttft_limit_s(100) == 1.0
    assert SLO.ttft_limit_s(3000) == 6.0
    assert judge(SLO, 3000, 5.9, []).ttft
    assert not judge(SLO, 3000, 6.1, []).ttft


def test_few_gaps_are_judged_by_the_largest_and_many_by_their_p95() -> None:
    assert not judge(SLO, 1, 0.0, [gaps(*[0.05] * 18, 0.2)]).itl
    assert judge(SLO, 1, 0.0, [gaps(*[0.05] * 39, 0.2)]).itl
    assert not judge(SLO, 1, 0.0, [gaps(*[0.05] * 30, *[0.2] * 10)]).itl
    assert judge(SLO, 1, 0.0, [gaps()]).itl


def test_every_choice_must_meet_the_itl_objective() -> None:
    verdict = judge(SLO, 1, 0.0, [gaps(0.05), gaps(0.2)])
    assert (verdict.ttft, verdict.itl, verdict.both) == (True, False, False)


def test_rates_are_over_the_time_that_was_really_covered() -> None:
    recorder = LatencyRecorder(SLO, 0)
    for second in range(4):
        recorder.arrived(second * S)
        recorder.step(10, {}, second * S)
    short, minute, _ = recorder.windows(4 * S)
    assert short.arrived_per_s == minute.arrived_per_s == pytest.approx(1.0)
    assert short.output_tokens_per_s == pytest.approx(10.0)


def test_without_requests_shares_are_null() -> None:
    recorder = LatencyRecorder(SLO, 0)
    assert recorder.windows(5 * S)[0].both_met is None
    assert recorder.slo_met(5 * S) is None
    assert recorder.p95_ratios(5 * S) == (None, None)


def test_serving_meets_its_slo_while_nine_in_ten_do() -> None:
    recorder = LatencyRecorder(SLO, 0)
    for number in range(10):
        recorder.finished(1.0, [0.1], Verdict(ttft=True, itl=number > 0), S)
    assert recorder.slo_met(2 * S) is True
    recorder.finished(1.0, [], Verdict(ttft=False, itl=True), S)
    assert recorder.slo_met(2 * S) is False


@pytest.mark.parametrize("asked_meanwhile", [False, True])
def test_a_step_counts_at_its_own_time_however_late_it_is_sorted_in(asked_meanwhile: bool) -> None:
    recorder = LatencyRecorder(SLO, 0)
    for second in range(30):
        recorder.step(3, {S // 10: 2, S // 5: 1}, second * S)
        if asked_meanwhile:
            recorder.sort_in()
    short, minute, _ = recorder.windows(30 * S)
    assert (short.itl_s.n, minute.itl_s.n) == (27, 90)  # the running second and the nine before it
    assert short.output_tokens_per_s == pytest.approx(3.0)
    assert recorder.totals().output_tokens == recorder.totals().itl_s.n == 90
    assert recorder.totals().itl_s.total == pytest.approx(30 * (0.1 + 0.1 + 0.2))


def test_ratios_are_of_the_last_ten_seconds() -> None:
    recorder = LatencyRecorder(SLO, 0)
    recorder.step(1, {S // 5: 1}, S)
    recorder.first_token(3.0, 100, S)
    itl, ttft = recorder.p95_ratios(2 * S)
    assert itl == pytest.approx(2.0)
    assert ttft == pytest.approx(3.0)
    assert recorder.p95_ratios(20 * S) == (None, None)


def test_headroom_needs_a_cache_that_fills() -> None:
    trend = KvTrend()
    assert trend.headroom_s(100) is None
    trend.add(0, 10)
    trend.add(S // 2, 20)
    assert trend.headroom_s(100) is None  # too short to tell a rate
    trend.add(2 * S, 30)
    assert trend.headroom_s(100) == pytest.approx(7.0)
    trend.add(30 * S, 30)
    assert trend.headroom_s(100) is None

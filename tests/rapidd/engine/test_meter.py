"""A lane's meter: rates over device time, by phase, over the last second; totals since the start."""

from array import array

import pytest

from rapidctl.wire import PhaseWork
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.meter import Meter, Peaks
from rapidd.engine.request import Request, SamplingParams
from rapidd.engine.work import Costs

MS = 1_000_000
START = 100_000 * MS
COSTS = Costs(
    token_flops=1000, head_flops=0, pair_flops=0, weight_bytes=500, head_bytes=0, embedding_bytes=0, kv_bytes=0,
    windows={None: 1},
)  # fmt: skip


def batch(tokens: int, prefill: bool) -> Batch:
    request = Request(1, array("I", [1]), array("I"), max_output=9, sampling=SamplingParams())
    counts = [tokens] if prefill else [1] * tokens
    rows = [Row(request, 0, 1, 0, count, [1], True, 0, array("I"), 1, request.sampling) for count in counts]
    return Batch(1, "decode", 1, "hybrid", rows, 0 if prefill else tokens, tokens if prefill else 0, 0)


def ran(meter: Meter, at_ms: int, for_ms: int, tokens: int, prefill: bool, error: Exception | None = None) -> None:
    began = START + at_ms * MS
    meter.ended(batch(tokens, prefill), BatchResult(error=error, started_ns=began, ended_ns=began + for_ms * MS))


def test_rates_are_over_the_time_that_batches_ran_and_shares_are_of_the_peaks() -> None:
    meter = Meter(COSTS, Peaks(flops_per_s=1e6, bytes_per_s=100_000.0))
    ran(meter, 0, 10, tokens=3, prefill=False)
    ran(meter, 500, 30, tokens=1, prefill=False)
    ran(meter, 600, 100, tokens=50, prefill=True)
    decode, prefill = meter.work(START + 900 * MS)
    assert (decode.phase, decode.n, decode.flops_total, decode.bytes_total) == ("decode", 2, 4000, 1000)
    assert decode.flops_per_s == pytest.approx(4000 / 0.04)
    assert decode.bytes_per_s == pytest.approx(1000 / 0.04)
    assert decode.mfu == pytest.approx(0.1)
    assert decode.mbu == pytest.approx(0.25)
    assert (prefill.phase, prefill.n) == ("prefill", 1)
    assert prefill.mfu == pytest.approx(0.5)


def test_after_a_second_a_phase_has_totals_and_no_rates() -> None:
    meter = Meter(COSTS, Peaks(flops_per_s=1e6))
    ran(meter, 0, 10, tokens=3, prefill=False)
    assert meter.work(START + 1011 * MS) == [
        PhaseWork(phase="decode", n=0, flops_total=3000, bytes_total=500, batches_total=1)
    ]
    assert meter.busy(START + 1011 * MS) is None


def test_without_peaks_there_are_rates_and_no_shares_and_without_costs_nothing() -> None:
    for meter, wanted in ((Meter(COSTS), [(True, None, None)]), (Meter(), [])):
        ran(meter, 0, 10, tokens=3, prefill=False)
        works = meter.work(START + 20 * MS)
        assert [(work.flops_per_s is not None, work.mfu, work.mbu) for work in works] == wanted
        assert meter.busy_s("decode") == 0.01


def test_a_batch_that_failed_took_time_and_did_no_work() -> None:
    meter = Meter(COSTS)
    ran(meter, 0, 10, tokens=3, prefill=False, error=RuntimeError("out of memory"))
    assert meter.work(START + 20 * MS) == []
    assert meter.busy_s("decode") == 0.01
    assert meter.busy(START + 20 * MS) == pytest.approx(0.01)


def test_a_switch_is_told_apart_from_other_batches() -> None:
    meter = Meter()
    for host_ns, switched in ((100, False), (900, True), (300, False)):
        meter.enqueued(host_ns, switched)
    assert (meter.enqueues().n, meter.enqueues().max) == (2, 3e-7)
    assert (meter.switches().n, meter.switches().max) == (1, 9e-7)

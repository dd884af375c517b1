"""Finished batches against the profile: what they are predicted to take, and when they teach something."""

from __future__ import annotations

from array import array

import pytest

from rapidctl.wire import Mode
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.request import Lane, Request, SamplingParams
from rapidd.engine.scheduler import Scheduler
from rapidd.engine.timing import learn, load_of, predict, watch_gap
from rapidd.policy.calibration import Calibration
from rapidd.policy.cost import CostModel
from rapidd.policy.library import Found
from rapidd.policy.margin import GapMargin
from rapidd.policy.pace import Load
from rapidd.policy.plan import Plan
from support.law_device import LawDevice
from support.profiles import PROFILE

COST = CostModel(PROFILE)
DECODE = [(100, 1), (300, 1)]
"""Rows as (cached tokens, new ones)."""


def batch(lane: Lane, units: int, mode: Mode, decode: list[tuple[int, int]], chunks: list[tuple[int, int]]) -> Batch:
    def row(start: int, count: int, ids: array[int]) -> Row:
        request = Request(1, array("I", [1]), array("I"), max_output=9, sampling=SamplingParams())
        return Row(request, 0, 1, start, count, [], True, start, ids, 1, request.sampling)

    rows = [row(*one, array("I")) for one in decode] + [row(*one, array("I", [0] * one[1])) for one in chunks]
    tokens, context = sum(count for _, count in chunks), sum(start for start, _ in chunks)
    return Batch(1, lane, units, mode, rows, len(decode), tokens, context)


def scheduler_of(*prompts: int) -> Scheduler:
    """A waiting request for each prompt length, no two with the same tokens."""
    scheduler = Scheduler(kv_blocks=64, block_tokens=16, max_running=8, max_model_len=512, bound=lambda *_: 64)
    for rid, length in enumerate(prompts):
        request = Request(rid, array("I", [rid] * length), array("I"), max_output=9, sampling=SamplingParams())
        request.arrival_ns = rid
        scheduler.add(request)
    return scheduler


@pytest.mark.parametrize(
    ("made", "beside", "expected"),
    [
        (batch("decode", 4, "serial", DECODE, []), False, COST.decode_s(2, 400, 4)),
        (batch("decode", 1, "split", DECODE, []), True, COST.decode_s(2, 400, 1, True)),
        (batch("prefill", 3, "split", [], [(512, 64)]), False, COST.prefill_s(64, 512, 3)),
        (batch("prefill", 4, "shared", [], [(512, 64)]), True, COST.prefill_s(64, 512, 4, True, 5, 900)),
        (batch("decode", 4, "hybrid", DECODE, [(512, 64)]), False, COST.hybrid_s(2, 400, 64, 512)),
    ],
)
def test_each_kind_of_batch_has_its_prediction(made: Batch, beside: bool, expected: float) -> None:
    assert predict(COST, made, beside, Load(5, 900)) == pytest.approx(expected)


@pytest.mark.parametrize("decode", [[], DECODE])
def test_prompts_that_share_a_chunk_take_less_than_one_as_long(decode: list[tuple[int, int]]) -> None:
    """They were taken for one with no context, and the engine learnt that its profile was too slow."""
    several = predict(COST, batch("prefill", 4, "serial", decode, [(0, 16)] * 4), False, Load())
    one = predict(COST, batch("prefill", 4, "serial", decode, [(0, 64)]), False, Load())
    alone = predict(COST, batch("prefill", 4, "serial", decode, [(0, 16)]), False, Load())
    assert alone < several < one


def test_several_prompts_in_a_chunk_count_as_one_with_as_much_attention() -> None:
    """Half the tokens behind 1,000, half behind 200: as all behind 550, because the halves do not see each other."""
    two = predict(COST, batch("prefill", 4, "serial", [], [(1000, 100), (200, 100)]), False, Load())
    assert two == pytest.approx(COST.prefill_s(200, 550, 4))


def calibrated() -> Calibration:
    return Calibration(Found(PROFILE, "file"))


def test_a_batch_teaches_its_own_mode_and_kind_only() -> None:
    calibration, device = calibrated(), LawDevice()
    made = batch("decode", 4, "hybrid", DECODE, [])
    took = BatchResult(started_ns=0, ended_ns=int(1.5e9 * COST.decode_s(2, 400, 4)))
    for _ in range(200):
        learn(calibration, made, took, device.lanes, scheduler_of())
    assert calibration.correction.factor("hybrid", "decode") == pytest.approx(1.5, rel=1e-3)
    assert calibration.correction.factor("hybrid", "mixed") == calibration.correction.factor("split", "decode") == 1.0


@pytest.mark.parametrize(("ends_at", "learns"), [(10, True), (5, False), (0, True)])
def test_a_batch_half_beside_the_other_lane_teaches_nothing(ends_at: int, learns: bool) -> None:
    """The prefill lane ran from 0 until ``ends_at``; the decode step from 0 to 10."""
    calibration, device = calibrated(), LawDevice(lambda batch, is_beside: ends_at / 1e9)
    prefill: LaneExecutor = device.lanes["prefill"]
    if ends_at:
        device.now_ns = 0
        prefill.enqueue(batch("prefill", 132, "shared", [], [(0, 16)]))
        prefill.wait()
        prefill.collect()
    made = batch("decode", 4, "shared", DECODE, [])
    learn(calibration, made, BatchResult(started_ns=0, ended_ns=10), device.lanes, scheduler_of())
    assert bool(calibration.correction.all()) == learns


def test_a_chunk_of_seconds_beside_steps_all_the_time_teaches() -> None:
    """Steps were forgotten a second after their end, so of chunks beside them only those that were quick taught.

    On a CPU, whose chunks may take a second, predictions stayed too short, and chunks too long, for good.
    """
    calibration, device = calibrated(), LawDevice(lambda batch, is_beside: 0.1)
    decode: LaneExecutor = device.lanes["decode"]
    began = device.now_ns
    for _ in range(20):
        decode.enqueue(batch("decode", 132, "shared", DECODE, []))
        decode.wait()
        decode.collect()
        decode.stats(132)  # as every report does
    took = BatchResult(started_ns=began, ended_ns=device.now_ns)
    learn(calibration, batch("prefill", 4, "shared", [], [(0, 512)]), took, device.lanes, scheduler_of())
    (seen,) = calibration.correction.all()
    assert (seen.mode, seen.kind, seen.n) == ("shared", "prefill", 1)
    assert seen.factor > 1.0


def test_without_a_profile_nothing_is_learnt() -> None:
    calibration = Calibration(Found(None, None))
    made = batch("decode", 4, "hybrid", DECODE, [])
    learn(calibration, made, BatchResult(started_ns=0, ended_ns=10), LawDevice().lanes, scheduler_of())
    assert calibration.correction.all() == []
    assert (calibration.name, calibration.info(), calibration.knee(0.05, 1024)) == (None, None, [])


def test_only_batches_with_decode_rows_that_ended_well_end_gaps() -> None:
    margin = GapMargin()
    step, chunk = batch("decode", 4, "split", DECODE, []), batch("prefill", 4, "split", [], [(0, 16)])
    late, failed = BatchResult(ended_ns=10**9), BatchResult(ended_ns=10**9, error=RuntimeError())
    first = batch("decode", 4, "split", [(1, 1)], [])  # behind a prompt of one token
    watch_gap(margin, first, BatchResult(ended_ns=5), 0.025, sized=True)
    watch_gap(margin, first, late, 0.025, sized=True)
    watch_gap(margin, chunk, late, 0.025, sized=True)
    watch_gap(margin, step, failed, 0.025, sized=True)
    assert margin.factor == 1.0
    watch_gap(margin, step, BatchResult(ended_ns=2 * 10**9), 0.025, sized=True)
    assert margin.factor > 1.0


def test_gaps_under_a_plan_that_nobody_predicted_are_no_fault_of_predictions() -> None:
    """An operator's arm with late gaps left a margin of 1.3, with which `auto` then began for some 750 gaps."""
    margin, step = GapMargin(), batch("decode", 4, "split", DECODE, [])
    for second in range(1, 20):
        watch_gap(margin, step, BatchResult(ended_ns=second * 10**9), 0.025, sized=False)
    assert margin.factor == 1.0
    watch_gap(margin, step, BatchResult(ended_ns=19 * 10**9 + 10**7), 0.025, sized=True)
    assert (margin.factor, margin.n) == (1.0, 1)


def test_the_load_is_what_decodes() -> None:
    scheduler = scheduler_of(40, 200)
    plan = Plan("serial", 4, 4, None)
    for expected in (Load(0, 0), Load(1, 40)):
        assert load_of(scheduler) == expected
        scheduler.schedule(plan, {"decode": True, "prefill": True})

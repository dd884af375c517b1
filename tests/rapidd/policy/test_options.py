"""What a plan is predicted to give: what was learnt online, errors and memory count in it."""

import pytest
from msgspec.structs import replace

from rapidctl.wire import Mode
from rapidd.policy.options import Predictor
from support.h100 import BUSY, TOTAL, cost_model

PREDICT = Predictor(cost_model())


@pytest.mark.parametrize(("mode", "units"), [("hybrid", TOTAL), ("shared", TOTAL), ("split", 24), ("serial", TOTAL)])
def test_a_margin_that_was_learnt_counts_in_every_gap_and_in_no_speed(mode: Mode, units: int) -> None:
    late = Predictor(cost_model(), margin=lambda: 1.25)
    before, after = (predict.at(BUSY).of(mode, units, 512) for predict in (PREDICT, late))
    assert after.itl_s == pytest.approx(1.25 * before.itl_s)
    assert after.tokens_per_s == before.tokens_per_s


@pytest.mark.parametrize(("mode", "units"), [("hybrid", TOTAL), ("shared", TOTAL), ("split", 24), ("serial", TOTAL)])
@pytest.mark.parametrize("rows", [0, 32])
def test_what_was_learnt_of_all_batches_counts_in_gaps_and_in_speeds(mode: Mode, units: int, rows: int) -> None:
    state = replace(BUSY, num_decoding=rows, decode_tokens=1_000 * rows)
    slow = Predictor(cost_model(), lambda mode, kind: 1.25)
    before, after = (predict.at(state) for predict in (PREDICT, slow))
    assert after.of(mode, units, 512).itl_s == pytest.approx(1.25 * before.of(mode, units, 512).itl_s)
    assert after.of(mode, units, 512).tokens_per_s == pytest.approx(before.of(mode, units, 512).tokens_per_s / 1.25)
    assert after.lone_tokens_per_s == pytest.approx(before.lone_tokens_per_s / 1.25)
    assert after.step_s == pytest.approx(1.25 * before.step_s)
    assert (before.step_s > 0.0, before.of(mode, units, 512).itl_s > 0.0) == (rows > 0, rows > 0)


def test_in_turn_prompts_wait_for_a_step_after_each_chunk() -> None:
    now, alone = PREDICT.at(BUSY), PREDICT.at(replace(BUSY, num_decoding=0, decode_tokens=0))
    seconds = 512 / now.of("serial", TOTAL, 512).tokens_per_s
    assert seconds == pytest.approx(512 / alone.of("serial", TOTAL, 512).tokens_per_s + now.step_s)


def test_errors_count_more_where_outputs_are_short_because_their_slowest_gap_counts() -> None:
    unsure = Predictor(cost_model(), error=lambda mode, kind: 0.1)
    long, short = (unsure.at(replace(BUSY, short_share=share)).of("hybrid", TOTAL, 512).itl_s for share in (0.0, 0.5))
    assert short > long


def test_a_bound_below_the_shortest_chunk_worth_it_leaves_mixed_batches_to_choose_from() -> None:
    now = PREDICT.at(replace(BUSY, max_chunk_tokens=16))
    options = (now.mixed(0.02), now.shortest())
    assert [option and option.chunk for option in options] == [16] * 2

"""Chunks are bounded by predicted time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidd.policy.calibration import Calibration
from rapidd.policy.cost import CostModel
from rapidd.policy.library import SHIPPED, Found
from rapidd.policy.options import ITL_SHARE, LATE_PER_ERROR, SHORT_LATE_PER_ERROR
from rapidd.policy.pace import Load, Pace
from rapidd.policy.plan import Chunk, Plan
from rapidd.policy.profile import load_profile
from rapidd.policy.tiles import TILE_TOKENS, beside_rows, whole_tiles
from support.profiles import PROFILE

HYBRID = Plan("hybrid", 2, 2, None)
SHARED = Plan("shared", 2, 2, None)


def pace() -> Pace:
    return Pace(max_chunk_s=0.5, itl_slo_s=0.3, block_tokens=16)


def test_an_unknown_speed_gives_one_block() -> None:
    assert pace().bound(SHARED, 2, 0) == 16


def test_a_chunk_fits_the_time_bound_and_is_at_least_a_block() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    assert speed.bound(SHARED, 2, 0) == 448  # 500 would fit: whole tiles only
    assert speed.bound(Plan("shared", 2, 2, 64), 2, 0) == 64
    assert speed.bound(Plan("serial", 2, 2, "all"), 2, 0) == 448
    for _ in range(50):
        speed.observe(units=2, num_decode=0, prefill_tokens=1, seconds=10)
    assert speed.bound(SHARED, 2, 0) == 16


@given(token_s=st.floats(1e-5, 0.1), lone_s=st.floats(0.5, 5), chunk=st.none() | st.integers(1, 4096) | st.just("all"))
def test_the_chunk_of_a_lone_request_keeps_its_own_time_and_the_plan_s_size(
    token_s: float, lone_s: float, chunk: Chunk
) -> None:
    speed = Pace(max_chunk_s=0.5, itl_slo_s=0.3, block_tokens=16, lone_chunk_s=lone_s)
    speed.observe(units=2, num_decode=0, prefill_tokens=1, seconds=token_s)
    plan = Plan("serial", 2, 2, chunk)
    bound = speed.lone_bound(plan, 2)
    assert bound >= speed.bound(plan, 2, 0)
    assert bound * token_s <= lone_s * (1 + 1e-9) or bound <= 16
    assert not isinstance(chunk, int) or bound <= chunk


def test_speeds_are_kept_by_unit_count() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    speed.observe(units=1, num_decode=0, prefill_tokens=100, seconds=0.2)
    assert (speed.bound(SHARED, 2, 0), speed.bound(SHARED, 1, 0)) == (448, 192)


def test_an_unseen_unit_count_is_taken_in_proportion_to_the_nearest_that_was_seen() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    assert speed.bound(SHARED, 1, 0) == 192


def test_a_hybrid_step_that_nobody_sized_keeps_the_itl_objective() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    speed.observe(units=2, num_decode=4, prefill_tokens=0, seconds=0.0399)
    assert (
        speed.bound(HYBRID, 2, 4) == 176
    )  # 200: 0.8 x 300 ms less a decode step of 40 ms, at 1 ms a token; 192 with 16 rows
    assert speed.bound(HYBRID, 2, 0) == 448
    assert speed.bound(Plan("hybrid", 2, 2, 400), 2, 4) == 368, "at most what somebody sized, in whole tiles too"


def test_a_mixed_batch_is_charged_to_its_prompt_tokens() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=4, prefill_tokens=0, seconds=0.1)
    speed.observe(units=2, num_decode=4, prefill_tokens=100, seconds=0.2)
    assert speed.bound(SHARED, 2, 0) == 448


# --- with a profile


LOAD = Load(rows=8, kv_tokens=4096)
CONTEXT = 512


def calibrated(load: Load, max_chunk_s: float = 0.02) -> tuple[Pace, Calibration, CostModel]:
    calibration = Calibration(Found(PROFILE, "file"))
    assert calibration.cost is not None
    speed = Pace(max_chunk_s=max_chunk_s, itl_slo_s=0.02, block_tokens=16, calibration=calibration, load=lambda: load)
    return speed, calibration, calibration.cost


@pytest.mark.parametrize("plan", [Plan("serial", 4, 4, None), Plan("shared", 4, 4, None), Plan("split", 1, 3, None)])
def test_a_chunk_takes_as_long_as_it_may_by_the_profile(plan: Plan) -> None:
    speed, _, cost = calibrated(LOAD)
    units, beside = plan.prefill_units, plan.mode != "serial"
    rows, kv_tokens = (LOAD.rows, LOAD.kv_tokens) if beside else (0, 0)
    chunk = speed.bound(plan, units, 0, CONTEXT)
    assert chunk % TILE_TOKENS == 0
    assert cost.prefill_s(chunk, CONTEXT, units, beside, rows, kv_tokens) <= 0.02
    assert cost.prefill_s(chunk + TILE_TOKENS, CONTEXT, units, beside, rows, kv_tokens) > 0.02


def test_a_prompt_beside_nothing_is_computed_as_if_alone() -> None:
    speed, _, _ = calibrated(Load())
    assert speed.bound(Plan("shared", 4, 4, None), 4, 0, CONTEXT) == speed.bound(
        Plan("serial", 4, 4, None), 4, 0, CONTEXT
    )


@pytest.mark.parametrize(("rows", "shorter"), [(17, 0), (4, 3)])
def test_what_is_in_time_of_a_size_or_of_the_rest_of_a_prompt_is_taken_whole(rows: int, shorter: int) -> None:
    """And rounded once, by the rows of its own batch: one row less than a captured size is worth a tile or two."""
    load, context, own = Load(rows=rows, kv_tokens=60_000), 16_000, rows - 1
    calibration = Calibration(Found(load_profile(SHIPPED / "nvidia-h200-llama-3.1-8b-bfloat16.json"), "file"))
    cost = calibration.cost
    assert cost is not None
    hybrid, sized = Plan("hybrid", 132, 132, None), Plan("hybrid", 132, 132, 4096)
    gave_way = 0
    for half_ms in range(32, 80):
        seconds = 5e-4 * half_ms
        speed = Pace(
            max_chunk_s=seconds, itl_slo_s=0.5, block_tokens=64, calibration=calibration, load=lambda: load
        )  # fmt: skip
        behind = (seconds, context, 132, False, load.rows, load.kv_tokens)
        longest, fastest = cost.longest_chunk(*behind), cost.chunk_for(*behind)
        gave_way += fastest < longest
        assert speed.bound(hybrid, 132, own, context) == beside_rows(fastest, own)
        assert speed.bound(sized, 132, own, context) == beside_rows(longest, own)
        assert speed.lone_bound(hybrid, 132, context) == whole_tiles(longest)
    assert gave_way >= shorter


def test_a_hybrid_step_that_nobody_sized_keeps_the_itl_objective_by_the_profile() -> None:
    speed, _, cost = calibrated(LOAD, max_chunk_s=1.0)
    chunk = speed.bound(Plan("hybrid", 4, 4, None), 4, LOAD.rows, CONTEXT)
    assert cost.hybrid_s(LOAD.rows, LOAD.kv_tokens, chunk, CONTEXT) <= ITL_SHARE * 0.02
    assert cost.hybrid_s(LOAD.rows, LOAD.kv_tokens, chunk + 2 * TILE_TOKENS, CONTEXT) > ITL_SHARE * 0.02
    assert speed.bound(Plan("hybrid", 4, 4, 4096), 4, LOAD.rows, CONTEXT) > chunk, (
        "one that was sized keeps the time bound only"
    )


def test_what_was_learnt_online_shortens_chunks() -> None:
    speed, calibration, _ = calibrated(LOAD)
    before = speed.bound(Plan("serial", 4, 4, None), 4, 0)
    for _ in range(100):
        calibration.correction.observe("serial", "prefill", 0.01, 0.02)
    assert speed.bound(Plan("serial", 4, 4, None), 4, 0) < 0.6 * before


def test_with_a_profile_too_a_chunk_is_at_least_a_block_and_at_most_what_the_plan_says() -> None:
    speed, _, _ = calibrated(LOAD, max_chunk_s=1e-6)
    assert speed.bound(Plan("serial", 4, 4, None), 4, 0) == 16
    speed, _, _ = calibrated(LOAD, max_chunk_s=1.0)
    assert speed.bound(Plan("split", 1, 3, 48), 3, 0) == 48


def test_behind_a_longer_context_fewer_tokens_take_as_long() -> None:
    speed, _, _ = calibrated(LOAD, max_chunk_s=0.05)
    assert speed.bound(Plan("serial", 4, 4, None), 4, 0, 50_000) < speed.bound(Plan("serial", 4, 4, None), 4, 0, 0)


def test_a_plan_without_prompts_has_no_chunk() -> None:
    speed, _, _ = calibrated(LOAD)
    assert speed.bound(Plan("hybrid", 4, 4, 0), 4, 8) == 0


def test_a_hybrid_step_is_sized_to_leave_room_for_the_errors_seen_online() -> None:
    """`auto` leaves the chunk of a mixed batch to this bound, so what it allows for has to be allowed for here."""
    speed, calibration, cost = calibrated(LOAD, max_chunk_s=1.0)
    plan = Plan("hybrid", 4, 4, None)
    before = speed.bound(plan, 4, LOAD.rows, CONTEXT)
    for index in range(400):
        calibration.correction.observe("hybrid", "mixed", 0.01, 0.0115 if index % 2 else 0.0085)
    error, factor = (f("hybrid", "mixed") for f in (calibration.correction.error, calibration.correction.factor))
    assert error == pytest.approx(0.15, abs=0.02)
    chunk = speed.bound(plan, 4, LOAD.rows, CONTEXT)
    assert chunk < before
    took_s = cost.hybrid_s(LOAD.rows, LOAD.kv_tokens, chunk, CONTEXT) * factor
    assert took_s * (1 + LATE_PER_ERROR * error) <= 0.02 * (1 + 1e-9)
    assert speed.bound(Plan("serial", 4, 4, None), 4, 0) == calibrated(LOAD, max_chunk_s=1.0)[0].bound(
        Plan("serial", 4, 4, None), 4, 0
    ), "a chunk that no gap waits for needs no room"


def test_a_hybrid_step_is_sized_to_leave_room_for_gaps_that_were_late() -> None:
    speed, calibration, cost = calibrated(LOAD, max_chunk_s=1.0)
    plan, serial = Plan("hybrid", 4, 4, None), Plan("serial", 4, 4, None)
    before = speed.bound(plan, 4, LOAD.rows, CONTEXT), speed.bound(serial, 4, 0)
    for second in range(20):
        calibration.margin.step_ended(second * 10**9, 0.02, goes_on=True)
    chunk = speed.bound(plan, 4, LOAD.rows, CONTEXT)
    assert chunk < before[0]
    took_s = cost.hybrid_s(LOAD.rows, LOAD.kv_tokens, chunk, CONTEXT)
    assert took_s * calibration.margin.factor <= ITL_SHARE * 0.02 * (1 + 1e-9)
    assert speed.bound(serial, 4, 0) == before[1], "a chunk that no gap waits for needs no room"


def test_where_outputs_are_short_a_hybrid_step_leaves_room_for_the_slowest_of_a_dozen() -> None:
    """A request of 13 tokens is judged by its longest gap: on a GPU a fifth missed by a little."""
    chunks = []
    for load in (LOAD, replace(LOAD, short_share=0.5)):
        speed, calibration, cost = calibrated(load, max_chunk_s=1.0)
        for index in range(400):
            calibration.correction.observe("hybrid", "mixed", 0.01, 0.012 if index % 2 else 0.008)
        error, factor = (f("hybrid", "mixed") for f in (calibration.correction.error, calibration.correction.factor))
        chunk = speed.bound(Plan("hybrid", 4, 4, None), 4, load.rows, CONTEXT)
        took_s = cost.hybrid_s(load.rows, load.kv_tokens, chunk, CONTEXT) * factor
        late = SHORT_LATE_PER_ERROR if load.short_share else LATE_PER_ERROR
        assert took_s * (1 + late * error) <= 0.02 * (1 + 1e-9)
        chunks.append(chunk)
    assert chunks[1] < chunks[0]

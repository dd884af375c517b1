"""`auto`: what it chooses at a given load, and that whatever the load it chooses something legal. No device."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidd.partition.table import PartitionTable
from rapidd.policy.auto import DWELL_S, ENTER, PAUSE_S, auto
from rapidd.policy.options import Predictor
from rapidd.policy.override import Control
from rapidd.policy.plan import Plan, PromptTime, State
from rapidd.policy.policies import make
from support.h100 import BUSY, SPLITS, TOTAL, cost_model

PREDICT = Predictor(cost_model())


def step_s(state: State, plan: Plan) -> float:
    return PREDICT.at(state).of_plan(plan).itl_s


def rate(state: State, plan: Plan) -> float:
    return PREDICT.at(state).of_plan(plan).tokens_per_s


def test_without_prompts_decode_has_all_units() -> None:
    plan = auto(replace(BUSY, prefill_tokens=0), PREDICT)
    assert (plan.mode, plan.decode_units, plan.chunk) == ("hybrid", TOTAL, None)


@pytest.mark.parametrize(("units", "stays"), [(24, False), (64, True)])
def test_without_prompts_decode_stays_in_a_split_that_is_about_as_fast_ready_for_the_next_one(
    units: int, stays: bool
) -> None:
    waited = Plan("split", units, TOTAL - units, 0)
    plan = auto(replace(BUSY, prefill_tokens=0, running=waited), PREDICT)
    assert plan.same_units(waited) == stays
    assert plan.chunk is None


def test_a_place_that_keeps_the_objective_is_left_only_for_one_that_is_worth_the_change() -> None:
    split = Plan("split", 64, TOTAL - 64, 1024)
    calm = replace(BUSY, itl_slo_s=0.05, splits=(64,), running_moved_s=DWELL_S)
    chosen = []
    for per_mille in range(460, 500, 2):
        of_mode = {"split": per_mille / 1000, "shared": 50.0, "hybrid": 1.0, "serial": 1.0}
        predict = Predictor(cost_model(), lambda mode, kind, of_mode=of_mode: of_mode[mode])  # type: ignore[misc]
        chosen.append(tuple(auto(replace(calm, running=running), predict).mode for running in (None, split)))
    assert list(dict.fromkeys(chosen)) == [("split", "split"), ("hybrid", "split"), ("hybrid", "hybrid")]


@pytest.mark.parametrize(
    ("share", "entered", "stayed_in"), [(0.9, True, True), (0.935, False, True), (0.96, False, False)]
)
def test_less_of_the_objective_may_be_taken_to_enter_a_place_than_to_stay(
    share: float, entered: bool, stayed_in: bool
) -> None:
    only_split = Predictor(cost_model(), lambda mode, kind: 1.0 if mode == "split" else 50.0)
    state = replace(BUSY, splits=(64,), running_moved_s=DWELL_S)
    split = Plan("split", 64, TOTAL - 64, 1024)
    tight = replace(state, itl_slo_s=only_split.at(state).of_plan(split).itl_s / share)
    kept = [
        "no plan keeps" not in auto(replace(tight, running=running), only_split).reason for running in (None, split)
    ]
    assert kept == [entered, stayed_in]


def test_without_rows_prompts_have_all_units_in_the_longest_chunks() -> None:
    plan = auto(replace(BUSY, num_decoding=0, decode_tokens=0), PREDICT)
    assert (plan.mode, plan.prefill_units, plan.chunk) == ("hybrid", TOTAL, None)


@pytest.mark.parametrize("itl_slo_s", [0.012, 0.015, 0.02])
def test_a_split_that_is_entered_keeps_the_objective_for_rows_that_may_come_before_it_can_be_left(
    itl_slo_s: float,
) -> None:
    """Azure's conversations at 15 ms: 64 rows entered a split of 32 units whose steps 65 rows made a third longer, and
    for half a second nothing could be changed: 0.9 % of the gaps were late, of the requests 5."""
    modes = set()
    for rows in range(16, 129):
        state = replace(BUSY, itl_slo_s=itl_slo_s, num_decoding=rows, decode_tokens=rows * 2000)
        plan = auto(state, PREDICT)
        modes.add(plan.mode)
        more = rows + rows // 8
        if plan.mode == "split" and not plan.least_bad:
            grown = replace(state, num_decoding=more, decode_tokens=more * 2000)
            assert step_s(grown, plan) <= ENTER * itl_slo_s
    assert {"hybrid", "split"} <= modes


@pytest.mark.parametrize("itl_slo_s", [0.012, 0.015, 0.025, 0.05, 0.1])
def test_the_plan_keeps_the_objective_with_a_margin(itl_slo_s: float) -> None:
    state = replace(BUSY, itl_slo_s=itl_slo_s)
    plan = auto(state, PREDICT)
    assert step_s(state, plan) <= ENTER * itl_slo_s
    assert plan.chunk != 0


def test_of_the_plans_that_keep_the_objective_it_takes_the_fastest_but_for_a_little() -> None:
    now = PREDICT.at(BUSY)
    every = [now.beside("split", units) for units in SPLITS] + [now.mixed(ENTER * BUSY.itl_slo_s)]
    fastest = max(o.tokens_per_s for o in every if o is not None and o.itl_s <= ENTER * BUSY.itl_slo_s)
    assert rate(BUSY, auto(BUSY, PREDICT)) > 0.9 * fastest


def test_a_correction_that_says_decode_is_slower_beside_prompts_gives_it_more_units() -> None:
    slow = Predictor(cost_model(), lambda mode, kind: 1.3 if (mode, kind) == ("split", "decode") else 1.0)
    tight = replace(BUSY, itl_slo_s=0.0155, needed_tokens_per_s=100_000.0)
    before, after = auto(tight, PREDICT), auto(tight, slow)
    assert slow.at(tight).of_plan(before).itl_s > ENTER * tight.itl_slo_s
    assert slow.at(tight).of_plan(after).itl_s <= ENTER * tight.itl_slo_s


def test_predictions_that_err_leave_more_room_below_the_objective() -> None:
    """On an H200, chunks sized to 0.92 of the objective by predictions that erred by more missed it for a third of the
    requests, because it is the slowest twentieth of a request's gaps that counts."""
    error = 0.1
    unsure = Predictor(cost_model(), error=lambda mode, kind: error)
    sure, careful = (p.at(BUSY).mixed(ENTER * BUSY.itl_slo_s) for p in (PREDICT, unsure))
    assert sure is not None
    assert careful is not None
    assert careful.chunk < sure.chunk
    assert PREDICT.at(BUSY).of("hybrid", sure.decode_units, careful.chunk).itl_s * (1 + 2 * error) <= BUSY.itl_slo_s
    for plan in (auto(BUSY, unsure), auto(replace(BUSY, itl_slo_s=0.016), unsure)):
        assert PREDICT.at(BUSY).of_plan(plan).itl_s < BUSY.itl_slo_s


@settings(max_examples=30, deadline=None, derandomize=True)
@given(margin=st.floats(1.0, 1.3), itl_slo_s=st.floats(0.012, 0.1))
def test_a_margin_is_kept_below_the_objective(margin: float, itl_slo_s: float) -> None:
    state = replace(BUSY, itl_slo_s=itl_slo_s)
    plan = auto(state, Predictor(cost_model(), margin=lambda: margin))
    if plan.chunk is not None and "no plan keeps" not in plan.reason:
        assert step_s(state, plan) * margin <= ENTER * itl_slo_s * (1 + 1e-9)


@pytest.mark.parametrize("itl_slo_s", [0.01, 0.015, 0.025, 0.05])
def test_chunks_in_turn_are_not_chosen_and_left_at_once(itl_slo_s: float) -> None:
    """Between a chunk and a step the device waits for the host, twice a gap: predicted at 23 of 25 ms, it was 25.4."""
    slow = Predictor(cost_model(), lambda mode, kind: 1.0 if mode == "serial" else 1.9)
    running = Plan("serial", TOTAL, TOTAL, 512)
    for predict in (PREDICT, slow):
        state = replace(BUSY, running=running, running_age_s=0.0, running_moved_s=0.0, itl_slo_s=itl_slo_s)
        assert auto(state, predict).mode != "serial"


def test_small_errors_are_within_the_room_that_is_always_left() -> None:
    unsure = Predictor(cost_model(), error=lambda mode, kind: 0.04)
    assert auto(BUSY, unsure) == auto(BUSY, PREDICT)


def test_rows_that_keep_the_objective_only_alone_make_prompts_wait_for_a_bounded_time() -> None:
    state = replace(BUSY, num_decoding=64, running_rows=64, decode_tokens=330_000, itl_slo_s=0.0225)
    plan = auto(state, PREDICT)
    assert (plan.mode, plan.chunk) == ("hybrid", 0)
    assert "prompts wait" in plan.reason
    later = replace(state, running=plan, running_age_s=PAUSE_S + 0.1)
    going_on = auto(later, PREDICT)
    assert going_on.chunk != 0
    assert auto(replace(state, running=going_on, running_age_s=DWELL_S - 0.1), PREDICT).same_place(going_on)
    assert auto(replace(state, running=going_on, running_age_s=DWELL_S), PREDICT).chunk == 0


def test_an_objective_that_no_plan_keeps_gets_the_least_bad_one_and_says_so() -> None:
    state = replace(BUSY, itl_slo_s=0.004)
    plan = auto(state, PREDICT)
    assert "no plan keeps 4.0 ms" in plan.reason
    every = [PREDICT.at(state).beside("split", units).itl_s for units in SPLITS]
    assert step_s(state, plan) <= min(every)


def test_short_outputs_count_every_gap_so_they_are_computed_in_mixed_batches() -> None:
    tight = replace(BUSY, itl_slo_s=0.015, needed_tokens_per_s=1000.0)
    assert auto(tight, PREDICT).mode == "split"
    mixed = auto(replace(tight, short_share=0.5), PREDICT)
    assert (mixed.mode, mixed.least_bad) == ("hybrid", False)


def test_it_stays_where_it_is_until_the_dwell_is_over_or_the_load_changes() -> None:
    wide = Plan("split", 64, TOTAL - 64, 1024)
    calm = replace(BUSY, running=wide, running_moved_s=DWELL_S + 0.1)
    assert not auto(calm, PREDICT).same_place(wide)
    assert auto(replace(calm, running_moved_s=DWELL_S - 0.1), PREDICT).same_place(wide)
    assert not auto(replace(calm, running_moved_s=DWELL_S - 0.1, running_rows=20), PREDICT).same_place(wide)
    assert not auto(replace(calm, running_moved_s=DWELL_S - 0.1, running_backlog=False), PREDICT).same_place(wide)
    first = replace(calm, num_decoding=1, decode_tokens=1000, running_moved_s=DWELL_S - 0.1)
    assert [auto(replace(first, running_rows=rows), PREDICT).same_place(wide) for rows in (0, 1)] == [False, True]


def test_where_the_place_no_longer_keeps_the_objective_prompts_wait_until_the_dwell_is_over() -> None:
    slow = Predictor(cost_model(), lambda mode, kind: 2.0 if mode == "split" else 1.0)
    split = Plan("split", 24, TOTAL - 24, 2048, prompt_time=PromptTime(1e-4, 0.0))
    state = replace(BUSY, running=split, running_moved_s=DWELL_S - 0.1)
    plan = auto(state, slow)
    assert (plan.same_place(split), plan.chunk, plan.prompt_time) == (True, 0, None)
    moved = auto(replace(state, running_moved_s=DWELL_S), slow)
    assert (moved.same_place(split), moved.chunk) == (False, None)
    alone_is_too_slow = replace(state, itl_slo_s=0.002)
    stays = auto(alone_is_too_slow, slow)
    assert stays.same_place(split)
    assert stays.chunk != 0, "waiting would help nobody"


def test_prompts_that_wait_are_computed_elsewhere_after_the_dwell_however_often_others_went_on_meanwhile() -> None:
    """Short prompts that keep the objective where they are must not hold a long one, which does not, there for ever."""
    no_mixed = Predictor(cost_model(), lambda mode, kind: 50.0 if kind == "mixed" else 1.0)
    waits = Plan("hybrid", TOTAL, TOTAL, 0)
    state = replace(BUSY, running=waits, running_age_s=0.0, running_moved_s=DWELL_S - 0.1)
    assert auto(state, no_mixed).same_place(waits)
    assert auto(replace(state, running_moved_s=DWELL_S), no_mixed).mode in ("shared", "split")


def test_decode_keeps_to_its_units_until_the_chunk_beside_it_has_ended() -> None:
    """On all units it would share the chunk's, and one step would take several times as long."""
    split = Plan("split", 24, TOTAL - 24, 2048)
    state = replace(BUSY, prefill_tokens=0, prefill_running=True, running=split)
    plan = auto(state, PREDICT)
    assert (plan.mode, plan.decode_units, plan.chunk) == ("split", 24, 0)
    assert auto(replace(state, prefill_running=False), PREDICT).mode == "hybrid"


def test_decode_gets_no_more_units_while_a_chunk_may_run_on_them() -> None:
    """From one split to another with more units for decode it did not wait."""
    only_splits = Predictor(cost_model(), lambda mode, kind: 1.0 if mode == "split" else 50.0)
    small = Plan("split", 16, TOTAL - 16, 2048)
    state = replace(BUSY, running=small, running_moved_s=DWELL_S + 1, itl_slo_s=0.02)
    wanted = auto(state, only_splits)
    assert wanted.mode == "split"
    assert wanted.decode_units > 16
    held = auto(replace(state, prefill_running=True), only_splits)
    assert (held.mode, held.decode_units, held.chunk) == ("split", 16, 0)
    assert held.reason.startswith(f"{wanted.describe()} when the chunk that runs has ended")
    fewer = replace(state, running=Plan("split", 96, TOTAL - 96, 2048), prefill_running=True)
    assert auto(fewer, only_splits).decode_units < 96, "that may happen at once"


def test_prompts_that_went_on_do_so_for_the_dwell_even_where_no_chunk_keeps_the_objective() -> None:
    """They were paused and went on again with every step, each a decision and an event."""
    state = replace(BUSY, splits=(), running=Plan("hybrid", TOTAL, TOTAL, None), running_moved_s=9.0)
    slow = Predictor(cost_model(), lambda mode, kind: 1.0 if kind == "decode" else 50.0)
    paused = auto(replace(state, running_age_s=DWELL_S + 0.1), slow)
    assert (paused.mode, paused.chunk) == ("hybrid", 0)
    went_on = auto(replace(state, running_age_s=DWELL_S - 0.1), slow)
    assert went_on.chunk is None
    assert went_on.reason.startswith("no plan keeps")


def test_prompts_that_went_on_elsewhere_do_so_for_the_dwell_too() -> None:
    """The place they went on in had never kept the objective, and at the next step they waited there for that."""
    paused = Plan("hybrid", TOTAL, TOTAL, 0)
    state = replace(BUSY, num_decoding=1, running_rows=1, decode_tokens=1000, itl_slo_s=0.0075, running=paused)
    went_on = auto(replace(state, running_age_s=PAUSE_S + 0.1), PREDICT)
    assert (went_on.mode, went_on.same_units(paused)) == ("split", False)
    for age_s in (0.01, DWELL_S - 0.1):
        after = auto(replace(state, running=went_on, running_age_s=age_s, running_moved_s=age_s), PREDICT)
        assert after.same_place(went_on)
        assert after.chunk != 0
        went_on = after
    assert auto(replace(state, running=went_on, running_age_s=DWELL_S, running_moved_s=DWELL_S), PREDICT).chunk == 0


def test_without_a_profile_it_is_hybrid_and_says_so() -> None:
    plan = make("auto", TOTAL, SPLITS)(BUSY)
    assert (plan.mode, plan.chunk, plan.reason) == ("hybrid", None, "no profile: rapidd calibrate")


PLANS = st.sampled_from(
    [
        None,
        Plan("hybrid", TOTAL, TOTAL, None),
        Plan("hybrid", TOTAL, TOTAL, 0),
        Plan("serial", TOTAL, TOTAL, 256),
        Plan("shared", TOTAL, TOTAL, 2048),
        Plan("split", 24, TOTAL - 24, 2048),
        Plan("split", 64, TOTAL - 64, 0),
    ]
)


@pytest.mark.parametrize("policy", ["auto", "rapid", "atom", "pdmux"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_policies_are_total_legal_and_deterministic(policy: str, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 256))
    splits = data.draw(st.sampled_from([SPLITS, SPLITS[:1], ()]))
    running = data.draw(PLANS)
    state = replace(
        BUSY,
        splits=splits,
        num_decoding=rows,
        decode_tokens=rows * data.draw(st.integers(1, 30_000)),
        prefill_tokens=data.draw(st.integers(0, 1_000_000)),
        prefill_running=data.draw(st.booleans()),
        running=running if running is None or running.mode != "split" or running.decode_units in splits else None,
        running_age_s=data.draw(st.floats(0, 100)),
        running_moved_s=data.draw(st.floats(0, 100)),
        context=data.draw(st.integers(0, 200_000)),
        needed_tokens_per_s=data.draw(st.floats(0, 1e6)),
        itl_slo_s=data.draw(st.floats(0.001, 1.0)),
        short_share=data.draw(st.floats(0, 1)),
        running_rows=data.draw(st.integers(0, 256)),
        running_backlog=data.draw(st.booleans()),
    )
    decide = make(policy, TOTAL, splits, PREDICT)
    plan = decide(state)
    assert plan == decide(state)
    assert plan.reason
    assert plan.decode_units in splits if plan.mode == "split" else plan.decode_units == TOTAL
    assert plan.prefill_units == (TOTAL - plan.decode_units if plan.mode == "split" else TOTAL)
    assert plan.chunk is None or (isinstance(plan.chunk, int) and 0 <= plan.chunk <= state.max_chunk_tokens)


def test_chunks_bounded_by_memory_that_ran_out_are_what_it_chooses_by() -> None:
    """It chose a split for the rate of chunks that no batch could hold any more."""
    free = replace(BUSY, itl_slo_s=0.015)
    bounded = replace(free, max_chunk_tokens=512)
    assert (auto(free, PREDICT).mode, auto(bounded, PREDICT).mode) == ("split", "hybrid")
    assert rate(bounded, auto(bounded, PREDICT)) > rate(bounded, auto(free, PREDICT))


@pytest.mark.parametrize("itl_slo_s", [0.015, 0.025, 0.05])
def test_the_plan_says_how_long_prompts_take_so_that_those_without_a_chance_can_give_way(itl_slo_s: float) -> None:
    state = replace(BUSY, itl_slo_s=itl_slo_s)
    plan = auto(state, PREDICT)
    assert plan.prompt_time is not None
    for context in (state.context, state.context + 8192):
        there = rate(replace(state, context=context), plan)
        assert 2048 / plan.prompt_time.seconds(2048, context) == pytest.approx(there, rel=0.15)
    lone = auto(replace(state, num_decoding=0, decode_tokens=0), PREDICT).prompt_time
    assert lone is not None
    assert lone.seconds(4096, 0) < plan.prompt_time.seconds(4096, 0)


def test_while_prompts_wait_for_rows_nobody_knows_how_long_they_take() -> None:
    state = replace(BUSY, num_decoding=64, running_rows=64, decode_tokens=330_000, itl_slo_s=0.0225)
    plan = auto(state, PREDICT)
    assert plan.paused
    assert plan.prompt_time is None


TICK_NS = 20_000_000
NOISE = st.lists(st.sampled_from([0.5, 0.8, 1.0, 1.2, 2.0]), min_size=4, max_size=4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    noise=st.lists(NOISE, min_size=60, max_size=100),
    contexts=st.lists(st.sampled_from([0, 2_000, 20_000]), min_size=1, max_size=9),
    rows=st.integers(3, 200),
    itl_slo_s=st.sampled_from([0.01, 0.015, 0.025, 0.05]),
)
def test_while_the_load_stays_the_same_mode_or_units_change_at_most_twice_a_second(
    noise: list[list[float]], contexts: list[int], rows: int, itl_slo_s: float
) -> None:
    """Whatever is learnt of the modes from batch to batch, and however prompts in line differ in context. A plan that
    no longer kept the objective was once left at once, and so were those after it: up to 33 changes a second."""
    factors = dict(zip(("hybrid", "serial", "shared", "split"), noise[0], strict=True))
    control = Control("auto", PartitionTable(units_total=TOTAL, unit_name="SM", splits=SPLITS))
    control.know(Predictor(cost_model(), lambda mode, kind: factors[mode]))
    changes = []
    for tick, drawn in enumerate(noise):
        factors.update(zip(factors, drawn, strict=True))
        now_ns = tick * TICK_NS
        before = control.plan
        state = replace(
            BUSY,
            num_decoding=rows,
            decode_tokens=2_000 * rows,
            context=contexts[tick % len(contexts)],
            itl_slo_s=itl_slo_s,
            running=before,
            running_age_s=(now_ns - control.place_since_ns) / 1e9,
            running_moved_s=(now_ns - control.moved_since_ns) / 1e9,
            running_rows=control.place_rows,
            running_backlog=control.place_backlog,
        )
        plan = control.decide(state, now_ns)
        if before is not None and not plan.same_units(before):
            changes.append(now_ns)
    within = [sum(at <= other < at + 10**9 for other in changes) for at in changes]
    assert max(within, default=0) <= 2

"""The simulated engine: nothing is lost or made up, time passes as the cost model says, no policy starves anybody."""

import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl.wire import Mode
from rapidd.engine.batch import Batch
from rapidd.engine.observe import SOON_S, policy_state
from rapidd.engine.request import Lane
from rapidd.policy.plan import Plan
from rapidd.simulate.load import Item
from rapidd.simulate.machine import Machine, place
from rapidd.simulate.metrics import gaps_of, summarize
from support.h100 import TOTAL, calibration, cost_model
from support.simulated import load, serve, setup

POLICIES = ["auto", "rapid", "atom", "pdmux", "serial:512", "serial:all", "hybrid", "hybrid:512", "shared", "split:24"]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_is_served_once_and_all_blocks_are_free_in_the_end(policy: str) -> None:
    machine = Machine(calibration(), policy, setup(kv_blocks=300, max_running=8))
    items = load("1500/40@20", 40)
    run = machine.run(items)
    machine.scheduler.check()
    assert (machine.scheduler.pool.num_used, machine.scheduler.slots.num_used) == (0, 0)
    for record, item in zip(run.records, items, strict=True):
        assert len(record.token_s) == item.output_tokens
        assert record.token_s[0] > item.arrival_s
        assert list(record.token_s) == sorted(record.token_s)
    assert sum(run.places.values()) == pytest.approx(run.seconds)


def test_a_batch_holds_as_many_prompts_as_the_daemons() -> None:
    """Twelve short prompts at once, each with one output: three to a batch are four batches or more."""
    run = serve("hybrid:512", load("16/1@100000", 12), setup(max_prompts=3))
    assert len({record.token_s[0] for record in run.records}) >= 4
    run = serve("hybrid:512", load("16/1@100000", 12), setup())
    assert len({record.token_s[0] for record in run.records}) < 4


LENGTHS = st.tuples(st.integers(1, 3000), st.integers(1, 30))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    lengths=st.lists(LENGTHS, min_size=1, max_size=12), policy=st.sampled_from(POLICIES), blocks=st.integers(48, 200)
)
def test_any_load_drains_under_any_policy_however_small_the_cache(
    lengths: list[tuple[int, int]], policy: str, blocks: int
) -> None:
    items = [Item(0.01 * index, prompt, output, []) for index, (prompt, output) in enumerate(lengths)]
    run = serve(policy, items, setup(kv_blocks=blocks, max_running=4))
    assert [len(record.token_s) for record in run.records] == [output for _, output in lengths]


def test_the_same_load_gives_the_same_run() -> None:
    first, second = (serve("auto", load("2000/60@8", 60)) for _ in range(2))
    assert [list(record.token_s) for record in first.records] == [list(record.token_s) for record in second.records]


def test_a_lone_request_takes_what_the_cost_model_says() -> None:
    cost = cost_model()
    run = serve("hybrid", [Item(1.0, 1000, 3, [])])
    first, second, third = run.records[0].token_s
    assert first == pytest.approx(1.0 + cost.prefill_s(1000, 0, TOTAL))
    assert second - first == pytest.approx(cost.decode_s(1, 1000, TOTAL))
    assert third - second == pytest.approx(cost.decode_s(1, 1001, TOTAL))
    assert run.places["idle"] == pytest.approx(1.0)


def test_lanes_side_by_side_slow_each_other_down_only_while_both_run() -> None:
    """A row decodes on 24 units; a prompt arrives, is computed beside it, and is gone again."""
    cost = cost_model()
    run = serve("split:24", [Item(0.0, 64, 60, []), Item(0.3, 2000, 1, [])])
    gaps = gaps_of(run.records[0])
    alone, beside = cost.decode_s(1, 64, 24), cost.decode_s(1, 64, 24, True)
    assert min(gaps) == pytest.approx(alone, rel=0.01)
    assert max(gaps) == pytest.approx(beside, rel=0.01)
    assert run.places["split 24"] == pytest.approx(run.records[1].token_s[0] - 0.3, rel=0.01)


def test_prompts_that_begin_alike_are_computed_once() -> None:
    alike = [b"first", b"second", b"third"]
    run = serve(
        "hybrid", [Item(0.0, 200, 2, alike), Item(1.0, 200, 2, alike), Item(2.0, 200, 2, [*alike[:2], b"other"])]
    )
    assert run.prefix_hit_tokens == 192 + 128


def test_a_request_that_can_never_fit_is_refused_and_misses_its_slo() -> None:
    run = serve("auto", [Item(0.0, 5000, 10, []), Item(0.0, 100, 5, [])], setup(kv_blocks=20))
    summary = summarize(run, setup().slo)
    assert (summary.refused, summary.met) == (1, 0.5)


# --- what policies promise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["auto", "rapid", "pdmux"])
def test_overload_starves_neither_rows_nor_prompts(policy: str) -> None:
    """Three times what the device can do arrives within 4 s: everybody waits, nobody for ever."""
    run = serve(policy, load("3000/60@25", 100))
    summary = summarize(run, setup().slo)
    assert summary.refused == 0
    assert summary.longest_wait_s < run.seconds
    assert summary.itl_s.max is not None
    assert summary.itl_s.max < 0.5


@pytest.mark.parametrize("itl_s", [0.007, 0.0075, 0.008])
def test_prompts_that_rows_keep_waiting_get_on_all_the_same(itl_s: float) -> None:
    """A row keeps the objective only alone, so prompts wait, 2 s at a time. In between they were told to go on, and to
    wait again before the first chunk began: until the row ended, however long that took."""
    items = [Item(0.0, 64, 6000, []), Item(1.0, 8000, 5, [])]
    row, prompt = serve("auto", items, setup(itl_s)).records
    assert prompt.token_s[0] < 0.5 * row.token_s[-1]


ARRIVALS = st.lists(
    st.tuples(st.sampled_from([0.01, 0.1, 0.4]), st.sampled_from([60, 4_000, 16_000]), st.integers(1, 12)),
    min_size=30,
    max_size=60,
)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(arrivals=ARRIVALS)
def test_nobody_waits_for_who_came_after_his_last_due_time(policy: str, arrivals: list[tuple[float, int, int]]) -> None:
    """So every first token comes in bounded time: only those that arrived until then can go first.

    A prompt's last due time is its arrival where prompts are computed in that order; under `auto` it is its TTFT limit
    later, and once more for as long as it gives way, here a second: a few seconds of overload see all of it.
    """
    inside = setup(kv_blocks=1200, max_running=16)
    inside = replace(inside, give_way_s=1.0, slo=replace(inside.slo, ttft_floor_s=0.1, ttft_per_1k_s=0.05))
    at_s = list(accumulate(gap for gap, _, _ in arrivals))
    items = [Item(at, prompt, output, []) for at, (_, prompt, output) in zip(at_s, arrivals, strict=True)]
    records = serve(policy, items, inside).records
    for record in records:
        last_due_s = record.arrival_s
        if policy == "auto":
            last_due_s += inside.slo.ttft_limit_s(record.prompt_tokens) + 1.0
        later = [other for other in records if other.arrival_s > last_due_s]
        assert not [other for other in later if other.token_s[0] < record.token_s[0]]


@pytest.mark.parametrize("itl_s", [0.012, 0.015, 0.025, 0.05])
@pytest.mark.parametrize("shape", ["1000/100@12", "8000/100@2", "300/200@8"])
def test_auto_does_not_flap_under_a_constant_load(shape: str, itl_s: float) -> None:
    items = [Item(index / float(shape.partition("@")[2]), i.prompt_tokens, i.output_tokens, []) for index, i in
             enumerate(load(shape, 24))]  # fmt: skip
    run = serve("auto", items, setup(itl_s))
    changes_of_load = 2 * len(items)  # prompts begin to wait, and cease to
    assert run.changes <= 2 * run.seconds + changes_of_load


def test_auto_holds_its_place_while_prompts_wait_all_the_time() -> None:
    run = serve("auto", load("2000/100@inf", 60), setup(0.015))
    assert run.changes <= 2 * run.seconds


def test_auto_keeps_the_objective_where_hybrid_512_and_the_widest_split_do_not() -> None:
    items = load("4000/100@3", 40)
    met = {policy: summarize(serve(policy, items, setup(0.015)), setup(0.015).slo).met for policy in
           ("auto", "hybrid:512", "split:96")}  # fmt: skip
    assert met["auto"] >= 0.9
    assert max(met["hybrid:512"], met["split:96"]) < 0.9


def test_prompts_due_soon_go_before_a_long_one_and_it_is_computed_all_the_same() -> None:
    items = [Item(0.0, 24_000, 5, []), *(Item(0.1 + 0.05 * index, 100, 5, []) for index in range(30))]
    by_deadline, by_arrival = serve("auto", items), serve("hybrid:2048", items)
    late = [summarize(run, setup().slo).ttft_met for run in (by_deadline, by_arrival)]
    assert late[0] == 1.0
    assert late[1] < 0.7
    assert SOON_S < by_deadline.records[0].token_s[0] < 24.0


def test_of_more_prompts_than_can_be_in_time_most_are() -> None:
    """Whoever cannot be in time gives way before anything of it was computed, so that others can."""
    inside = setup(0.05)
    inside = replace(inside, give_way_s=1.0, slo=replace(inside.slo, ttft_floor_s=0.5, ttft_per_1k_s=0.1))
    items = load("4000/20@10", 80)
    spared, by_arrival = (summarize(serve(policy, items, inside), inside.slo) for policy in ("auto", "hybrid:1024"))
    assert spared.ttft_met > 0.8
    assert by_arrival.ttft_met < 0.5
    assert spared.longest_wait_s < spared.seconds


def test_long_prompts_do_not_fill_the_cache_that_many_short_ones_need() -> None:
    """At 50 ms they did, since all of them got on in time; at 25 ms fewer did, and more requests met the objectives."""
    dice, now_s, items = random.Random(2), 0.0, []
    for _ in range(200):
        now_s += dice.expovariate(4.3)
        long = dice.random() < 0.1
        items.append(Item(now_s, 16_000 if long else dice.randrange(50, 1500), dice.randrange(300, 900), []))
    for itl_s in (0.025, 0.05):
        inside = setup(itl_s, kv_blocks=1500)
        found = summarize(serve("auto", items, inside), inside.slo)
        assert found.met >= 0.9
        assert found.longest_wait_s < found.seconds


def step(mode: Mode, units: int) -> Batch:
    return Batch(1, "decode", units, mode, [], 1, 0, 0)


def chunk(mode: Mode, units: int) -> Batch:
    return Batch(1, "prefill", units, mode, [], 0, 1, 0)


@pytest.mark.parametrize(
    ("decode", "prefill", "name"),
    [
        (None, None, "idle"),
        (step("split", 24), None, "decode alone"),
        (Batch(1, "decode", TOTAL, "hybrid", [], 1, 1, 0), None, "hybrid"),
        (None, chunk("split", TOTAL - 24), "prefill alone"),
        (step("split", 24), chunk("split", TOTAL - 24), "split 24"),
        (step("shared", TOTAL), chunk("shared", TOTAL), "shared"),
        (step("split", 32), chunk("split", TOTAL - 24), "transition"),
        (step("shared", TOTAL), chunk("split", TOTAL - 24), "transition"),
    ],
)
def test_what_runs_is_named_by_the_units_that_both_lanes_have(
    decode: Batch | None, prefill: Batch | None, name: str
) -> None:
    """A chunk of an older split is no placement of the new one: the lanes overlap until it has ended."""
    assert place(decode, prefill, TOTAL) == name


@pytest.mark.parametrize("limit", [16, 64, 192, 512])
@pytest.mark.parametrize("policy", ["hybrid:1024", "hybrid", "serial:512", "shared", "split:24", "auto", "rapid"])
def test_after_memory_ran_out_predictions_are_of_the_chunks_that_run(policy: str, limit: int) -> None:
    machine = Machine(calibration(), policy, setup(0.05))
    scheduler, control = machine.scheduler, machine.control
    schedule, ran, predicted = scheduler.schedule, set[int](), set[int]()
    scheduler.chunk_limit = limit

    def watched(plan: Plan, room: dict[Lane, bool]) -> list[Batch]:
        assert control.predictor is not None
        option = control.predictor.at(policy_state(scheduler, control, machine._limits, 0)).of_plan(plan)
        batches = schedule(plan, room)
        chunks = {batch.num_prefill_tokens for batch in batches if batch.num_prefill_tokens}
        if chunks and scheduler.prefill_tokens > limit:  # else the prompt's end may be shorter
            ran.update(chunks)
            predicted.add(option.chunk)
        return batches

    scheduler.schedule = watched  # type: ignore[method-assign]
    machine.run([Item(0.0, 64, 400, []), Item(0.1, 4096, 2, [])])
    assert ran == predicted
    assert limit - 16 <= max(ran) <= limit, "less the rows, which a mixed batch pads to 16"

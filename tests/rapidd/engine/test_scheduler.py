"""Scheduler: which batches each mode makes of the rows and prompts there are, and when the next may begin."""

from dataclasses import replace

import pytest

from bench.storm.machine import (
    DUE,
    HYBRID,
    PAUSED,
    SERIAL,
    SERIAL_ALL,
    SHARED,
    SPLIT,
    VOCAB,
    Machine,
    expected_output,
    make_request,
)
from rapidd.engine.request import LANES
from rapidd.engine.scheduler import SHORT_TOKENS
from rapidd.policy.plan import Plan
from support.machine import busy_machine, first_rows, kinds


def test_serial_gives_one_decode_step_after_each_chunk() -> None:
    machine = busy_machine(SERIAL, bound=8)
    assert kinds(machine, SERIAL, 8) == ["decode", "prefill"] * 4


def test_in_turn_nothing_is_enqueued_beside_a_chunk_nor_before_one_that_waits() -> None:
    machine = busy_machine(SERIAL, bound=8)
    for lane in ("decode", "prefill") * 4:
        assert [batch.lane for batch in machine.launch(SERIAL)] == [lane]
        assert machine.launch(SERIAL) == []
        machine.complete(lane)
    assert [len(machine.launch(SERIAL)) for _ in range(3)] == [1, 1, 0], (
        "a step may be enqueued before the last one's token is known"
    )


def test_serial_all_computes_a_whole_prompt_without_a_decode_step() -> None:
    machine = busy_machine(SERIAL_ALL, bound=8)
    assert kinds(machine, SERIAL_ALL, 6) == ["decode", "prefill", "prefill", "prefill", "decode", "decode"]


def test_serial_all_computes_one_prompt_at_a_time() -> None:
    machine = Machine(60, bound=40)
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, [rid] * 3))
    assert first_rows(machine, SERIAL_ALL) == [1]


@pytest.mark.parametrize(("kv_blocks", "prompt_tokens"), [(5, 5), (6, 9), (7, 13)])
def test_in_turn_a_prompt_goes_on_when_the_only_decode_row_gives_its_blocks_up(
    kv_blocks: int, prompt_tokens: int
) -> None:
    """The prompt had been asked before the row gave up, so nothing was enqueued and nothing would end.

    The engine stood still until its next report, up to a second, and the simulator stopped with an error.
    """
    machine = Machine(kv_blocks, bound=3)
    machine.scheduler.add(make_request(1, [1] * 4, 12, slo_class="batch"))
    for _ in range(4):
        machine.launch(SERIAL)
        machine.complete("prefill")
        machine.complete("decode")
    machine.scheduler.add(make_request(2, [2] * prompt_tokens, 3))
    machine.drain(SERIAL)
    assert machine.scheduler.num_preempted == 1
    assert machine.outputs == {1: expected_output([1] * 4, 12), 2: expected_output([2] * prompt_tokens, 3)}


def test_only_the_last_chunk_of_a_request_that_is_alone_may_be_longer() -> None:
    whole = Plan("hybrid", 2, 2, None)
    for prompt_len, companions, expected in ((12, 0, [12]), (20, 0, [8, 12]), (12, 1, [8, 8, 8])):
        machine = Machine(60, bound=8, lone_bound=12)
        for rid in range(companions + 1):
            machine.scheduler.add(make_request(rid + 1, list(range(rid, rid + prompt_len)), 1))
        sizes = []
        while list(machine.scheduler.requests):
            sizes += [batch.num_prefill_tokens for batch in machine.launch(whole)]
            machine.complete("decode")
        assert sizes == expected


@pytest.mark.parametrize("plan", [SERIAL, HYBRID, SHARED, SPLIT])
def test_a_lane_without_room_gets_no_batch(plan: Plan) -> None:
    machine = busy_machine(plan, bound=8)
    full = dict.fromkeys(LANES, False)
    assert machine.scheduler.schedule(plan, full) == []
    for lane in LANES:
        assert all(batch.lane == lane for batch in machine.scheduler.schedule(plan, full | {lane: True}))


@pytest.mark.parametrize(("plan", "sizes"), [(SHARED, [3, 2]), (SERIAL_ALL, [1, 1, 1, 1, 1])])
def test_no_batch_holds_more_prompts_than_it_may(plan: Plan, sizes: list[int]) -> None:
    """More than a GPU has graphs for took it 31 to 38 ms to launch, and kernels that no start had compiled."""
    machine = Machine(60, max_running=5, bound=40, max_prompts=3)
    for rid in range(5):
        machine.scheduler.add(make_request(rid, [1, 2, 3], 1))
    found = []
    while machine.scheduler.requests:
        found += [len(batch.rows) for batch in machine.launch(plan) if batch.num_prefill_tokens]
        for lane in LANES:
            machine.complete(lane)
    assert found == sizes


def test_hybrid_puts_decode_rows_and_a_chunk_in_one_batch() -> None:
    machine = busy_machine(HYBRID, bound=8)
    assert kinds(machine, HYBRID, 4) == ["mixed"] * 4


def test_split_keeps_both_lanes_busy() -> None:
    machine = busy_machine(SPLIT, bound=8)
    batches = machine.launch(SPLIT)
    assert [(batch.lane, batch.units) for batch in batches] == [("decode", 1), ("prefill", 1)]


def test_a_decode_step_is_enqueued_before_the_last_ones_token_is_known() -> None:
    machine = busy_machine(SHARED, bound=40)
    first = machine.launch(SHARED)
    second = machine.launch(SHARED)
    assert [batch.lane for batch in first] == ["decode", "prefill"]
    decode = [row for batch in second for row in batch.rows if batch.lane == "decode"]
    assert [row.start for row in decode] == [first[0].rows[0].start + 1]


def test_no_step_is_enqueued_behind_the_one_that_gives_the_last_token() -> None:
    machine = Machine(20, bound=40)
    machine.scheduler.add(make_request(1, [1, 2, 3], 3))
    machine.launch(HYBRID)
    machine.complete("decode")
    assert [row.start for _ in range(2) for batch in machine.launch(HYBRID) for row in batch.rows] == [3, 4]
    machine.complete("decode")
    assert machine.launch(HYBRID) == []


def test_a_request_joins_decode_only_after_its_last_chunk_was_seen_done() -> None:
    machine = Machine(20, bound=40)
    machine.scheduler.add(make_request(1, [1, 2, 3], 5))
    assert [batch.lane for batch in machine.launch(SHARED)] == ["prefill"]
    assert machine.launch(SHARED) == []
    machine.complete("prefill")
    assert [batch.lane for batch in machine.launch(SHARED)] == ["decode"]


def test_a_prefix_under_computation_is_waited_for_and_then_shared() -> None:
    machine = Machine(40, bound=8)
    prompt = list(range(1, 18))
    machine.scheduler.add(make_request(1, prompt, 4))
    machine.scheduler.add(make_request(2, prompt, 4))
    for _ in range(2):
        assert [row.request.rid for batch in machine.launch(SHARED) for row in batch.rows] == [1]
        machine.complete("prefill")
    machine.drain(SHARED)
    assert machine.outputs[1] == machine.outputs[2] == expected_output(prompt, 4)
    assert machine.scheduler.prefix_hits == 16


def test_the_first_chunk_brings_all_known_ids_also_those_that_the_prefix_cache_spared() -> None:
    """Penalties look at the whole sequence."""
    machine = Machine(40, bound=8)
    prompt = list(range(1, 29))
    machine.scheduler.add(make_request(1, prompt[:17], 1))
    machine.drain(SHARED)
    machine.scheduler.add(make_request(2, prompt))
    for known_start, start, end in ((0, 16, 24), (24, 24, 28)):
        (row,) = (row for batch in machine.launch(SHARED) for row in batch.rows)
        assert (row.known_start, row.start, list(row.known_ids)) == (known_start, start, prompt[known_start:end])
        machine.complete("prefill")


def test_without_the_prefix_cache_each_request_computes_its_whole_prompt() -> None:
    machine = Machine(40, bound=8, prefix_cache=False)
    prompt = list(range(1, 18))
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, prompt, 4))
    assert [row.request.rid for batch in machine.launch(SHARED) for row in batch.rows] == [1]
    machine.complete("prefill")
    machine.drain(SHARED)
    machine.scheduler.add(make_request(3, prompt, 4))
    machine.drain(SHARED)
    assert machine.outputs == dict.fromkeys((1, 2, 3), expected_output(prompt, 4))
    assert (machine.scheduler.prefix_queries, machine.scheduler.prefix_hits) == (3 * len(prompt), 0)
    assert machine.scheduler.pool.num_cached == 0
    machine.scheduler.check()


def test_waiting_for_a_prefix_ends_when_its_owner_is_aborted() -> None:
    machine = Machine(40, bound=8)
    prompt = list(range(1, 18))
    machine.scheduler.add(make_request(1, prompt, 4))
    machine.scheduler.add(make_request(2, prompt, 4))
    machine.launch(SHARED)
    machine.scheduler.abort(1)
    machine.drain(SHARED)
    assert machine.outputs == {2: expected_output(prompt, 4)}


def test_the_first_chunk_of_a_split_waits_for_steps_that_still_run_on_other_units() -> None:
    """Such a step would share its units with the chunk, and take several times as long."""
    machine = Machine(60, bound=8)
    machine.scheduler.add(make_request(1, [1, 2, 3], 30))
    for _ in range(2):
        machine.launch(HYBRID)
        machine.complete("decode")
    machine.launch(HYBRID)
    machine.scheduler.add(make_request(2, list(range(10, 30)), 3))
    assert [(batch.lane, batch.units) for batch in machine.launch(SPLIT)] == [("decode", 1)]
    machine.complete("decode")
    assert [batch.lane for batch in machine.launch(SPLIT)] == ["decode", "prefill"]


def test_the_first_chunk_of_a_split_waits_also_where_the_decode_lane_is_full_of_such_steps() -> None:
    machine = busy_machine(HYBRID, bound=8)
    for _ in range(2):
        machine.launch(PAUSED)
    assert machine.launch(SPLIT) == []
    machine.complete("decode")
    assert [(batch.lane, batch.units) for batch in machine.launch(SPLIT)] == [("decode", 1)]
    machine.complete("decode")
    assert [(batch.lane, batch.units) for batch in machine.launch(SPLIT)] == [("decode", 1), ("prefill", 1)]


def test_where_the_lanes_share_all_units_a_chunk_waits_for_no_step() -> None:
    machine = busy_machine(SPLIT, bound=8)
    machine.scheduler.schedule(SPLIT, {"decode": True, "prefill": False})
    assert [batch.lane for batch in machine.launch(SHARED)] == ["decode", "prefill"]


def test_a_prompt_without_a_chunk_takes_no_slot() -> None:
    machine = Machine(60, bound=8)
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, [rid] * 20))
    for plan, begun in ((PAUSED, [False, False]), (HYBRID, [True, False])):
        machine.launch(plan)
        assert [bool(request.slot) for request in machine.scheduler.requests] == begun


def test_a_stop_id_ends_the_output_only_beyond_min_tokens() -> None:
    whole = expected_output([1, 2, 3], 12)
    assert whole[2] not in whole[:2] + whole[3:]
    for min_tokens, length in ((2, 3), (3, 12)):
        machine = Machine(20, bound=40)
        request = make_request(1, [1, 2, 3], 12, stop=whole[2])
        request.sampling = replace(request.sampling, min_tokens=min_tokens)
        machine.scheduler.add(request)
        machine.drain(HYBRID)
        assert machine.outputs[1] == whole[:length]


def test_a_chunks_time_is_shared_out_so_a_long_context_gets_fewer_tokens() -> None:
    machine = Machine(60, bound=8)
    machine.scheduler._bound = lambda plan, units, decoding, context: 4 if context else 8
    machine.scheduler.add(make_request(1, list(range(20)), due_ns=900))
    assert first_rows(machine, DUE) == [1]
    machine.complete("decode")
    machine.scheduler.add(make_request(2, [1, 2, 3, 4], due_ns=100))
    (batch,) = machine.launch(DUE)
    assert [(row.request.rid, row.start, row.count) for row in batch.rows] == [(2, 0, 4), (1, 8, 2)]


def test_prompts_that_share_a_chunk_fill_its_last_tile_and_no_more() -> None:
    for prompt_len, taken in ((70, 42), (112, None)):
        machine = Machine(200, bound=150)
        machine.scheduler.add(make_request(1, [1, 2, 3], 30))
        machine.launch(HYBRID)
        machine.complete("decode")
        machine.scheduler.add(make_request(2, list(range(prompt_len)), 3))
        machine.scheduler.add(make_request(3, list(range(100, 250)), 3))
        (batch,) = machine.launch(Plan("hybrid", 2, 2, None))
        counts = [row.count for row in batch.rows]
        # One row, padded to 16, and the chunk: 128 tokens; the 22 that the bound would still allow wait.
        assert counts == ([1, prompt_len, taken] if taken else [1, prompt_len])


def test_the_share_of_short_outputs_follows_what_finishes() -> None:
    machine = Machine(400, bound=40)
    for rid in range(1, 60):
        machine.scheduler.add(make_request(rid, [rid % VOCAB], SHORT_TOKENS - 1 if rid < 30 else SHORT_TOKENS))
        machine.drain(HYBRID)
        if rid == 29:
            assert machine.scheduler.short_share > 0.7
    assert machine.scheduler.short_share < 0.3

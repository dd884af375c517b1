"""Requests and what they hold: who gets blocks, who gives them up, and how requests end."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.storm.machine import BLOCK_TOKENS, DUE, HYBRID, SHARED, Machine, expected_output, make_request
from rapidd.engine.batch import BatchResult
from rapidd.engine.request import LANES
from rapidd.errors import RequestError, is_out_of_memory
from rapidd.policy.plan import Plan
from support.machine import busy_machine, first_rows


def test_a_request_that_can_never_fit_is_refused() -> None:
    machine = Machine(4)
    with pytest.raises(RequestError, match="13 tokens of KV cache and the cache holds 12") as refusal:
        machine.scheduler.add(make_request(1, list(range(10)), 3))
    assert refusal.value.code == "kv_too_small"
    machine.scheduler.add(make_request(2, list(range(9)), 3))
    machine.drain(HYBRID)
    assert machine.outputs[2] == expected_output(list(range(9)), 3)


@pytest.mark.parametrize("plan", [HYBRID, SHARED])
def test_an_output_ends_where_the_context_does_and_is_let_in_where_a_whole_context_fits(plan: Plan) -> None:
    machine = Machine(5, bound=8, max_model_len=16)
    machine.scheduler.add(make_request(1, [1] * 10, 100))
    finishes: list[str | None] = []
    while list(machine.scheduler.requests):
        machine.launch(plan)
        for lane in LANES:
            if (done := machine.complete(lane)) is not None:
                finishes += [outcome.finish for outcome in done.outcomes]
    assert machine.outputs == {1: expected_output([1] * 10, 6)}
    assert finishes == [None] * 5 + ["length"]


@pytest.mark.parametrize(("prompt_tokens", "begins"), [(27, True), (28, False)])
def test_a_prompt_begins_when_blocks_hold_all_of_it_besides_what_running_rows_need_for_two_steps(
    prompt_tokens: int, begins: bool
) -> None:
    """It began with a single block and took each one that became free. What rows would grow into was gone then: they
    were preempted, or it was, after hundreds of tokens that had to be computed again, and once more soon after."""
    machine = Machine(10, bound=40)
    machine.scheduler.add(make_request(1, [1] * 3, 4))
    machine.launch(HYBRID)
    machine.complete("decode")
    for rid, tokens in ((2, prompt_tokens), (3, 3)):
        machine.scheduler.add(make_request(rid, [rid] * tokens, 1))
    assert first_rows(machine, HYBRID) == ([2] if begins else []), "3 may not pass"
    machine.drain(HYBRID)
    assert machine.finished == {1, 2, 3}
    assert machine.scheduler.num_preempted == 0


def test_blocks_that_it_shares_with_a_running_request_are_there_already() -> None:
    machine = Machine(9, bound=40)
    said = list(range(24))
    machine.scheduler.add(make_request(1, said, 6))
    while not machine.scheduler.num_decoding:
        machine.launch(HYBRID)
        machine.complete("decode")
    machine.scheduler.add(make_request(2, [*said, 7], 2))
    assert machine.scheduler.pool.available == 2
    assert first_rows(machine, HYBRID) == [2]


def crowded(kv_blocks: int, *, running: int = 0, long: int = 0) -> Machine:
    """A row holds 4 blocks, the last not full; a prompt that needs 17 is due first, one of a single block later.

    The long one computes beside one decode step, by which the row needs no further block, but may by the second.
    """
    machine = Machine(kv_blocks, bound=80, max_model_len=96)
    machine.scheduler.add(make_request(1, [1] * 13, 12, running))
    while not machine.scheduler.num_decoding:
        machine.launch(DUE)
        machine.complete("decode")
    assert machine.scheduler.pool.available == kv_blocks - 5
    machine.scheduler.add(make_request(2, [2] * 67, 3, long, due_ns=100))
    machine.scheduler.add(make_request(3, [3] * 3, 1, due_ns=200))
    return machine


def late(machine: Machine) -> Machine:
    """The long prompt gave way once, and is late again; a prompt of one block is in line, too."""
    machine.scheduler.give_way(101, 1000)
    assert machine.scheduler.prompts[0].rid == 3
    machine.scheduler.abort(3)
    machine.scheduler.add(make_request(4, [4] * 3, 1, due_ns=2000))
    machine.scheduler.give_way(1101, 1000)
    return machine


ENOUGH, TOO_FEW = 22, 21
"""Blocks, the dummy included, that hold all of the long prompt and what the row needs for two steps; and one fewer."""


def test_a_long_prompt_leaves_blocks_to_shorter_ones_until_they_hold_what_rows_grow_by_too() -> None:
    """It took each block that became free, for as long as its output lasted, and those who need few waited for it:
    with a looser ITL objective more long prompts got on, and fewer requests met theirs."""
    machine = crowded(ENOUGH)
    assert first_rows(machine, DUE) == [3]
    machine.drain(DUE)
    assert machine.outputs[2] == expected_output([2] * 67, 3)
    assert first_rows(crowded(ENOUGH + 1), DUE) == [2]


def test_a_prompt_that_need_not_leave_them_begins_when_there_are_enough_for_itself() -> None:
    alone = crowded(ENOUGH)
    alone.scheduler.abort(3)
    assert first_rows(alone, DUE) == [2]
    assert first_rows(crowded(ENOUGH), HYBRID) == [2], "by arrival"
    assert first_rows(crowded(TOO_FEW, long=1), DUE) == [2], "it has the row's"
    assert first_rows(late(crowded(ENOUGH)), DUE) == [2], "nobody waits for ever"


def test_until_then_nobody_passes_it() -> None:
    assert first_rows(crowded(TOO_FEW), HYBRID) == [], "by arrival"
    assert first_rows(late(crowded(TOO_FEW)), DUE) == []


def test_blocks_left_to_shorter_prompts_are_not_for_those_of_lower_priority() -> None:
    assert first_rows(crowded(TOO_FEW, running=1, long=1), DUE) == []


def test_higher_priority_preempts_and_the_preempted_request_resumes() -> None:
    machine = Machine(7, bound=40)
    machine.scheduler.add(make_request(1, [1] * 12, 10))
    for _ in range(3):
        machine.launch(SHARED)
        machine.complete("prefill")
        machine.complete("decode")
    request = machine.scheduler.get(1)
    assert request is not None
    machine.scheduler.add(make_request(2, [2] * 12, 6, priority=5))
    machine.drain(SHARED)
    assert machine.scheduler.num_preempted == len(machine.scheduler.preempted) == request.preemptions >= 1
    assert machine.outputs == {1: expected_output([1] * 12, 10), 2: expected_output([2] * 12, 6)}


def test_a_row_preempted_while_its_batch_is_formed_is_not_run() -> None:
    """A prompt of higher priority took the blocks of a decode row that was already in the same hybrid batch.

    The row's batch was not counted in the fence of the released blocks, so it could write to another's KV.
    """
    whole = Plan("hybrid", 2, 2, None)
    machine = Machine(6, bound=40)
    machine.scheduler.add(make_request(1, [1] * 11, 8))
    machine.launch(whole)
    machine.complete("decode")
    machine.scheduler.add(make_request(2, [2] * 11, 8, priority=5))
    batches = machine.launch(whole)
    rids = [row.request.rid for batch in batches for row in batch.rows]
    assert 1 not in rids
    assert machine.scheduler.num_preempted == 1
    machine.drain(whole)
    assert machine.outputs == {1: expected_output([1] * 11, 8), 2: expected_output([2] * 11, 8)}


def test_a_prompt_that_gives_up_its_blocks_for_a_higher_one_no_longer_goes_before_it() -> None:
    """Others had given up theirs for it, and what it was owed for that is now the higher one's."""
    machine = Machine(7, bound=40)
    for rid, tokens, output, priority, due_ns in ((1, 2, 2, 1, 300), (2, 6, 3, 2, 300), (3, 1, 1, 0, 200)):
        machine.scheduler.add(make_request(rid, [rid] * tokens, output, priority, due_ns=due_ns))
    machine.launch(DUE)
    machine.scheduler.add(make_request(4, [4] * 5, 1, 1, due_ns=300))
    machine.complete("decode")
    machine.launch(DUE)
    machine.scheduler.add(make_request(5, [5], 1, 2, due_ns=50))
    machine.complete("decode")
    machine.launch(DUE)
    assert [r.rid for r in machine.scheduler.running] == [2, 1, 4], "3 gave up its place for 4"
    assert machine.launch(DUE) == []
    assert [r.rid for r in machine.scheduler.running] == [2, 1], "and 4 its block for 5, which waits for the batch"
    machine.complete("decode")
    assert first_rows(machine, DUE) == [5, 4, 3]
    machine.drain(DUE)


def test_out_of_memory_fails_the_batch_only() -> None:
    machine = busy_machine(SHARED, bound=40)
    prefill = next(batch for batch in machine.launch(SHARED) if batch.lane == "prefill")
    machine.queues["prefill"].clear()
    done = machine.scheduler.finish(prefill, BatchResult(error=MemoryError("no")))
    assert [(drop.request.rid, drop.code) for drop in done.drops] == [(2, "out_of_memory")]
    machine.drain(SHARED)
    assert machine.outputs == {1: expected_output([1, 2, 3], 30)}


def test_out_of_memory_ends_the_request_that_asked_for_most_and_the_others_run_again() -> None:
    """A prompt that was too much for the device took every stream that decoded beside it along."""
    machine = Machine(40, bound=40)
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, [rid, 2, 3], 8))
    machine.launch(HYBRID)
    machine.complete("decode")
    machine.scheduler.add(make_request(3, list(range(20)), 8))
    batch = next(batch for batch in machine.launch(HYBRID) if len(batch.rows) == 3)
    machine.queues["decode"].clear()
    done = machine.scheduler.finish(batch, BatchResult(error=MemoryError("no")))
    assert [(drop.request.rid, drop.code) for drop in done.drops] == [(3, "out_of_memory")]
    assert machine.scheduler.num_preempted == 2
    machine.drain(HYBRID)
    assert machine.outputs == {rid: expected_output([rid, 2, 3], 8) for rid in (1, 2)}
    assert machine.scheduler.pool.num_used == 0


def largest(machine: Machine, plan: Plan) -> int:
    """Prompt tokens of the largest batch until nothing is left to do."""
    most = 0
    while batches := machine.launch(plan):
        most = max(most, *(batch.num_prefill_tokens for batch in batches))
        for batch in batches:
            machine.complete(batch.lane)
    return most


@given(
    prompts=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    failures=st.integers(1, 4),
    plan=st.sampled_from([HYBRID, SHARED, Plan("serial", 2, 2, "all")]),
)
def test_no_batch_is_as_large_again_as_half_of_one_that_ran_out_of_memory(
    prompts: list[int], failures: int, plan: Plan
) -> None:
    """The same load met the same end again and again, a request each time."""
    machine = Machine(80, bound=40, lone_bound=60)
    for rid, length in enumerate(prompts, start=1):
        machine.scheduler.add(make_request(rid, [rid] * length, 3))
    limit = None
    for _ in range(failures):
        batch = next((batch for batch in machine.launch(plan) if batch.num_prefill_tokens), None)
        if batch is None:
            break
        while machine.queues[batch.lane][0] is not batch:
            machine.complete(batch.lane)
        machine.complete(batch.lane, MemoryError("no"))
        half = max(batch.num_prefill_tokens // 2, BLOCK_TOKENS)
        limit = half if limit is None else min(half, limit)
        assert machine.scheduler.chunk_limit == limit
        for lane in LANES:
            while machine.complete(lane) is not None:
                pass
    for rid, length in enumerate(prompts, start=100):
        machine.scheduler.add(make_request(rid, [rid] * length, 3))
    assert largest(machine, plan) <= (limit or 60)
    assert machine.outputs[100] == expected_output([100] * prompts[0], 3)


def test_two_batches_in_flight_that_fail_of_the_same_cause_halve_it_once() -> None:
    whole = Plan("hybrid", 2, 2, None)
    machine = Machine(60, bound=20)
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, [rid] * 40, 3))
    machine.launch(whole)
    machine.launch(whole)
    assert [batch.num_prefill_tokens for batch in machine.queues["decode"]] == [20, 20]
    for _ in range(2):
        machine.complete("decode", MemoryError("no"))
    assert machine.scheduler.chunk_limit == 10


def test_a_step_without_prompts_that_runs_out_of_memory_bounds_no_prompts() -> None:
    machine = busy_machine(HYBRID, bound=40)
    machine.scheduler.abort(2)
    machine.launch(HYBRID)
    machine.complete("decode", MemoryError("no"))
    assert machine.scheduler.chunk_limit is None


def test_a_cpus_allocator_says_in_words_alone_that_memory_is_out() -> None:
    """All requests of the batch failed with ``internal_error``."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("another"))
    assert not is_out_of_memory(None)


def test_a_row_without_finite_logits_fails_alone() -> None:
    machine = Machine(20, bound=40)
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, [rid, 2, 3], 5))
    (batch,) = machine.launch(HYBRID)
    machine.queues["decode"].clear()
    done = machine.scheduler.finish(batch, BatchResult(token_ids=[7, 8], failed=[0]))
    assert [(drop.request.rid, drop.code) for drop in done.drops] == [(1, "internal_error")]
    assert [(outcome.request.rid, outcome.token_id) for outcome in done.outcomes] == [(2, 8)]


def test_an_abort_ends_a_request_in_every_phase() -> None:
    machine = Machine(60, bound=4)
    machine.scheduler.add(make_request(1, [1, 2, 3], 30))
    while not machine.scheduler.num_decoding:
        machine.launch(SHARED)
        machine.complete("prefill")
    for rid, prompt in ((2, list(range(10, 30))), (3, [5, 6]), (4, [7, 8])):
        machine.scheduler.add(make_request(rid, prompt))
    machine.launch(SHARED)
    phases = [machine.scheduler.get(rid) for rid in (1, 2, 3)]
    assert [(r.slot > 0, r.is_prefill) for r in phases if r] == [(True, False), (True, True), (False, True)]
    for rid in (1, 2, 3):
        assert machine.scheduler.abort(rid)
    machine.drain(SHARED)
    assert machine.outputs[4] == expected_output([7, 8], 5)
    assert machine.scheduler.pool.num_used == 0


def test_an_aborted_requests_blocks_are_free_when_the_batches_in_flight_end() -> None:
    machine = busy_machine(SHARED, bound=8)
    machine.launch(SHARED)
    for rid in (1, 2):
        assert machine.scheduler.abort(rid)
    assert machine.scheduler.pool.num_used > 0
    machine.complete("decode")
    machine.complete("prefill")
    assert machine.scheduler.pool.num_used == 0
    assert not machine.scheduler.abort(1)

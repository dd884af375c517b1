"""The order in which prompts are computed."""

from itertools import accumulate, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.storm.machine import DUE, DUE_SPLIT, HYBRID, PAUSED, Machine, expected_output, make_request
from rapidd.engine.observe import needed_tokens_per_s
from rapidd.policy.order import BATCH_PATIENCE_NS, PRIORITY_NS
from rapidd.policy.plan import Plan, PromptTime
from support.machine import busy_machine, first_rows, kinds

SECOND_A_TOKEN = PromptTime(1.0, 0.0)
GIVE_WAY_NS = 30 * 10**9


def test_prompts_are_computed_in_order_of_arrival_unless_the_plan_says_of_due_times() -> None:
    for plan, order in ((HYBRID, [1]), (DUE, [2, 3, 1])):
        machine = Machine(60, bound=6)
        for rid, due_ns, length in ((1, 900, 12), (2, 100, 2), (3, 200, 2)):
            machine.scheduler.add(make_request(rid, list(range(length)), due_ns=due_ns))
        assert first_rows(machine, plan) == order


def test_a_prompt_that_is_due_sooner_goes_before_one_that_is_half_computed() -> None:
    machine = Machine(60, bound=6)
    machine.scheduler.add(make_request(1, list(range(30)), due_ns=900))
    assert first_rows(machine, DUE) == [1]
    machine.scheduler.add(make_request(2, [5, 6, 7], due_ns=100))
    machine.complete("decode")
    assert first_rows(machine, DUE) == [2, 1]
    machine.drain(DUE)
    assert machine.outputs[1] == expected_output(list(range(30)), 5)


def test_a_prompt_past_its_due_time_gives_way_once_and_for_a_bounded_time() -> None:
    machine = Machine(60, bound=6)
    for rid, due_ns in ((1, 100), (2, 500)):
        machine.scheduler.add(make_request(rid, list(range(10)), due_ns=due_ns))
    machine.scheduler.give_way(99, GIVE_WAY_NS)
    assert [r.rid for r in machine.scheduler.prompts] == [1, 2]
    machine.scheduler.give_way(100, GIVE_WAY_NS)
    assert [(r.rid, r.due_ns) for r in machine.scheduler.prompts] == [(2, 500), (1, 100 + GIVE_WAY_NS)]
    machine.scheduler.give_way(2 * GIVE_WAY_NS, GIVE_WAY_NS)
    assert [r.rid for r in machine.scheduler.prompts] == [1, 2], "who gave way once does not again"


def in_line(machine: Machine) -> list[int]:
    return [request.rid for request in machine.scheduler.prompts]


def test_the_longest_of_prompts_that_cannot_all_be_in_time_gives_way() -> None:
    machine = Machine(60, bound=6)
    for rid, tokens, due_s in ((1, 3, 4), (2, 9, 10), (3, 4, 11)):
        machine.scheduler.add(make_request(rid, list(range(tokens)), due_ns=due_s * 10**9))
    machine.scheduler.give_way(0, GIVE_WAY_NS)
    assert in_line(machine) == [1, 2, 3], "nobody is late yet, and nobody said how long prompts take"
    machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
    assert in_line(machine) == [1, 3, 2]
    machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
    assert in_line(machine) == [1, 3, 2], "the others are in time now"


def test_who_gives_way_for_no_time_keeps_its_place() -> None:
    """What an operator chooses for whom the last one matters as much as how many are in time."""
    machine = Machine(60, bound=6)
    for rid, tokens, due_s in ((1, 3, 4), (2, 9, 10), (3, 4, 11)):
        machine.scheduler.add(make_request(rid, list(range(tokens)), due_ns=due_s * 10**9))
    machine.scheduler.give_way(0, 0, SECOND_A_TOKEN)
    machine.scheduler.give_way(5 * 10**9, 0, SECOND_A_TOKEN)
    assert in_line(machine) == [1, 2, 3]


def test_a_prompt_that_has_begun_counts_with_what_is_left_of_it() -> None:
    machine = Machine(60, bound=6)
    machine.scheduler.add(make_request(1, list(range(10)), due_ns=10 * 10**9))
    assert first_rows(machine, DUE) == [1]
    machine.complete("decode")
    machine.scheduler.add(make_request(2, [1] * 7, due_ns=10 * 10**9 + 1))
    machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
    assert in_line(machine) == [1, 2], "the longer one of the two has less left, and gives nobody way"
    assert machine.scheduler.prompts[1].gave_way


def test_a_level_of_priority_is_worth_a_minute_of_waiting() -> None:
    """It was strict, and a request of lower priority waited for ever beside a stream of others."""
    machine = Machine(60)
    for rid, priority, seconds in ((1, 0, 100), (2, 1, 159), (3, 1, 161), (4, -1, 38)):
        machine.scheduler.add(make_request(rid, [1] * 9, priority=priority, arrival_ns=seconds * 10**9))
    assert in_line(machine) == [4, 2, 1, 3]
    assert [request.rid for request in machine.scheduler.waiting] == [4, 2, 1, 3]


def test_a_prompt_does_not_give_way_to_one_of_lower_priority() -> None:
    machine = Machine(60, bound=6)
    machine.scheduler.add(make_request(1, [1] * 9, priority=1, due_ns=9 * 10**9))
    machine.scheduler.add(make_request(2, [1] * 2, priority=0, due_ns=10 * 10**9))
    machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
    assert [(r.rid, r.gave_way) for r in machine.scheduler.prompts] == [(1, False), (2, True)]


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 30)), min_size=1, max_size=7))
def test_as_few_prompts_give_way_as_possible(jobs: list[tuple[int, int]]) -> None:
    """By trying every set of prompts that could be in time."""

    def in_time(chosen: tuple[tuple[int, int], ...]) -> bool:
        by_due = sorted(chosen, key=lambda job: job[1])
        ends = accumulate(tokens for tokens, _ in by_due)
        return all(end <= due for end, (_, due) in zip(ends, by_due, strict=True))

    most = max(size for size in range(len(jobs) + 1) if any(in_time(some) for some in combinations(jobs, size)))
    machine = Machine(60)
    for rid, (tokens, due_s) in enumerate(jobs, 1):
        machine.scheduler.add(make_request(rid, [1] * tokens, due_ns=due_s * 10**9))
    machine.scheduler.give_way(-1, GIVE_WAY_NS, SECOND_A_TOKEN)
    stayed = [request for request in machine.scheduler.prompts if not request.gave_way]
    assert len(stayed) == most
    machine.scheduler.check()


def test_a_stream_that_has_begun_does_not_give_way_when_it_was_preempted() -> None:
    machine = Machine(60, bound=40)
    machine.scheduler.add(make_request(1, [1, 2, 3], 9, due_ns=100))
    for _ in range(2):
        machine.launch(DUE)
        machine.complete("decode")
    machine.scheduler._preempt(machine.scheduler.running[0])
    machine.scheduler.add(make_request(2, [1], due_ns=10**12))
    machine.scheduler.give_way(10**11, GIVE_WAY_NS)
    assert [r.rid for r in machine.scheduler.prompts] == [1, 2]


def test_who_runs_is_never_out_of_sight_behind_those_who_wait_for_it() -> None:
    """Only as many prompts as there are slots were looked at: when all of these waited for what a prompt behind them
    computes, or for its slot, nothing ran any more."""
    machine = Machine(400, max_running=4, bound=8)
    shared = list(range(1, 25))
    machine.scheduler.add(make_request(1, [*shared, 30], due_ns=900))
    assert first_rows(machine, DUE) == [1]
    for rid in range(2, 6):
        machine.scheduler.add(make_request(rid, [*shared, 30 + rid], due_ns=100))
    machine.complete("decode")
    machine.drain(DUE)
    assert {rid: machine.outputs[rid] for rid in (1, 5)} == {
        1: expected_output([*shared, 30], 5),
        5: expected_output([*shared, 35], 5),
    }
    machine = Machine(400, max_running=1, bound=8)
    machine.scheduler.add(make_request(6, [1] * 30, due_ns=900))
    assert first_rows(machine, DUE) == [6]
    machine.scheduler.add(make_request(7, [2] * 3, due_ns=100))
    machine.complete("decode")
    machine.drain(DUE)


def test_a_prompt_that_lacks_blocks_has_them_before_those_that_gave_them_up() -> None:
    """The one that is due sooner gave up its blocks, as there were too few for its next token, and took them again in
    the next turn, for ever: the other one, with most of the cache, never had a turn."""
    first, second = list(range(28)), [7] * 20
    machine = Machine(11, 4, bound=6, max_model_len=40)
    machine.scheduler.add(make_request(1, first, 4, due_ns=900))
    for _ in range(3):
        machine.launch(DUE)
        machine.complete("decode")
    machine.scheduler.add(make_request(2, second, 4, due_ns=100))
    for _ in range(60):
        machine.launch(DUE)
        machine.launch(DUE)
        machine.complete("decode")
        machine.scheduler.check()
    assert machine.finished == {1, 2}
    assert machine.scheduler.num_preempted < 5
    assert machine.outputs == {1: expected_output(first, 4), 2: expected_output(second, 4)}


def test_a_prompt_that_waits_takes_no_blocks_from_one_that_it_let_pass() -> None:
    """As soon as nothing decoded it did, because it had arrived sooner: what had been computed was thrown away."""
    machine = Machine(21, bound=8, max_model_len=96)
    machine.scheduler.add(make_request(1, [1] * 40, 3))
    while not machine.scheduler.num_decoding:
        machine.launch(DUE)
        machine.complete("decode")
    machine.scheduler.add(make_request(2, [2] * 67, 3, due_ns=100))
    machine.scheduler.add(make_request(3, [3] * 24, 3, due_ns=200))
    assert first_rows(machine, DUE) == [3]
    machine.drain(DUE)
    assert machine.finished == {1, 2, 3}
    assert machine.scheduler.num_preempted == 0


def test_a_prompt_takes_no_blocks_from_rows_that_decode() -> None:
    machine = Machine(8, bound=1)
    prompt = make_request(1, [1] * 18, 3, due_ns=900)
    machine.scheduler.add(prompt)
    machine.scheduler.add(make_request(2, [2] * 3, 20, due_ns=100))
    while prompt.computed < 12:
        machine.launch(DUE)
        machine.complete("decode")
    (batch,) = machine.launch(DUE)
    assert [row.request.rid for row in batch.rows] == [2], "it has no block for its next token"
    assert machine.scheduler.num_preempted == 0
    machine.drain(DUE)
    assert machine.finished == {1, 2}


def step(machine: Machine) -> None:
    """A turn that ends a chunk and a decode step, and begins the next step before that."""
    batches = machine.launch(DUE_SPLIT)
    machine.complete("prefill")
    if len(machine.queues["decode"]) > 1 or not any(batch.lane == "decode" for batch in batches):
        machine.complete("decode")


def short_of_blocks() -> Machine:
    """Request 1 decodes, 2 has nearly all other blocks for a prompt that is late, and 3 may take them from it."""
    machine = Machine(31, bound=8, max_model_len=128)
    machine.scheduler.add(make_request(1, [1] * 3, 100))
    machine.scheduler.add(make_request(2, [2] * 104, 3, due_ns=100))
    for now_ns in (100, 1200):  # it gave way and is late again: it leaves none to others
        machine.scheduler.give_way(now_ns, 1000)
    for _ in range(13):
        step(machine)
    machine.scheduler.add(make_request(3, [3] * 12, 3, priority=1, due_ns=2 * PRIORITY_NS))
    return machine


def test_who_blocks_were_taken_for_has_them_first_while_rows_decode() -> None:
    """They were free only when the step in flight had ended, and the prompt that is due sooner took them again."""
    machine = short_of_blocks()
    while 3 not in machine.finished:
        step(machine)
        assert 1 not in machine.finished, "it waited for the rows that decode"
    assert in_line(machine) == [2]


def test_when_it_is_aborted_before_it_has_them_the_others_go_on() -> None:
    machine = short_of_blocks()
    machine.launch(DUE_SPLIT)
    assert [request.rid for request in machine.scheduler.waiting] == [3, 2]
    machine.scheduler.abort(3)
    machine.scheduler.check()
    machine.drain(DUE_SPLIT)
    assert machine.finished == {1, 2}


def test_what_the_prefix_cache_has_of_a_prompt_takes_no_time() -> None:
    """A conversation of which all but the last question was cached looked like the longest prompt, and gave way."""
    machine = Machine(400, bound=60)
    said = list(range(36))
    machine.scheduler.add(make_request(1, said))
    machine.drain(DUE)
    machine.scheduler.add(make_request(2, [*said, 5, 6], due_ns=6 * 10**9))
    machine.scheduler.add(make_request(3, [8] * 4, due_ns=7 * 10**9))
    machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
    assert [(r.rid, r.gave_way, r.spared) for r in machine.scheduler.prompts] == [(2, False, 36), (3, False, 0)]
    assert needed_tokens_per_s(machine.scheduler.prompts, 0) == pytest.approx(max(2 / 6, 6 / 7))
    assert machine.scheduler.context == 36


def test_the_context_is_what_lies_before_the_next_chunk_of_the_most_urgent_prompt() -> None:
    """Cached or computed, and counted once; 0 where no prompt waits."""
    machine = Machine(400, bound=60)
    scheduler, said = machine.scheduler, list(range(36))
    scheduler.add(make_request(1, said))
    machine.drain(DUE)
    assert scheduler.context == 0
    scheduler.add(make_request(2, [*said, *range(10)], due_ns=6 * 10**9))
    scheduler.add(make_request(3, [8] * 4, due_ns=7 * 10**9))
    scheduler.give_way(0, GIVE_WAY_NS, PromptTime(0.0, 0.0))
    assert scheduler.context == 36
    scheduler._bound = lambda plan, units, decoding, context: 4
    assert first_rows(machine, DUE) == [2]
    assert scheduler.context == 40


def test_without_the_prefix_cache_every_prompt_is_to_be_computed_whole() -> None:
    machine = Machine(400, bound=8, prefix_cache=False)
    shared = list(range(40))
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, shared))
    machine.scheduler.give_way(-1, GIVE_WAY_NS, PromptTime(0.0, 0.0))
    assert first_rows(machine, DUE) == [1]
    machine.scheduler.give_way(-1, GIVE_WAY_NS, PromptTime(0.0, 0.0))
    assert [request.spared for request in machine.scheduler.prompts] == [0, 0]


def test_what_is_being_computed_takes_no_time_either() -> None:
    machine = Machine(400, bound=8)
    shared = list(range(40))
    machine.scheduler.add(make_request(1, [*shared, 1], due_ns=50 * 10**9))
    assert first_rows(machine, DUE) == [1]
    for rid in (2, 3):
        machine.scheduler.add(make_request(rid, [*shared, rid], due_ns=50 * 10**9))
    machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
    assert [(r.rid, r.gave_way) for r in machine.scheduler.prompts] == [(1, False), (2, False), (3, False)]
    machine.scheduler.abort(1)
    machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
    assert [(r.rid, r.gave_way) for r in machine.scheduler.prompts] == [(3, False), (2, True)], "nobody computes it now"


def test_prompts_that_were_not_hashed_yet_are_judged_in_a_later_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapidd.engine.residents.HASHED_A_TURN", 10)
    machine = Machine(400)
    for rid in range(1, 5):
        machine.scheduler.add(make_request(rid, [rid] * 8, due_ns=1))
    gave_way = []
    for _ in range(3):
        machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
        gave_way.append(sum(request.gave_way for request in machine.scheduler.prompts))
    assert gave_way == [2, 4, 4]


def test_a_prompt_is_hashed_once_so_that_those_behind_it_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapidd.engine.residents.HASHED_A_TURN", 10)
    machine = Machine(400)
    for rid in range(1, 5):
        machine.scheduler.add(make_request(rid, [rid] * 8, due_ns=10**9 * 10 * rid))
    hashed = []
    for _ in range(3):
        machine.scheduler.give_way(0, GIVE_WAY_NS, SECOND_A_TOKEN)
        hashed.append(sum(bool(request.hashes) for request in machine.scheduler.prompts))
    assert hashed == [2, 4, 4]


@pytest.mark.parametrize("plan", [HYBRID, DUE])
def test_batch_work_lets_interactive_work_go_first_but_not_for_ever(plan: Plan) -> None:
    machine = Machine(60, bound=2)
    machine.scheduler.add(make_request(1, [1, 2], slo_class="batch", arrival_ns=0))
    machine.scheduler.add(make_request(2, [1, 3], arrival_ns=BATCH_PATIENCE_NS - 1))
    machine.scheduler.add(make_request(3, [1, 4], arrival_ns=BATCH_PATIENCE_NS + 1))
    order = []
    for _ in range(3):
        order += first_rows(machine, plan)
        machine.complete("decode")
    assert order == [2, 1, 3]


def test_while_prompts_are_paused_rows_decode_and_prompts_keep_their_place() -> None:
    machine = busy_machine(HYBRID, bound=8)
    assert kinds(machine, PAUSED, 4) == ["decode"] * 4
    machine.drain(DUE)
    assert machine.outputs[2] == expected_output(list(range(10, 30)), 3)

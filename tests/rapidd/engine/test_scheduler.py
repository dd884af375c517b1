"""Scheduler: any order of arrivals, batches, aborts and preemptions gives each request its undisturbed output."""

import random
from itertools import accumulate, combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from rapidd.engine.batch import BatchResult
from rapidd.engine.prompts import GIVE_WAY_NS
from rapidd.engine.request import BATCH_PATIENCE_NS, LANES, Lane
from rapidd.engine.scheduler import SHORT_TOKENS
from rapidd.errors import RequestError
from rapidd.policy.plan import Plan, PromptTime
from support.machine import VOCAB, Machine, expected_output, make_request

SERIAL = Plan("serial", 2, 2, 6)
SERIAL_ALL = Plan("serial", 2, 2, "all")
HYBRID = Plan("hybrid", 2, 2, 6)
SHARED = Plan("shared", 2, 2, None)
SPLIT = Plan("split", 1, 1, None)
DUE = replace(HYBRID, by_deadline=True)
DUE_SPLIT = replace(SPLIT, by_deadline=True)
PAUSED = replace(DUE, chunk=0)
PLANS = [SERIAL, SERIAL_ALL, HYBRID, SHARED, SPLIT, DUE, DUE_SPLIT, PAUSED]


class Chaos(RuleBasedStateMachine):
    """Everything that can happen to a scheduler, in any order."""

    @initialize(blocks=st.integers(9, 24), running=st.integers(1, 4), bound=st.integers(1, 12))
    def start(self, blocks: int, running: int, bound: int) -> None:
        self.machine = Machine(blocks, running, bound, max_model_len=32)
        self.plan = HYBRID
        self.wanted: dict[int, list[int]] = {}
        self.aborted: set[int] = set()
        self.next_rid = 1

    @rule(
        prefix=st.sampled_from([[], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9]]),
        tail=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=10),
        max_output=st.integers(1, 12),
        priority=st.sampled_from([0, 0, 0, 1]),
        stop=st.none() | st.integers(0, VOCAB - 1),
    )
    def admit(self, prefix: list[int], tail: list[int], max_output: int, priority: int, stop: int | None) -> None:
        prompt = prefix + tail
        if len(self.wanted) - len(self.machine.finished | self.aborted) >= 8:
            return
        request = make_request(self.next_rid, prompt, max_output, priority, stop)
        self.machine.scheduler.add(request)
        self.wanted[self.next_rid] = expected_output(prompt, max_output, request.sampling.stop_ids)
        self.next_rid += 1

    @rule(plan=st.sampled_from(PLANS))
    def switch(self, plan: Plan) -> None:
        self.plan = plan

    @rule()
    def launch(self) -> None:
        self.machine.launch(self.plan)

    @rule(lane=st.sampled_from(LANES))
    def complete(self, lane: Lane) -> None:
        self.machine.complete(lane)

    @rule(now_ns=st.integers(0, 60), token_s=st.none() | st.floats(0.0, 1e-8))
    def give_way(self, now_ns: int, token_s: float | None) -> None:
        self.machine.scheduler.give_way(now_ns, None if token_s is None else PromptTime(token_s, token_s))

    @rule(turns=st.integers(1, 12))
    def run(self, turns: int) -> None:
        for _ in range(turns):
            self.machine.launch(self.plan)
            for lane in LANES:
                self.machine.complete(lane)

    @precondition(lambda self: self.wanted)
    @rule(pick=st.randoms(use_true_random=False))
    def abort(self, pick: random.Random) -> None:
        rid = pick.choice(sorted(self.wanted))
        if self.machine.scheduler.abort(rid):
            self.aborted.add(rid)

    @precondition(lambda self: self.machine.scheduler.running)
    @rule(index=st.integers(0, 3))
    def preempt(self, index: int) -> None:
        running = self.machine.scheduler.running
        self.machine.scheduler._preempt(running[index % len(running)])

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "machine"):
            self.machine.scheduler.check()

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        self.machine.drain(DUE if self.plan.chunk == 0 else self.plan)
        for rid, output in self.wanted.items():
            if rid not in self.aborted:
                assert self.machine.outputs[rid] == output
            else:
                assert self.machine.outputs.get(rid, []) == output[: len(self.machine.outputs.get(rid, []))]
        assert self.machine.scheduler.pool.num_used == 0
        assert self.machine.scheduler.slots.num_used == 0


TestChaos = Chaos.TestCase
TestChaos.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def kinds(machine: Machine, plan: Plan, turns: int = 40) -> list[str]:
    """What ran, batch by batch, when each batch ends before the next turn."""
    seen: list[str] = []
    for _ in range(turns):
        seen += [batch.kind for batch in machine.launch(plan)]
        for lane in LANES:
            machine.complete(lane)
    return seen


def busy_machine(plan: Plan, kv_blocks: int = 60, **options: int) -> Machine:
    """One request decoding, then a prompt of 20 tokens arrives."""
    machine = Machine(kv_blocks, **options)
    machine.scheduler.add(make_request(1, [1, 2, 3], 30))
    while not machine.scheduler.num_decoding:
        machine.launch(plan)
        machine.complete("prefill")
        machine.complete("decode")
    machine.scheduler.add(make_request(2, list(range(10, 30)), 3))
    return machine


def test_serial_gives_one_decode_step_after_each_chunk() -> None:
    machine = busy_machine(SERIAL, bound=8)
    assert kinds(machine, SERIAL, 8) == ["decode", "prefill"] * 4


def test_serial_all_computes_a_whole_prompt_without_a_decode_step() -> None:
    machine = busy_machine(SERIAL_ALL, bound=8)
    assert kinds(machine, SERIAL_ALL, 6) == ["decode", "prefill", "prefill", "prefill", "decode", "decode"]


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


def test_waiting_for_a_prefix_ends_when_its_owner_is_aborted() -> None:
    machine = Machine(40, bound=8)
    prompt = list(range(1, 18))
    machine.scheduler.add(make_request(1, prompt, 4))
    machine.scheduler.add(make_request(2, prompt, 4))
    machine.launch(SHARED)
    machine.scheduler.abort(1)
    machine.drain(SHARED)
    assert machine.outputs == {2: expected_output(prompt, 4)}


def test_a_request_that_can_never_fit_is_refused() -> None:
    machine = Machine(4)
    with pytest.raises(RequestError, match="KV cache") as refusal:
        machine.scheduler.add(make_request(1, list(range(10)), 3))
    assert refusal.value.code == "kv_too_small"
    machine.scheduler.add(make_request(2, list(range(9)), 3))
    machine.drain(HYBRID)
    assert machine.outputs[2] == expected_output(list(range(9)), 3)


def test_a_prompt_leaves_the_blocks_that_running_rows_need_for_two_steps() -> None:
    machine = busy_machine(SHARED, kv_blocks=10, bound=40)
    machine.launch(SHARED)
    assert machine.scheduler.pool.available >= machine.scheduler._reserved()
    machine.drain(SHARED)
    assert machine.scheduler.num_preempted == 0


def test_higher_priority_preempts_and_the_preempted_request_resumes() -> None:
    machine = Machine(7, bound=40)
    machine.scheduler.add(make_request(1, [1] * 12, 10))
    for _ in range(3):
        machine.launch(SHARED)
        machine.complete("prefill")
        machine.complete("decode")
    machine.scheduler.add(make_request(2, [2] * 12, 6, priority=5))
    machine.drain(SHARED)
    assert machine.scheduler.num_preempted >= 1
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


def test_out_of_memory_fails_the_batch_only() -> None:
    machine = busy_machine(SHARED, bound=40)
    prefill = next(batch for batch in machine.launch(SHARED) if batch.lane == "prefill")
    machine.queues["prefill"].clear()
    done = machine.scheduler.finish(prefill, BatchResult(error=MemoryError("no")))
    assert [(drop.request.rid, drop.code) for drop in done.drops] == [(2, "out_of_memory")]
    machine.drain(SHARED)
    assert machine.outputs == {1: expected_output([1, 2, 3], 30)}


def test_a_row_without_finite_logits_fails_alone() -> None:
    machine = Machine(20, bound=40)
    for rid in (1, 2):
        machine.scheduler.add(make_request(rid, [rid, 2, 3], 5))
    (batch,) = machine.launch(HYBRID)
    machine.queues["decode"].clear()
    done = machine.scheduler.finish(batch, BatchResult(token_ids=[7, 8], failed=[0]))
    assert [(drop.request.rid, drop.code) for drop in done.drops] == [(1, "internal_error")]
    assert [(outcome.request.rid, outcome.token_id) for outcome in done.outcomes] == [(2, 8)]


def test_deadlines_end_requests_in_every_phase() -> None:
    machine = busy_machine(SHARED, bound=4)
    waiting = make_request(3, [5, 6], 5)
    machine.scheduler.add(waiting)
    machine.launch(SHARED)
    for request in list(machine.scheduler.requests):
        request.deadline_ns = 100
    assert machine.scheduler.expired(99) == []
    assert {drop.code for drop in machine.scheduler.expired(100)} == {"deadline_exceeded"}
    machine.drain(SHARED)
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


def test_100_000_random_operations_leave_nothing_behind() -> None:
    """Admit, launch, complete, abort, preempt and switch modes, by a seeded die; then let the rest finish."""
    rng = random.Random(2026)
    machine = Machine(24, max_running=4, bound=8, max_model_len=32)
    plan, wanted, live, rid = HYBRID, dict[int, list[int]](), set[int](), 0
    for _ in range(100_000):
        die = rng.random()
        if die < 0.08 and len(live) < 8:
            rid += 1
            prompt = [*rng.choice(([], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8])), *rng.choices(range(VOCAB), k=5)]
            request = make_request(rid, prompt, rng.randint(1, 12), rng.choice((0, 0, 0, 1)))
            machine.scheduler.add(request)
            wanted[rid] = expected_output(prompt, request.max_output)
            live.add(rid)
        elif die < 0.5:
            machine.launch(plan)
        elif die < 0.96:
            machine.complete(rng.choice(LANES))
        elif die < 0.975 and live:
            victim = rng.choice(sorted(live))
            if machine.scheduler.abort(victim):
                wanted.pop(victim)
        elif die < 0.99 and machine.scheduler.running:
            machine.scheduler._preempt(rng.choice(machine.scheduler.running))
        else:
            plan = rng.choice(PLANS)
        live = {request.rid for request in machine.scheduler.requests}
    machine.drain(DUE if plan.chunk == 0 else plan)
    assert rid > 3000
    assert {rid: machine.outputs[rid] for rid in wanted} == wanted
    assert (machine.scheduler.pool.num_used, machine.scheduler.slots.num_used) == (0, 0)


# --- in order of due times


def first_rows(machine: Machine, plan: Plan) -> list[int]:
    """Whose prompts the next batch holds, when nothing else runs."""
    (batch,) = machine.launch(plan)
    return [row.request.rid for row in batch.rows if row.known_ids]


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
    machine.scheduler.give_way(99)
    assert [r.rid for r in machine.scheduler.prompts] == [1, 2]
    machine.scheduler.give_way(100)
    assert [(r.rid, r.due_ns) for r in machine.scheduler.prompts] == [(2, 500), (1, 100 + GIVE_WAY_NS)]
    machine.scheduler.give_way(2 * GIVE_WAY_NS)
    assert [r.rid for r in machine.scheduler.prompts] == [1, 2], "who gave way once does not again"


SECOND_A_TOKEN = PromptTime(1.0, 0.0)


def in_line(machine: Machine) -> list[int]:
    return [request.rid for request in machine.scheduler.prompts]


def test_the_longest_of_prompts_that_cannot_all_be_in_time_gives_way() -> None:
    machine = Machine(60, bound=6)
    for rid, tokens, due_s in ((1, 3, 4), (2, 9, 10), (3, 4, 11)):
        machine.scheduler.add(make_request(rid, list(range(tokens)), due_ns=due_s * 10**9))
    machine.scheduler.give_way(0)
    assert in_line(machine) == [1, 2, 3], "nobody is late yet, and nobody said how long prompts take"
    machine.scheduler.give_way(0, SECOND_A_TOKEN)
    assert in_line(machine) == [1, 3, 2]
    machine.scheduler.give_way(0, SECOND_A_TOKEN)
    assert in_line(machine) == [1, 3, 2], "the others are in time now"


def test_a_prompt_that_has_begun_counts_with_what_is_left_of_it() -> None:
    machine = Machine(60, bound=6)
    machine.scheduler.add(make_request(1, list(range(10)), due_ns=10 * 10**9))
    assert first_rows(machine, DUE) == [1]
    machine.complete("decode")
    machine.scheduler.add(make_request(2, [1] * 7, due_ns=10 * 10**9 + 1))
    machine.scheduler.give_way(0, SECOND_A_TOKEN)
    assert in_line(machine) == [1, 2], "the longer one of the two has less left, and gives nobody way"
    assert machine.scheduler.prompts[1].gave_way


def test_a_prompt_does_not_give_way_to_one_of_lower_priority() -> None:
    machine = Machine(60, bound=6)
    machine.scheduler.add(make_request(1, [1] * 9, priority=1, due_ns=9 * 10**9))
    machine.scheduler.add(make_request(2, [1] * 2, priority=0, due_ns=10 * 10**9))
    machine.scheduler.give_way(0, SECOND_A_TOKEN)
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
    machine.scheduler.give_way(-1, SECOND_A_TOKEN)
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
    machine.scheduler.give_way(10**11)
    assert [r.rid for r in machine.scheduler.prompts] == [1, 2]


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


def test_a_chunks_time_is_shared_out_so_a_long_context_gets_fewer_tokens() -> None:
    machine = Machine(60, bound=8)
    machine.scheduler._bound = lambda plan, units, decoding, context: 4 if context else 8
    machine.scheduler.add(make_request(1, list(range(20)), due_ns=900))
    assert first_rows(machine, DUE) == [1]
    machine.complete("decode")
    machine.scheduler.add(make_request(2, [1, 2, 3, 4], due_ns=100))
    (batch,) = machine.launch(DUE)
    assert [(row.request.rid, row.start, row.count) for row in batch.rows] == [(2, 0, 4), (1, 8, 2)]


def test_the_share_of_short_outputs_follows_what_finishes() -> None:
    machine = Machine(400, bound=40)
    for rid in range(1, 60):
        machine.scheduler.add(make_request(rid, [rid % VOCAB], SHORT_TOKENS - 1 if rid < 30 else SHORT_TOKENS))
        machine.drain(HYBRID)
        if rid == 29:
            assert machine.scheduler.short_share > 0.7
    assert machine.scheduler.short_share < 0.3

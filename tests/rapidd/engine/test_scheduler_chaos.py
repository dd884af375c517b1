"""Scheduler: any order of arrivals, batches, aborts and preemptions gives each request its undisturbed output."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bench.storm import scheduler as storm
from bench.storm.machine import DUE, DUE_SPLIT, HYBRID, PLANS, VOCAB, Machine, expected_output, make_request
from rapidctl.wire import SloClass
from rapidd.engine.request import LANES, Lane
from rapidd.policy.plan import Plan, PromptTime

SECOND = 1_000_000_000


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
        due_ns=st.integers(0, 60),
    )
    def admit(
        self, prefix: list[int], tail: list[int], max_output: int, priority: int, stop: int | None, due_ns: int
    ) -> None:
        prompt = prefix + tail
        if len(self.wanted) - len(self.machine.finished | self.aborted) >= 8:
            return
        request = make_request(self.next_rid, prompt, max_output, priority, stop, due_ns=due_ns)
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

    @rule(lane=st.sampled_from(LANES), error=st.sampled_from([MemoryError("no"), ValueError("no")]))
    def fail(self, lane: Lane, error: Exception) -> None:
        done = self.machine.complete(lane, error)
        if done is not None:
            self.aborted.update(drop.request.rid for drop in done.drops)
            assert isinstance(error, ValueError) or len(done.drops) <= 1, "more than one was to blame"

    @rule(now_ns=st.integers(0, 60), for_ns=st.integers(0, 60), token_s=st.none() | st.floats(0.0, 1e-8))
    def give_way(self, now_ns: int, for_ns: int, token_s: float | None) -> None:
        self.machine.scheduler.give_way(now_ns, for_ns, None if token_s is None else PromptTime(token_s, token_s))

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


def test_random_operations_leave_nothing_behind() -> None:
    """Admit, launch, complete, abort, preempt and switch modes, by a seeded die; then let the rest finish."""
    found = storm.run(100_000, seed=2026)
    assert found["failures"] == []
    assert found["admitted"] > 3000
    assert min(found["aborted"], found["preempted"], found["switched"]) > 1000


def rush(seed: int) -> Machine:
    """More requests than fit, of shared beginnings, classes and priorities, for a while; by due times."""
    dice = random.Random(seed)
    blocks, running, bound = dice.choice([9, 12, 17, 24, 40, 100]), dice.randrange(1, 6), dice.choice([1, 3, 8, 16])
    machine = Machine(blocks, running, bound, max_model_len=32)
    shared = [dice.randrange(VOCAB) for _ in range(20)]
    plan, now_ns, rid = dice.choice([DUE, DUE_SPLIT]), 0, 0
    for _ in range(dice.choice([30, 80])):
        for _ in range(min(dice.randrange(4), 12 - len(list(machine.scheduler.requests)))):
            rid += 1
            prompt = shared[: dice.choice([0, 4, 8, 16, 20])] + [dice.randrange(VOCAB)] * dice.randrange(1, 8)
            slo_class: SloClass = dice.choice(["interactive", "interactive", "batch"])
            machine.scheduler.add(
                make_request(
                    rid,
                    prompt,
                    dice.randrange(1, 5),
                    dice.choice([0, 0, 0, 1, 2]),
                    arrival_ns=now_ns,
                    due_ns=now_ns + SECOND,
                    slo_class=slo_class,
                )
            )
        plan = dice.choice([DUE, DUE_SPLIT]) if dice.random() < 0.1 else plan
        now_ns += dice.choice([0, SECOND // 100, SECOND])
        machine.scheduler.give_way(now_ns, 30 * SECOND, dice.choice([None, PromptTime(1e-2, 0.0)]))
        machine.launch(plan)
        for lane in LANES:
            if dice.random() < 0.7:
                machine.complete(lane)
    machine.drain(plan, limit=1000)
    return machine


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_by_due_times_too_whatever_came_ends(start: int) -> None:
    """One of six such runs stopped for ever: those who were looked at waited for one who was not, or two prompts gave
    up their blocks for each other by turns."""
    for seed in range(start, start + 50):
        machine = rush(seed)
        machine.scheduler.check()
        assert not list(machine.scheduler.requests), f"seed {seed}"

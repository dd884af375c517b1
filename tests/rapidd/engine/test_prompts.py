"""The order in which prompts are computed."""

import pytest

from rapidd.engine.prompts import GIVE_WAY_NS
from rapidd.engine.request import BATCH_PATIENCE_NS
from rapidd.policy.plan import Plan
from support.machine import DUE, HYBRID, PAUSED, Machine, busy_machine, expected_output, first_rows, kinds, make_request


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

"""Time is counted by what runs, not by what was planned."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.storm.machine import HYBRID, SERIAL, SHARED, SPLIT, Machine, make_request
from rapidd.engine.batch import Batch
from rapidd.engine.realised import doing
from rapidd.policy.plan import Plan
from support.machine import busy_machine

UNITS = 2


def seen(machine: Machine) -> str:
    """Of a scheduler whose batches are in flight."""
    scheduler = machine.scheduler
    running = [next(iter(machine.queues[lane]), None) for lane in ("decode", "prefill")]
    work = {"num_decoding": scheduler.num_decoding, "prefill_tokens": scheduler.prefill_tokens}
    return doing(running[0], running[1], UNITS, **work)


def prompt_only() -> Machine:
    machine = Machine(60, bound=40)
    machine.scheduler.add(make_request(1, list(range(20)), 3))
    return machine


def rows_only() -> Machine:
    machine = busy_machine(SHARED)
    machine.scheduler.abort(2)
    return machine


@pytest.mark.parametrize(
    ("plan", "both"), [(SPLIT, "split"), (SHARED, "shared"), (HYBRID, "hybrid"), (SERIAL, "serial")]
)
def test_a_mode_is_realised_while_both_phases_have_work_and_not_otherwise(plan: Plan, both: str) -> None:
    """While only decode ran under a split, all of that time was the split's."""
    expected: list[tuple[Callable[[], Machine], str]] = [
        (lambda: busy_machine(plan, bound=6), both),
        (rows_only, "decode alone"),
        (prompt_only, "prefill alone"),
    ]
    for make, what in expected:
        machine = make()
        assert seen(machine) == "idle"
        machine.launch(plan)
        assert seen(machine) == what


def test_a_serial_step_and_a_serial_chunk_are_both_its_turns_until_the_prompt_is_computed() -> None:
    machine = busy_machine(SERIAL, bound=6)
    turns = []
    for _ in range(10):
        (batch,) = machine.launch(SERIAL)
        turns.append((batch.kind, seen(machine)))
        machine.complete(batch.lane)
    assert turns[:8] == [("decode", "serial"), ("prefill", "serial")] * 4
    assert turns[8:] == [("decode", "decode alone")] * 2


def batch(lane: Any, mode: Any, units: int) -> Batch:
    return Batch(1, lane, units, mode, [], lane == "decode", lane == "prefill", 0)


@pytest.mark.parametrize(
    ("decode", "prefill"),
    [(("split", 1), ("shared", 2)), (("hybrid", 2), ("shared", 2)), (("split", 2), ("split", 1))],
)
def test_batches_of_two_plans_side_by_side_are_a_transition(decode: tuple[str, int], prefill: tuple[str, int]) -> None:
    found = doing(batch("decode", *decode), batch("prefill", *prefill), UNITS, num_decoding=1, prefill_tokens=0)
    assert found == "transition"

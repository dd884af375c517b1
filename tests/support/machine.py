"""What tests of the scheduler do with a `bench.storm.machine.Machine`."""

from typing import Any

from bench.storm.machine import Machine, make_request
from rapidd.engine.request import LANES
from rapidd.policy.plan import Plan


def busy_machine(plan: Plan, kv_blocks: int = 60, **options: Any) -> Machine:
    """One request decoding, then a prompt of 20 tokens arrives."""
    machine = Machine(kv_blocks, **options)
    machine.scheduler.add(make_request(1, [1, 2, 3], 30))
    while not machine.scheduler.num_decoding:
        machine.launch(plan)
        machine.complete("prefill")
        machine.complete("decode")
    machine.scheduler.add(make_request(2, list(range(10, 30)), 3))
    return machine


def kinds(machine: Machine, plan: Plan, turns: int = 40) -> list[str]:
    """What ran, batch by batch, when each batch ends before the next turn."""
    seen: list[str] = []
    for _ in range(turns):
        seen += [batch.kind for batch in machine.launch(plan)]
        for lane in LANES:
            machine.complete(lane)
    return seen


def first_rows(machine: Machine, plan: Plan) -> list[int]:
    """Whose prompts the next batch holds, when nothing else runs."""
    (batch,) = machine.launch(plan)
    return [row.request.rid for row in batch.rows if row.known_ids]

"""Random operations on the engine's scheduler and block pool, over a device that computes nothing.

Every output must be the undisturbed one, the invariants hold after every batch, and at the end nothing is held.
"""

import random
from typing import Any, Final

from bench.storm.machine import HYBRID, PLANS, VOCAB, Machine, expected_output, make_request
from rapidd.engine.request import LANES

HEADS: Final[tuple[list[int], ...]] = ([], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8])
"""Beginnings that prompts share: the prefix cache is hit, and waited for."""
MAX_LIVE: Final = 8


class Storm:
    """One machine, and what its requests must come to."""

    def __init__(self, seed: int) -> None:
        self.counts = dict.fromkeys(("admitted", "launched", "completed", "aborted", "preempted", "switched"), 0)
        self.machine = Machine(24, max_running=4, bound=8, max_model_len=32)
        self.wanted: dict[int, list[int]] = {}
        self._draw = random.Random(seed)
        self._plan = HYBRID

    def one(self) -> None:
        """One operation."""
        draw, machine, scheduler = self._draw, self.machine, self.machine.scheduler
        die, live = draw.random(), [request.rid for request in scheduler.requests]
        if die < 0.08 and len(live) < MAX_LIVE:
            self._admit()
        elif die < 0.5:
            self.counts["launched"] += len(machine.launch(self._plan))
        elif die < 0.96:
            self.counts["completed"] += machine.complete(draw.choice(LANES)) is not None
        elif die < 0.975 and live:
            victim = draw.choice(live)
            scheduler.abort(victim)
            del self.wanted[victim]
            self.counts["aborted"] += 1
        elif die < 0.99 and scheduler.running:
            scheduler._preempt(draw.choice(scheduler.running))
            self.counts["preempted"] += 1
        else:
            self._plan = draw.choice(PLANS)
            self.counts["switched"] += 1

    def _admit(self) -> None:
        draw = self._draw
        self.counts["admitted"] += 1
        rid = self.counts["admitted"]
        prompt = [*draw.choice(HEADS), *draw.choices(range(VOCAB), k=5)]
        request = make_request(rid, prompt, draw.randint(1, 12), draw.choice((0, 0, 0, 1)))
        self.machine.scheduler.add(request)
        self.wanted[rid] = expected_output(prompt, request.max_output)

    def end(self) -> list[str]:
        """Let the rest finish; what is wrong then."""
        self.machine.drain(HYBRID)
        scheduler = self.machine.scheduler
        outputs = self.machine.outputs
        wrong = sum(outputs.get(rid) != output for rid, output in self.wanted.items())
        held = {"blocks": scheduler.pool.num_used, "slots": scheduler.slots.num_used}
        return [f"{count} {what} are still held" for what, count in held.items() if count] + (
            [f"{wrong} requests have another output than undisturbed"] if wrong else []
        )


def run(operations: int, seed: int = 0) -> dict[str, Any]:
    """So many operations. Raises AssertionError, with the operation's number, where an invariant is broken."""
    storm = Storm(seed)
    for number in range(operations):
        try:
            storm.one()
        except AssertionError as error:
            error.add_note(f"operation {number} of seed {seed}")
            raise
    failures = storm.end()
    return {"operations": operations, **storm.counts, "failures": failures}

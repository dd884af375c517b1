"""Requests whose prompt is not wholly in batches yet, most urgent first: higher priority, then due sooner.

Counts their tokens along, so that a turn of the engine costs the same however many wait. Knows no lanes and no blocks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

from rapidd.engine.request import Request

GIVE_WAY_NS: Final = 30_000_000_000
"""How much later a prompt that missed its due time counts as due: long enough for a burst, and bounded."""


class Prompts:
    """``ordered`` is for reading; ``tokens``: still in no batch."""

    def __init__(self) -> None:
        self.ordered: list[Request] = []
        self.tokens = 0

    def add(self, request: Request) -> None:
        """A request that waits: nothing of it is in a batch."""
        insort(self.ordered, request, key=urgency)
        self.tokens += request.prefill_target - request.scheduled

    def remove(self, request: Request) -> None:
        """Its prompt is wholly in batches, or it ends, or it starts again."""
        index = bisect_left(self.ordered, urgency(request), key=urgency)
        assert self.ordered[index] is request
        del self.ordered[index]
        self.tokens -= request.prefill_target - request.scheduled

    def give_way(self, now_ns: int) -> None:
        """Who is past the due time lets those go first that can still be in time, once, for `GIVE_WAY_NS`."""
        while self.ordered and self.ordered[0].due_ns <= now_ns and not self.ordered[0].gave_way:
            request = self.ordered.pop(0)
            request.gave_way = True
            request.due_ns += GIVE_WAY_NS
            insort(self.ordered, request, key=urgency)

    def check(self, prompts: Iterable[Request]) -> None:
        """Raise AssertionError unless these are exactly ``prompts``, in order and counted right."""
        assert self.ordered == sorted(prompts, key=urgency)
        assert self.tokens == sum(r.prefill_target - r.scheduled for r in self.ordered)


def urgency(request: Request) -> tuple[int, int, int]:
    """Orders prompts; no two are equal."""
    return request.rank[0], request.due_ns, request.rid

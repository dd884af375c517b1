"""Requests whose prompt is not wholly in batches yet, most urgent first: due sooner, as bent by priority.

Counts their tokens along, so that a turn of the engine costs the same however many wait. Knows no lanes and no blocks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Final

from rapidd.engine.request import Request
from rapidd.policy.order import PRIORITY_NS
from rapidd.policy.plan import PromptTime

PROMPTS_SEEN: Final = 32
"""Prompts, most urgent first, whose due times count: the rest is due later or late already."""


class Prompts:
    """``ordered`` is for reading; ``tokens``: still in no batch.

    ``spared(request)``: tokens of a waiting one that need not be computed; null: nobody knows yet.
    """

    def __init__(self, spared: Callable[[Request], int | None]) -> None:
        self._spared = spared
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

    def give_way(self, now_ns: int, for_ns: int, time: PromptTime | None = None) -> None:
        """Who is past the due time lets those go first that can still be in time: counts as due ``for_ns`` later, once.

        With ``time``, what prompts take under the plan in force, also who is about to be: see `_spare`.
        """
        while self.ordered and self.ordered[0].due_ns <= now_ns and not self.ordered[0].gave_way:
            self._postpone(self.ordered[0], for_ns)
        if time is not None:
            for request in self._spare(now_ns, time):
                self._postpone(request, for_ns)

    def _spare(self, now_ns: int, time: PromptTime) -> list[Request]:
        """The fewest without which the others are in time, as predicted.

        In order of due times, whenever a prompt would be late the longest so far is left out (Moore and Hodgson): who
        has least left to compute, those who began included, stays. Nobody is left out for one of lower priority.
        """
        end_ns = float(now_ns)
        found: list[Request] = []
        may_yield: list[tuple[float, Request]] = []
        for request in self.ordered[:PROMPTS_SEEN]:
            spared = self._spared(request)
            if spared is None:
                break  # it and those behind it are judged in a later turn
            done = request.scheduled + spared
            takes_ns = 1e9 * time.seconds(request.prefill_target - done, done)
            end_ns += takes_ns
            if request.gave_way:
                continue
            may_yield.append((takes_ns, request))
            if end_ns > request.due_ns:
                no_higher = (one for one in may_yield if one[1].priority <= request.priority)
                longest = max(no_higher, key=itemgetter(0))  # of equal ones the one due first: it has least to spare
                may_yield.remove(longest)
                end_ns -= longest[0]
                found.append(longest[1])
        return found

    def _postpone(self, request: Request, by_ns: int) -> None:
        del self.ordered[bisect_left(self.ordered, urgency(request), key=urgency)]
        request.gave_way = True
        request.due_ns += by_ns
        insort(self.ordered, request, key=urgency)

    def check(self, prompts: Iterable[Request]) -> None:
        """Raise AssertionError unless these are exactly ``prompts``, in order and counted right."""
        assert self.ordered == sorted(prompts, key=urgency)
        assert self.tokens == sum(r.prefill_target - r.scheduled for r in self.ordered)


def urgency(request: Request) -> tuple[int, int]:
    """Orders prompts; no two are equal."""
    return request.due_ns - request.priority * PRIORITY_NS, request.rid

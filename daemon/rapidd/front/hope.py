"""Whether a request that comes now can have its first token in time: a prediction, for a counter and for admission.

What waits is taken in the order in which the engine computes it: by arrival, or by due times where the plan in force
says so, and who is late gives way then (`rapidd.engine.prompts`). Not known here: what running prompts have left, and
what the prefix cache has of any. Pure.
"""

from typing import Final, NamedTuple

from rapidctl.wire import Slo
from rapidd.config import PolicyConfig
from rapidd.front.journal import Journal, Stream
from rapidd.ipc import EngineState
from rapidd.policy.order import PRIORITY_NS, patience_ns

HOPELESS: Final = 2.0
"""Times the TTFT objective: predictions err."""


class Delay(NamedTuple):
    """How late a first token is predicted to be. ``tokens_first``: of prompts that wait and are computed before."""

    tokens_first: int
    late_s: float


class Order(NamedTuple):
    """In which the prompts that wait are computed."""

    slo: Slo
    by_deadline: bool
    give_way_s: float
    now_ns: int

    def turn_ns(self, stream: Stream) -> int:
        """Who has less goes first."""
        wanted = stream.template
        at_ns = stream.arrival_ns + patience_ns(wanted.slo_class)
        if self.by_deadline:
            at_ns += int(1e9 * self.slo.ttft_limit_s(stream.prompt_tokens))
            if at_ns <= self.now_ns:
                at_ns += int(1e9 * self.give_way_s)
        return at_ns - wanted.priority * PRIORITY_NS

    def tokens_before(self, stream: Stream, journal: Journal) -> int:
        """Of the prompts of ``journal`` that wait and go before ``stream``; what choices share is computed once."""
        mine_ns = self.turn_ns(stream)
        return sum(
            other.prompt_tokens
            for other in journal.streams.values()
            if any(choice.phase == "waiting" for choice in other.choices) and self.turn_ns(other) <= mine_ns
        )


def hopeless(
    stream: Stream, journal: Journal, slo: Slo, state: EngineState, policy: PolicyConfig, now_ns: int
) -> Delay | None:
    """The delay of a prompt that would miss its TTFT objective by far; null, too, while nothing can be predicted."""
    tokens_per_s = state.prefill_tokens_per_s
    limit_s = slo.ttft_limit_s(stream.prompt_tokens)
    if not tokens_per_s or journal.waiting_tokens + stream.prompt_tokens <= HOPELESS * limit_s * tokens_per_s:
        return None  # nearly always, and whoever goes first
    first = Order(slo, state.by_deadline, policy.give_way_s, now_ns).tokens_before(stream, journal)
    ttft_s = (first + stream.prompt_tokens) / tokens_per_s
    return Delay(first, ttft_s - limit_s) if ttft_s > HOPELESS * limit_s else None

"""One choice of one request inside the engine: its tokens, how far they are computed, and when it stops.

The scheduler knows one currency, tokens still to compute. A request has ``len(tokens)`` ids known to the host, and
``pending`` more that batches in flight will sample. All but the last of them are ``scheduled`` once it decodes:

    tokens      p p p p p p o o o            known ids (prompt, then output)
    pending                       ? ?        sampled by batches in flight, not yet seen by the host
    scheduled   ^^^^^^^^^^^^^^^^^^^          in some batch
    computed    ^^^^^^^^^^^^^^^^             in a batch that is done

Knows no lanes' inner life, no blocks' bookkeeping and no torch.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Literal

from rapidctl.wire import Phase, SloClass
from rapidd.policy.order import PRIORITY_NS, patience_ns

Lane = Literal["decode", "prefill"]
LANES: tuple[Lane, Lane] = ("decode", "prefill")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How this choice's tokens are chosen; see `rapidctl.wire.Sampling` for the definitions.

    ``stop_ids`` ends the output (end-of-sequence ids included, unless ignored); they are banned from the first
    ``min_tokens`` outputs.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    choice: int = 0
    min_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()
    logprobs: int | None = None


class Request:
    """State of one choice. ``rank`` orders requests by arrival, as bent by priority and class.

    A level of priority is worth `PRIORITY_NS` of waiting, a batch request ranks as if it had arrived
    `BATCH_PATIENCE_NS` later: others go first, but not for ever. ``due_ns`` is when its first token should be there;
    prompts may be computed in that order instead, bent likewise.
    """

    __slots__ = (
        "arrival_ns",
        "blocks",
        "cached",
        "computed",
        "due_ns",
        "flying",
        "flying_lane",
        "found",
        "gave_way",
        "generation",
        "hashes",
        "limit",
        "max_output",
        "preemptions",
        "prefill_start_ns",
        "prefill_target",
        "priority",
        "prompt_len",
        "published",
        "rank",
        "rid",
        "sampling",
        "scheduled",
        "slot",
        "spared",
        "tokens",
        "told",
    )

    def __init__(
        self,
        rid: int,
        prompt_ids: array[int],
        output_ids: array[int],
        *,
        max_output: int,
        sampling: SamplingParams,
        priority: int = 0,
        slo_class: SloClass = "interactive",
        arrival_ns: int = 0,
        due_ns: int | None = None,
    ) -> None:
        self.rid = rid
        self.tokens: array[int] = prompt_ids + output_ids
        self.prompt_len = len(prompt_ids)
        self.max_output = max_output
        self.limit = self.prompt_len + max_output
        """Tokens with which the output is complete."""
        self.sampling = sampling
        self.priority = priority
        patience = patience_ns(slo_class)
        self.rank = (arrival_ns + patience - priority * PRIORITY_NS, rid)
        self.arrival_ns = arrival_ns
        self.due_ns = (arrival_ns if due_ns is None else due_ns) + patience
        self.gave_way = bool(output_ids)
        """Whether it let others go first once, or must not: its stream has begun."""
        self.generation = 0
        """Bumped when work in flight becomes void (preempted, aborted, finished): its results are ignored."""
        self.slot = 0
        """Row of the device's token table; 0 while waiting."""
        self.blocks: list[int] = []
        """Rows in flight share it: it only grows, at its end; another list when all is taken from the request."""
        self.hashes: list[bytes] = []
        """Prefix hash of each full block of known tokens, extended as they are needed."""
        self.found = 0
        """Leading blocks that were in the prefix table when a waiting request was last looked at."""
        self.spared = 0
        """Tokens that a waiting request was found to have in the prefix cache, or soon, when it was last judged."""
        self.published = 0
        """Leading blocks that are in the prefix table."""
        self.scheduled = 0
        self.computed = 0
        self.flying = 0
        """Batches in flight that hold a row of this request (of this generation)."""
        self.flying_lane: Lane | None = None
        self.prefill_target = len(self.tokens)
        self.cached = 0
        self.preemptions = 0
        self.prefill_start_ns: int | None = None
        self.told = False
        """Whether the number of cached prompt tokens was reported."""

    @property
    def phase(self) -> Phase:
        """What an operator calls this request's situation."""
        if self.slot == 0:
            return "waiting"
        return "prefilling" if self.computed < self.prefill_target else "decoding"

    @property
    def is_prefill(self) -> bool:
        """Whether the next row is a prompt chunk; recomputation after preemption counts as prompt."""
        return self.scheduled < self.prefill_target

    @property
    def num_output(self) -> int:
        """Output tokens the host knows."""
        return len(self.tokens) - self.prompt_len

    @property
    def pending(self) -> int:
        """Tokens that batches in flight will sample: a decoding request's next row computes the last of them."""
        return 0 if self.is_prefill else self.scheduled + 1 - len(self.tokens)

    def can_join(self, lane: Lane) -> bool:
        """Work in flight on the other lane must be seen done first: no stream ever waits for the other's event."""
        return self.flying == 0 or self.flying_lane == lane

    def restart(self) -> None:
        """Forget everything computed; what is known is computed again, and no output is sent twice."""
        self.generation += 1
        self.slot = self.scheduled = self.computed = self.flying = self.published = 0
        self.flying_lane = None
        self.blocks = []
        self.prefill_target = len(self.tokens)
        self.gave_way = self.gave_way or self.num_output > 0

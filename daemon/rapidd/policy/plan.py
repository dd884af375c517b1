"""The currency of the policy: a `Plan`, and the `State` it is made from. Plain frozen data."""

import math
from typing import Final, Literal

from msgspec import Struct

from rapidctl.wire import Mode

TURNS: Final[frozenset[Mode]] = frozenset({"serial", "hybrid"})
"""Modes in which only one lane runs at a time."""
WorkKind = Literal["decode", "prefill", "mixed"]
"""Of a batch: rows that decode, prompt tokens, or both."""
Chunk = int | Literal["all"] | None
"""Prompt tokens a batch; "all": a whole prompt without a decode step between (serial); None: bounded by time only;
0: none."""


class PromptTime(Struct, frozen=True):
    """What computing a prompt is predicted to take under a plan: seconds a token, and more for each token before it."""

    token_s: float
    context_s: float

    def seconds(self, tokens: int, context: int) -> float:
        """Of ``tokens`` behind ``context`` computed ones."""
        return tokens * (self.token_s + self.context_s * (context + 0.5 * tokens))


class Plan(Struct, frozen=True):
    """What the lanes do from their next batch on.

    serial   one chunk, then one decode step, each on all units
    hybrid   decode rows and a chunk in one batch, on all units
    shared   both lanes at once, each on all units; decode has the higher priority
    split    both lanes at once on disjoint units
    """

    mode: Mode
    decode_units: int
    prefill_units: int
    chunk: Chunk
    reason: str = ""
    by_deadline: bool = False
    """Prompts in the order in which their first tokens are due, instead of arrival."""
    prompt_time: PromptTime | None = None
    """Null: nobody predicted it."""
    least_bad: bool = False
    """No plan keeps the ITL objective while prompts are computed, and they are all the same."""

    def same_work(self, other: "Plan") -> bool:
        """Equal but for the reason."""
        return (self.mode, self.decode_units, self.prefill_units, self.chunk) == (
            other.mode,
            other.decode_units,
            other.prefill_units,
            other.chunk,
        )

    def same_place(self, other: "Plan") -> bool:
        """As `same_units`, and both paused or neither."""
        return self.same_units(other) and self.paused == other.paused

    def same_units(self, other: "Plan") -> bool:
        """The same mode on the same units; chunks may differ."""
        return (self.mode, self.decode_units) == (other.mode, other.decode_units)

    @property
    def paused(self) -> bool:
        """Whether prompts wait for decode rows that have the device for themselves."""
        return self.mode == "hybrid" and self.chunk == 0

    def describe(self) -> str:
        """As an operator writes it: ``split 1/1``, ``hybrid:256``, ``serial:all``."""
        units = f" {self.decode_units}/{self.prefill_units}" if self.mode == "split" else ""
        chunk = "" if self.chunk is None else f":{self.chunk}"
        return f"{self.mode}{units}{chunk}"


class State(Struct, frozen=True, kw_only=True):
    """What a policy may look at: the device, the work, the objective, and the plan in force with its age.

    Tokens a second, seconds. What only some policies need has a default that says "nothing known".
    """

    units_total: int
    splits: tuple[int, ...]
    """Legal decode units of split mode; empty when the device cannot be partitioned."""
    num_decoding: int
    prefill_tokens: int
    """Prompt tokens still to compute, of requests that are prefilling or waiting."""
    running: Plan | None
    running_age_s: float
    """Since mode or units changed, or prompts were paused or went on."""
    running_moved_s: float = math.inf
    """Since mode or units changed."""
    prefill_running: bool = False
    """Whether a chunk is on the prefill lane; its tokens are no longer counted in `prefill_tokens`."""
    decode_tokens: int = 0
    """Tokens of context that a decode step reads, all rows together."""
    context: int = 0
    """Tokens before the next chunk of the prompt that is first in line."""
    needed_tokens_per_s: float = 0.0
    """The slowest prefill that still gives every prompt its first token in time, of those that are not late already."""
    short_share: float = 0.0
    """Of the requests that finished lately, those so short that their every gap counts against the objective."""
    itl_slo_s: float = 0.05
    max_chunk_s: float = 0.1
    max_chunk_tokens: int = 2048
    """Of the device, or what an out-of-memory batch left of them."""
    running_rows: int = 0
    """`num_decoding` when the plan in force was made."""
    running_backlog: bool = False
    """Whether prompts waited when the plan in force was made."""

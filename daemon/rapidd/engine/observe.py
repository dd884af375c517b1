"""What a policy sees of the scheduler: a `State`, in time that does not grow with the queue. No torch, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from rapidctl.wire import Slo
from rapidd.engine.prompts import PROMPTS_SEEN
from rapidd.engine.request import Request
from rapidd.engine.scheduler import Scheduler
from rapidd.policy.override import Control
from rapidd.policy.plan import State

SOON_S: Final = 0.01
"""Less time than this to a due time is too late."""


class Limits(Struct, frozen=True, kw_only=True):
    """What holds for every plan of an engine."""

    slo: Slo
    max_chunk_s: float
    max_chunk_tokens: int
    give_way_s: float
    """`policy.give-way-s`."""

    @property
    def itl_slo_s(self) -> float:
        """The objective for decode steps."""
        return self.slo.itl_s

    @property
    def give_way_ns(self) -> int:
        """For which a prompt that cannot be in time lets others go first; 0: not at all."""
        return int(self.give_way_s * 1e9)

    def due_ns(self, arrival_ns: int, prompt_tokens: int) -> int:
        """When the first token of a request is due."""
        return arrival_ns + int(self.slo.ttft_limit_s(prompt_tokens) * 1e9)


def policy_state(scheduler: Scheduler, control: Control, limits: Limits, now_ns: int) -> State:
    """The state at ``now_ns``."""
    prompts = scheduler.prompts[:PROMPTS_SEEN]
    return State(
        units_total=control.table.units_total,
        splits=control.table.splits,
        num_decoding=scheduler.num_decoding,
        prefill_tokens=scheduler.prefill_tokens,
        running=control.plan,
        running_age_s=(now_ns - control.place_since_ns) / 1e9,
        running_moved_s=(now_ns - control.moved_since_ns) / 1e9,
        prefill_running=scheduler.in_flight("prefill"),
        decode_tokens=scheduler.decode_tokens,
        context=scheduler.context,
        needed_tokens_per_s=needed_tokens_per_s(prompts, now_ns),
        short_share=scheduler.short_share,
        itl_slo_s=limits.itl_slo_s,
        max_chunk_s=limits.max_chunk_s,
        max_chunk_tokens=scheduler.limited(limits.max_chunk_tokens),
        running_rows=control.place_rows,
        running_backlog=control.place_backlog,
    )


def needed_tokens_per_s(prompts: Sequence[Request], now_ns: int) -> float:
    """The slowest rate at which ``prompts``, computed in this order, end by their due times; late ones left out."""
    tokens = 0
    needed = 0.0
    for request in prompts:
        left_s = (request.due_ns - now_ns) / 1e9
        if left_s > SOON_S and not request.gave_way:
            tokens += request.prefill_target - request.scheduled - request.spared
            needed = max(needed, tokens / left_s)
    return needed

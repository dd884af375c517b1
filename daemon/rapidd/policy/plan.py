"""The currency of the policy: a `Plan`, and the `State` it is made from. Plain frozen data."""

from typing import Literal

from msgspec import Struct

from rapidctl.wire import Mode

Chunk = int | Literal["all"] | None
"""Prompt tokens a batch; "all": a whole prompt without a decode step between (serial); None: bounded by time only."""


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

    def same_work(self, other: "Plan") -> bool:
        """Equal but for the reason."""
        return (self.mode, self.decode_units, self.prefill_units, self.chunk) == (
            other.mode,
            other.decode_units,
            other.prefill_units,
            other.chunk,
        )

    def describe(self) -> str:
        """As an operator writes it: ``split 1/1``, ``hybrid:256``, ``serial:all``."""
        units = f" {self.decode_units}/{self.prefill_units}" if self.mode == "split" else ""
        chunk = "" if self.chunk is None else f":{self.chunk}"
        return f"{self.mode}{units}{chunk}"


class State(Struct, frozen=True, kw_only=True):
    """What a policy may look at."""

    units_total: int
    splits: tuple[int, ...]
    """Legal decode units of split mode; empty when the device cannot be partitioned."""
    num_decoding: int
    num_prefilling: int
    num_waiting: int
    prefill_tokens: int
    """Prompt tokens still to compute, of requests that are prefilling or waiting."""
    running: Plan | None
    running_age_s: float

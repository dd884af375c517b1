"""What a lane executes: rows of requests, as plain data.

No tensor and no device in here: only a lane's runner makes tensors, so that one scheduler can feed several
runners the same batch. Rows keep what they need; a request may move on while its row is in flight.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from msgspec import Struct

from rapidctl.wire import Mode
from rapidd.engine.request import Lane, Request, SamplingParams
from rapidd.policy.plan import WorkKind


class Row(Struct, frozen=True, gc=False):
    """Tokens ``[start, start + count)`` of one request. One is made for every token decoded: hence a msgspec struct.

    The runner first writes ``known_ids`` to the device's token table at ``[known_start, ...)`` of ``slot``, then
    reads the row's input ids from that table: a decode row's id may have been sampled there by a batch whose
    result the host has not seen yet. ``samples``: the last token's logits yield the next token.
    """

    request: Request
    generation: int
    slot: int
    start: int
    count: int
    blocks: list[int]
    """The request's own: do not change it. What lies behind this row's tokens is of later rows."""
    samples: bool
    known_start: int
    known_ids: array[int]
    prompt_len: int
    sampling: SamplingParams


class Batch(Struct, frozen=True):
    """Rows for one lane on ``units`` compute units, decode rows first. ``number`` counts the lane's batches from 1."""

    number: int
    lane: Lane
    units: int
    mode: Mode
    rows: list[Row]
    num_decode: int
    num_prefill_tokens: int
    context: int
    """Tokens already in the cache, summed over the prefill rows: what their attention reads."""

    @property
    def num_tokens(self) -> int:
        """Of all rows."""
        return self.num_decode + self.num_prefill_tokens

    @property
    def kind(self) -> WorkKind:
        """decode, prefill or mixed: whom the time of this batch is attributed to."""
        if self.num_prefill_tokens == 0:
            return "decode"
        return "mixed" if self.num_decode else "prefill"


@dataclass(slots=True)
class BatchResult:
    """What came out of a batch, in the order of its rows that sample.

    ``failed``: indices (among sampling rows) whose logits were not finite. ``error``: the whole batch failed.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[tuple[float, list[tuple[int, float]]] | None] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    error: BaseException | None = None
    started_ns: int = 0
    ended_ns: int = 0
    launch_ns: int = 0
    """Host time that a thread of the lane took to launch it; 0 where the caller of `Stream.submit` did."""

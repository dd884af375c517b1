"""What settings mean that are not given, by kind of device. Imports no torch: the simulator asks too."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from rapidd.policy.tiles import CHUNK_ROWS

UNBOUNDED: Final = 1 << 62
CPU_CONTEXT: Final = 8192
"""Default bound of the context on a CPU: longer prompts would take minutes."""
DEPTH: Final = 2
"""Batches in flight a lane: one runs while the next is queued behind it."""
WARMUP_OUTPUT: Final = 3
"""Tokens of the warm-up's request."""
WARMUP_CACHE_TOKENS: Final = 1 + WARMUP_OUTPUT
"""A KV cache that holds fewer has no room for the shortest one."""


class Defaults(Struct, frozen=True, kw_only=True):
    """What settings mean that are not given, and bounds that nobody sets."""

    block_tokens: int
    max_batch_requests: int
    max_context: int = UNBOUNDED
    max_chunk_s: float
    lone_chunk_s: float | None = None
    """Of the chunk that ends the prompt of a request that is alone; null: as others."""
    max_chunk_tokens: int = UNBOUNDED
    """Memory for activations is there for so many prompt tokens a batch."""
    max_prompts: int = UNBOUNDED
    """Of a batch."""
    itl_slo_s: float
    warmup_tokens: int
    """Of the prompt whose speed counts."""
    prefill_depth: int = DEPTH
    """Batches in flight on the prefill lane."""
    warmup_tails: tuple[int, ...] = ()
    """Lengths of shorter prompts, for which other kernels are chosen; they must be made before serving too."""


CPU_DEFAULTS: Final = Defaults(
    block_tokens=16,
    max_batch_requests=64,
    max_context=CPU_CONTEXT,
    max_chunk_s=1.0,
    lone_chunk_s=2.5,
    itl_slo_s=0.3,
    warmup_tokens=256,
    prefill_depth=1,  # a chunk takes far longer than forming the next one
)
GPU_DEFAULTS: Final = Defaults(
    block_tokens=64,
    max_batch_requests=256,
    max_chunk_s=0.1,
    max_chunk_tokens=2048,
    max_prompts=CHUNK_ROWS,  # more are launched kernel by kernel, which takes longer than two graphs
    itl_slo_s=0.05,
    warmup_tokens=2048,
    warmup_tails=(128, 64, 16),
)

# ruff: noqa: N803 (constants of a Triton kernel are upper case)
"""What attention leaves where several programs share a query's keys, and how that is merged.

A piece is [QUERIES * (PADDED + 2)] float32 of the workspace: values [QUERIES, PADDED] relative to a greatest score,
then these scores, then the sums of weights. Merging takes several pieces at a time, so that their loads are in flight
together: one after another they cost a memory's latency each (measured: 13 us for 16 of them, of a step's 140 a layer).
"""

import triton
import triton.language as tl

BASE_2: float = 1.4426950408889634
"""log2(e): scores are scaled so that 2^x serves for e^x."""


@triton.jit
def merge_some(
    parts, slots, there, queries, dims, best, weight, total,
    QUERIES: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Add the pieces in ``slots`` [P] (where ``there`` [P]) of some queries [Q] to their sums so far.

    best, weight [Q] and total [Q, PADDED] start as -inf, 0 and 0; the first call has a piece that is there.
    """
    part = parts + slots.to(tl.int64)[:, None] * (QUERIES * (PADDED + 2))
    exists = there[:, None]
    part_best = tl.load(part + QUERIES * PADDED + queries[None, :], mask=exists, other=float("-inf"))
    part_weight = tl.load(part + QUERIES * (PADDED + 1) + queries[None, :], mask=exists, other=0.0)
    at = part[:, :, None] + queries[None, :, None] * PADDED + dims[None, None, :]
    values = tl.load(at, mask=exists[:, :, None], other=0.0)
    new = tl.maximum(best, tl.max(part_best, 0))
    shares = tl.exp2(part_best - new[None, :])
    old_scale = tl.exp2(best - new)
    weight = weight * old_scale + tl.sum(part_weight * shares, 0)
    total = total * old_scale[:, None] + tl.sum(values * shares[:, :, None], 0)
    return new, weight, total

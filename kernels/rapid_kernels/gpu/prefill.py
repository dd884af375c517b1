# ruff: noqa: N803, N806 (constants of a Triton kernel are upper case)
"""Attention of prompt chunks over the paged cache: keys and values are read where they lie.

A program attends to one piece of a tile, as `rapid_kernels.gpu.prompt_plan` cuts them: it walks the row's blocks from
the piece's first key, or the oldest that a window lets it see, to the last. Whole tiles start before pieces, and of a
row the tiles with the most keys first.

Contract: the chunks' own keys and values are cached already. Only the tokens of a row are read; tokens of no row get no
result. Numerics: products in the cache's type, softmax with its running maximum and sums in float32; a token's result
depends on the plan, never on timing. No program waits for another. One call on one stream at a time per `Workspace`.
Graph-safe: only the batch's size counts on the host.
Method: arXiv 2205.14135, over blocks as in arXiv 2309.06180.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_kernels.gpu.heads import padded_sizes
from rapid_kernels.gpu.pieces import BASE_2
from rapid_kernels.gpu.prompt_plan import ENTRY, PromptPlan, merge_pieces, require_parts
from rapid_kernels.gpu.workspace import Workspace
from rapid_kernels.layout import Ragged


@dataclass(frozen=True, slots=True)
class PromptTile:
    """How one launch cuts its work."""

    queries: int = 64
    """Query vectors a tile: tokens times the heads of a group, padded to a power of two."""
    keys: int = 64
    """Keys a step, at most a block's."""
    stages: int = 3
    """Of the pipeline: keys and values of (stages + 1) / 2 steps are held, the places of the others are read ahead."""
    warps: int = 4


@triton.jit
def _walk(
    query, best, weight, total, kv, table, begin, end, position, length, window, head, scale,
    KV_HEADS: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr, KEYS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    STAGES: tl.constexpr, MASKED: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Attend to the key tiles [begin, end).

    For MASKED: ``position`` [QUERIES] of each query's token behind the first key; ``length``: so many keys the tile's
    last token sees.
    """
    TOKEN: tl.constexpr = 2 * KV_HEADS * DIM
    keys = tl.arange(0, KEYS)
    dims = tl.arange(0, PADDED)
    for step in tl.range(begin, end, num_stages=STAGES):
        first = step * KEYS
        place = tl.load(table + first // BLOCK_TOKENS) * (BLOCK_TOKENS // KEYS) + step % (BLOCK_TOKENS // KEYS)
        at = kv + place.to(tl.int64) * (KEYS * TOKEN) + head * DIM + keys[:, None] * TOKEN + dims[None, :]
        inside = (dims < DIM)[None, :]
        if MASKED:
            inside = inside & (first + keys < length)[:, None]
        key = tl.load(at, mask=inside, other=0.0)
        value = tl.load(at + KV_HEADS * DIM, mask=inside, other=0.0)
        scores = tl.dot(query, key.T)
        if MASKED:
            behind = position[:, None] - (first + keys)[None, :]
            seen = (behind >= 0) & (behind < window) if WINDOW else behind >= 0
            scores = tl.where(seen, scores, float("-inf"))
        best, old = tl.maximum(best, tl.max(scores, 1) * scale), best
        reference = best
        if WINDOW:  # which may hide all of a tile's keys from a query before it has seen any
            reference = tl.where(best == float("-inf"), 0.0, best)
        shares = tl.exp2(scores * scale - reference[:, None])
        old_scale = tl.exp2(old - reference)
        weight = weight * old_scale + tl.sum(shares, 1)
        total = tl.dot(shares.to(value.dtype), value, total * old_scale[:, None])
    return best, weight, total


@triton.jit(do_not_specialize=["table_stride", "window"])
def prompt_attention_kernel(
    q,  # [T, KV_HEADS, GROUP, DIM], tokens q_stride apart
    kv,  # [slots, 2, KV_HEADS, DIM]
    out,  # [T, KV_HEADS, GROUP, DIM]
    block_tables,  # [rows, table_stride] int32
    tiles,  # [1 + N, 8] int32
    parts,  # [most_cut, KV_HEADS, QUERIES * (PADDED + 2)] float32: values, maxima, weights
    table_stride,
    q_stride,
    window,
    scale,  # of the scores, in base 2
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
    WINDOW: tl.constexpr,
    CUT: tl.constexpr,
):
    """Grid: N * KV_HEADS. HEADS, PADDED: GROUP and DIM padded; TOKENS * HEADS queries a tile. One piece without CUT."""
    QUERIES: tl.constexpr = TOKENS * HEADS
    head = tl.program_id(0) % KV_HEADS
    tile = tiles + (1 + tl.program_id(0) // KV_HEADS) * ENTRY
    first = tl.load(tile)
    count = tl.load(tile + 1)
    if count == 0:
        return
    oldest = tl.load(tile + 2)
    table = block_tables + tl.load(tile + 3).to(tl.int64) * table_stride + tl.load(tile + 4)
    length = tl.load(tile + 5)
    queries = tl.arange(0, QUERIES)
    token = queries // HEADS
    dims = tl.arange(0, PADDED)
    inside = ((token < count) & (queries % HEADS < GROUP))[:, None] & (dims < DIM)[None, :]
    place = (head * GROUP + queries % HEADS)[:, None] * DIM + dims[None, :]
    query = tl.load(q + (first + token).to(tl.int64)[:, None] * q_stride + place, mask=inside, other=0.0)

    best = tl.full((QUERIES,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((QUERIES,), dtype=tl.float32)
    total = tl.zeros((QUERIES, PADDED), dtype=tl.float32)
    position = oldest + token
    end = (length + KEYS - 1) // KEYS
    if WINDOW:
        begin = tl.maximum(oldest - window + 1, 0) // KEYS
    else:
        # All of the tile's tokens see the key tiles before this one whole.
        begin = tl.minimum((oldest + 1) // KEYS, length // KEYS)
        best, weight, total = _walk(
            query, best, weight, total, kv, table, 0, begin, position, length, window, head, scale,
            KV_HEADS, DIM, PADDED, KEYS, BLOCK_TOKENS, STAGES, False, WINDOW,
        )  # fmt: skip
    best, weight, total = _walk(
        query, best, weight, total, kv, table, begin, end, position, length, window, head, scale,
        KV_HEADS, DIM, PADDED, KEYS, BLOCK_TOKENS, STAGES, True, WINDOW,
    )  # fmt: skip
    pieces = tl.load(tile + 7) if CUT else 1
    if pieces > 1:
        slot = tl.program_id(0) - tl.load(tiles) * KV_HEADS
        part = parts + slot.to(tl.int64) * (QUERIES * (PADDED + 2))
        tl.store(part + queries[:, None] * PADDED + dims[None, :], total)
        tl.store(part + QUERIES * PADDED + queries, best)
        tl.store(part + QUERIES * (PADDED + 1) + queries, weight)
    else:
        to = out + (first + token).to(tl.int64)[:, None] * (KV_HEADS * GROUP * DIM) + place
        tl.store(to, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)


def prompt_attention(
    q: Tensor,
    kv: Tensor,
    ragged: Ragged,
    plan: PromptPlan,
    tile: PromptTile,
    workspace: Workspace,
    window: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Causal attention of the planned rows' tokens q [T, H, D], heads contiguous: [T, H * D]. Scale 1/sqrt(D).

    In ``out`` if given.

    kv [slots, 2, K, D] of one layer. A token sees its row's tokens up to itself, the last ``window`` of them if given.
    Raises ValueError for a window over a plan that may cut tiles.
    """
    if window is not None and plan.cut:
        raise ValueError("tiles are not cut behind a window: plan them with wave=0")
    tokens, heads, dim = q.shape
    kv_heads = kv.shape[2]
    group = heads // kv_heads
    padded_heads, padded = padded_sizes(group, dim)
    require_parts(plan, workspace, kv_heads, plan.tile_tokens * padded_heads, padded)
    if out is None:
        out = torch.empty((tokens, heads * dim), dtype=q.dtype, device=q.device)
    prompt_attention_kernel[(plan.most * kv_heads,)](
        q, kv, out, ragged.block_tables, plan.tiles, workspace.parts, ragged.block_tables.stride(0), q.stride(0),
        window or 1 << 30, dim**-0.5 * BASE_2,
        kv_heads, group, dim, padded_heads, padded, plan.tile_tokens, min(tile.keys, ragged.block_tokens),
        ragged.block_tokens, tile.stages, window is not None, plan.cut,
        num_warps=tile.warps,
    )  # fmt: skip
    merge_pieces(out, plan, workspace, kv_heads, group, dim)
    return out

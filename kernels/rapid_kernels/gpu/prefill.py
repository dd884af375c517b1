# ruff: noqa: N803, N806 (constants of a Triton kernel are upper case)
"""Attention of prompt chunks over the paged cache: keys and values are read where they lie.

A tile is the query heads of one KV head for a few consecutive tokens of one row, so that each key is read once for all
of them. It walks the row's blocks from the oldest token it sees to its own last one. Which tiles there are is planned
on the device, once a batch, and serves every layer; those with the most keys start first.

Contract: the chunks' own keys and values are cached already. Only the tokens of a row are read; tokens of no row get no
result. Numerics: products in the cache's type, softmax with its running maximum and sums in float32; a token's result
depends on neither timing nor units. No program waits for another. Graph-safe: only the batch's size counts on the host.
Method: arXiv 2205.14135, over blocks as in arXiv 2309.06180.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_kernels.layout import Ragged

BASE_2: float = 1.4426950408889634
"""log2(e): scores are scaled so that 2^x serves for e^x."""
MAX_GROUP = 16
MAX_HEAD_DIM = 256
ROWS = 64
"""That a program of the planning kernel looks at at once; there may be more."""


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


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """The tiles of a batch's rows behind its decode rows."""

    tile_tokens: int
    tiles: Tensor
    """[N, 4] int32 on the device: first token in the batch behind the decode rows, tokens, position of the first token
    in its sequence, row of the block table. As many as there may be: those behind the last have no tokens."""


@triton.jit(do_not_specialize=["first_row", "rows"])
def plan_prompts_kernel(
    query_start,  # [first_row + rows + 1] int32
    kv_lens,  # [first_row + rows] int32
    tiles,  # [N, 4] int32
    first_row,
    rows,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Fill a `PromptPlan`, last tile first: of one row, that is the one with the most keys. Grid: N."""
    total = 0
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        start = tl.load(query_start + first_row + each, mask=each < rows, other=0)
        end = tl.load(query_start + first_row + each + 1, mask=each < rows, other=0)
        total += tl.sum((end - start + TOKENS - 1) // TOKENS)
    tile = total - 1 - tl.program_id(0)
    row = 0
    index = 0
    before = 0
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        start = tl.load(query_start + first_row + each, mask=each < rows, other=0)
        end = tl.load(query_start + first_row + each + 1, mask=each < rows, other=0)
        counts = (end - start + TOKENS - 1) // TOKENS
        ends = before + tl.cumsum(counts)
        own = (tile < ends) & (tile >= ends - counts)
        row += tl.sum(tl.where(own, each, 0))
        index += tl.sum(tl.where(own, tile - ends + counts, 0))
        before += tl.sum(counts)
    start = tl.load(query_start + first_row + row)
    tokens = tl.load(query_start + first_row + row + 1) - start
    first = index * TOKENS
    inside = tile >= 0
    to = tiles + tl.program_id(0) * 4
    tl.store(to, tl.where(inside, start - first_row + first, 0))
    tl.store(to + 1, tl.where(inside, tl.minimum(tokens - first, TOKENS), 0))
    tl.store(to + 2, tl.where(inside, tl.load(kv_lens + first_row + row) - tokens + first, 0))
    tl.store(to + 3, first_row + row)


def make_prompt_plan(ragged: Ragged, tile_tokens: int) -> PromptPlan:
    """Of a batch that has chunk rows, by the lengths on the device: the host may know only the most there can be."""
    first_row = ragged.num_decode  # rows and tokens alike
    rows = ragged.num_rows - first_row
    most = (ragged.num_tokens - first_row) // tile_tokens + rows
    tiles = torch.empty((most, 4), dtype=torch.int32, device=ragged.block_tables.device)
    plan_prompts_kernel[(most,)](
        ragged.query_start, ragged.kv_lens, tiles, first_row, rows, tile_tokens, ROWS, num_warps=1
    )  # fmt: skip
    return PromptPlan(tile_tokens, tiles)


@triton.jit
def _walk(
    query, best, weight, total, kv, table, begin, end, position, length, window, head, scale,
    KV_HEADS: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr, KEYS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    STAGES: tl.constexpr, MASKED: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Attend to the key tiles [begin, end).

    For MASKED: ``position`` [QUERIES] of each query's token; ``length``: so many keys the tile's last token sees.
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
    tiles,  # [N, 4] int32
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
):
    """See the module. Grid: N * KV_HEADS; HEADS and PADDED are GROUP and DIM padded; TOKENS * HEADS queries a tile."""
    head = tl.program_id(0) % KV_HEADS
    tile = tiles + tl.program_id(0) // KV_HEADS * 4
    first = tl.load(tile)
    count = tl.load(tile + 1)
    oldest = tl.load(tile + 2)
    table = block_tables + tl.load(tile + 3).to(tl.int64) * table_stride
    queries = tl.arange(0, TOKENS * HEADS)
    token = queries // HEADS
    dims = tl.arange(0, PADDED)
    inside = ((token < count) & (queries % HEADS < GROUP))[:, None] & (dims < DIM)[None, :]
    place = (head * GROUP + queries % HEADS)[:, None] * DIM + dims[None, :]
    query = tl.load(q + (first + token).to(tl.int64)[:, None] * q_stride + place, mask=inside, other=0.0)

    best = tl.full((TOKENS * HEADS,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((TOKENS * HEADS,), dtype=tl.float32)
    total = tl.zeros((TOKENS * HEADS, PADDED), dtype=tl.float32)
    position = oldest + token
    end = (oldest + count + KEYS - 1) // KEYS
    if WINDOW:
        begin = tl.maximum(oldest - window + 1, 0) // KEYS
    else:
        begin = (oldest + 1) // KEYS  # all of the tile's tokens see the key tiles before this one whole
        best, weight, total = _walk(
            query, best, weight, total, kv, table, 0, begin, position, oldest + count, window, head, scale,
            KV_HEADS, DIM, PADDED, KEYS, BLOCK_TOKENS, STAGES, False, WINDOW,
        )  # fmt: skip
    best, weight, total = _walk(
        query, best, weight, total, kv, table, begin, end, position, oldest + count, window, head, scale,
        KV_HEADS, DIM, PADDED, KEYS, BLOCK_TOKENS, STAGES, True, WINDOW,
    )  # fmt: skip
    to = out + (first + token).to(tl.int64)[:, None] * (KV_HEADS * GROUP * DIM) + place
    tl.store(to, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)


def padded_sizes(group: int, dim: int) -> tuple[int, int]:
    """Heads of a group and head size, padded to powers of two. Raises ValueError for more than the kernels take."""
    if group > MAX_GROUP or dim > MAX_HEAD_DIM:
        raise ValueError(
            f"at most {MAX_GROUP} query heads a KV head and head size {MAX_HEAD_DIM}, not {group} and {dim}"
        )
    return int(triton.next_power_of_2(group)), max(16, int(triton.next_power_of_2(dim)))


def prompt_attention(
    q: Tensor, kv: Tensor, ragged: Ragged, plan: PromptPlan, tile: PromptTile, window: int | None = None
) -> Tensor:
    """Causal attention of the planned rows' tokens q [T, H, D], heads contiguous: [T, H * D]. Scale 1/sqrt(D).

    kv [slots, 2, K, D] of one layer. A token sees its row's tokens up to itself, the last ``window`` of them if given.
    """
    tokens, heads, dim = q.shape
    kv_heads = kv.shape[2]
    group = heads // kv_heads
    padded_heads, padded = padded_sizes(group, dim)
    out = torch.empty((tokens, heads * dim), dtype=q.dtype, device=q.device)
    prompt_attention_kernel[(len(plan.tiles) * kv_heads,)](
        q, kv, out, ragged.block_tables, plan.tiles, ragged.block_tables.stride(0), q.stride(0), window or 1 << 30,
        dim**-0.5 * BASE_2,
        kv_heads, group, dim, padded_heads, padded, plan.tile_tokens, min(tile.keys, ragged.block_tokens),
        ragged.block_tokens, tile.stages, window is not None,
        num_warps=tile.warps,
    )  # fmt: skip
    return out

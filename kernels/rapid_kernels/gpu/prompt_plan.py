# ruff: noqa: N803, N806 (constants of a Triton kernel are upper case)
"""How prompt chunks are cut for attention, and how what was cut is merged: the same for both kernels that attend.

A tile is the query heads of one KV head for a few consecutive tokens of one row, so that each key is read once for all
of them. Where a batch has far fewer tiles than the partition has room for, tiles behind long contexts are cut along
their keys into pieces (split-KV: arXiv 2311.01282): a program attends to one piece and leaves sums relative to its own
maximum, and a second, small launch merges the pieces of a tile in the order of their keys.

    tokens of a row   | cached ............................. | chunk |
    keys of a tile    | piece 0    | piece 1    | piece 2    . . |         cut between blocks, in equal shares

Planned on the device, once a batch, for every layer: the host knows only the most rows and tokens there can be. The
plan depends on the batch's lengths and on the number of pieces asked for, so a result never depends on timing.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_kernels.gpu.heads import padded_sizes
from rapid_kernels.gpu.pieces import merge_some
from rapid_kernels.gpu.workspace import Workspace
from rapid_kernels.layout import Ragged

ENTRY = tl.constexpr(8)
"""int32 numbers that describe a piece."""
ROWS = 64
"""That a program of the planning kernel looks at at once; there may be more."""
UNIT = 64
"""Keys, or a block's if those are more: pieces begin at multiples of so many."""
LEAST_UNITS = 4
"""A piece is at least so long. So each query of a tile, of at most 128 tokens, sees some of the first keys of each of
its pieces: kernels need not expect a query that has seen none."""
LEAST_PIECES = 3
"""Of a tile, or it is not worth cutting: two were no faster than one, or slower."""
MERGED_QUERIES, MERGED_PIECES = 4, 8
"""That a program of the merging kernel holds at once."""


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """The pieces of a batch's rows behind its decode rows. A tile that is not cut is one piece."""

    tile_tokens: int
    tiles: Tensor
    """[N, 8] int32 on the device, the pieces of a tile one after another: first token in the batch behind the decode
    rows, tokens, position of the first token behind the piece's first key, row of the block table, first block in it,
    keys that the tile's last token sees in the piece, number of the piece in its tile, pieces of the tile. As many as
    there may be: those behind the last have no tokens."""
    cut: bool
    """Whether a tile may have several pieces."""


@triton.jit
def _row_sizes(query_start, kv_lens, first_row, each, rows, TOKENS: tl.constexpr, UNIT: tl.constexpr):
    """For a block of rows: tiles, units of keys of the last tile, whole units of the first one."""
    start = tl.load(query_start + first_row + each, mask=each < rows, other=0)
    tokens = tl.load(query_start + first_row + each + 1, mask=each < rows, other=0) - start
    length = tl.load(kv_lens + first_row + each, mask=each < rows, other=0)
    tiles = (tokens + TOKENS - 1) // TOKENS
    length = tl.where(tokens > 0, length, 0)
    return tiles, (length + UNIT - 1) // UNIT, (length - tokens + tl.minimum(tokens, TOKENS)) // UNIT


@triton.jit
def _pieces(units, whole_units, spare, total_units, LEAST_UNITS: tl.constexpr):
    """Pieces of each of a row's tiles: ``spare`` ones more than there are tiles are shared out by the keys to read."""
    share = tl.maximum(spare, 0) * units // tl.maximum(total_units, 1)
    return 1 + tl.minimum(share, tl.maximum(whole_units // LEAST_UNITS - 1, 0))


@triton.jit(do_not_specialize=["first_row", "rows", "most_pieces"])
def plan_prompts_kernel(
    query_start,  # [first_row + rows + 1] int32
    kv_lens,  # [first_row + rows] int32
    tiles,  # [N, 8] int32
    first_row,
    rows,
    most_pieces,
    TOKENS: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    LEAST_UNITS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Fill a `PromptPlan`, last tile first: of one row, that is the one with the most keys. Grid: N.

    ``most_pieces``: tiles are cut into so many pieces altogether; 0: none is cut.
    """
    total_tiles = 0
    total_units = 0
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        counts, units, _ = _row_sizes(query_start, kv_lens, first_row, each, rows, TOKENS, UNIT)
        total_tiles += tl.sum(counts)
        total_units += tl.sum(counts * units)
    spare = most_pieces - total_tiles
    total = 0
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        counts, units, whole = _row_sizes(query_start, kv_lens, first_row, each, rows, TOKENS, UNIT)
        total += tl.sum(counts * _pieces(units, whole, spare, total_units, LEAST_UNITS))

    number = total - 1 - tl.program_id(0)
    row = 0
    in_row = 0
    pieces = 0
    before = 0
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        counts, units, whole = _row_sizes(query_start, kv_lens, first_row, each, rows, TOKENS, UNIT)
        of_tile = _pieces(units, whole, spare, total_units, LEAST_UNITS)
        ends = before + tl.cumsum(counts * of_tile)
        own = (number < ends) & (number >= ends - counts * of_tile)
        row += tl.sum(tl.where(own, each, 0))
        in_row += tl.sum(tl.where(own, number - ends + counts * of_tile, 0))
        pieces += tl.sum(tl.where(own, of_tile, 0))
        before += tl.sum(counts * of_tile)
    inside = number >= 0
    pieces = tl.maximum(pieces, 1)
    start = tl.load(query_start + first_row + row)
    tokens = tl.load(query_start + first_row + row + 1) - start
    first = in_row // pieces * TOKENS
    index = pieces - 1 - in_row % pieces
    position = tl.load(kv_lens + first_row + row) - tokens + first
    count = tl.minimum(tokens - first, TOKENS)
    length = position + count
    units = (length + UNIT - 1) // UNIT
    first_key = index * units // pieces * UNIT
    end = tl.minimum((index + 1) * units // pieces * UNIT, length)
    to = tiles + tl.program_id(0) * ENTRY
    tl.store(to, tl.where(inside, start - first_row + first, 0))
    tl.store(to + 1, tl.where(inside, count, 0))
    tl.store(to + 2, tl.where(inside, position - first_key, 0))
    tl.store(to + 3, first_row + row)
    tl.store(to + 4, tl.where(inside, first_key // BLOCK_TOKENS, 0))
    tl.store(to + 5, tl.where(inside, end - first_key, 0))
    tl.store(to + 6, tl.where(inside, index, 0))
    tl.store(to + 7, pieces)


def make_prompt_plan(ragged: Ragged, tile_tokens: int, most_pieces: int = 0) -> PromptPlan:
    """Of a batch that has chunk rows, by the lengths on the device: the host may know only the most there can be.

    ``tile_tokens``: at most 128. ``most_pieces``: what tiles may be cut into altogether, for the whole partition to
    work; where the host sees that there are tiles for more than a third of it, none is cut.
    """
    first_row = ragged.num_decode  # rows and tokens alike
    rows = ragged.num_rows - first_row
    full_tiles = (ragged.num_tokens - first_row) // tile_tokens
    cut = LEAST_PIECES * max(full_tiles, 1) <= most_pieces
    most = max(full_tiles + rows, most_pieces if cut else 0)
    tiles = torch.empty((most, ENTRY.value), dtype=torch.int32, device=ragged.block_tables.device)
    plan_prompts_kernel[(most,)](
        ragged.query_start, ragged.kv_lens, tiles, first_row, rows, most_pieces if cut else 0,
        tile_tokens, max(UNIT, ragged.block_tokens), ragged.block_tokens, LEAST_UNITS, ROWS, num_warps=1,
    )  # fmt: skip
    return PromptPlan(tile_tokens, tiles, cut)


@triton.jit
def merge_pieces_kernel(
    out,  # [T, KV_HEADS, GROUP, DIM]
    tiles,  # [N, 8] int32
    parts,  # [N, KV_HEADS, QUERIES * (PADDED + 2)] float32: values, maxima, weights
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Merge the cut tiles, AT_ONCE queries by PIECES pieces at a time. Grid: N * KV_HEADS.

    The programs of a tile's pieces share its queries.
    """
    QUERIES: tl.constexpr = TOKENS * HEADS
    entry = tl.program_id(0) // KV_HEADS
    head = tl.program_id(0) % KV_HEADS
    tile = tiles + entry * ENTRY
    pieces = tl.load(tile + 7)
    if pieces > 1:
        first = tl.load(tile)
        count = tl.load(tile + 1)
        index = tl.load(tile + 6)
        dims = tl.arange(0, PADDED)
        for begin in range(index * AT_ONCE, QUERIES, pieces * AT_ONCE):
            queries = begin + tl.arange(0, AT_ONCE)
            best = tl.full((AT_ONCE,), float("-inf"), dtype=tl.float32)
            weight = tl.zeros((AT_ONCE,), dtype=tl.float32)
            total = tl.zeros((AT_ONCE, PADDED), dtype=tl.float32)
            for chunk in range(0, pieces, PIECES):
                piece = chunk + tl.arange(0, PIECES)
                slot = (entry - index + piece) * KV_HEADS + head
                best, weight, total = merge_some(
                    parts, slot, piece < pieces, queries, dims, best, weight, total, QUERIES, PADDED
                )
            token = queries // HEADS
            of_group = queries % HEADS
            inside = ((token < count) & (of_group < GROUP))[:, None] & (dims < DIM)[None, :]
            at_token = out + (first + token).to(tl.int64)[:, None] * (KV_HEADS * GROUP * DIM)
            to = at_token + (head * GROUP + of_group)[:, None] * DIM + dims[None, :]
            tl.store(to, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)


def require_parts(plan: PromptPlan, workspace: Workspace, kv_heads: int, queries: int, padded: int) -> None:
    """Raise ValueError unless there is room for what the pieces leave."""
    if plan.cut:
        workspace.require(len(plan.tiles) * kv_heads * queries * (padded + 2))


def merge_pieces(out: Tensor, plan: PromptPlan, workspace: Workspace, kv_heads: int, group: int, dim: int) -> None:
    """Complete out [T, H * D] with the tiles that were cut; what the others have is left alone."""
    if plan.cut:
        padded_heads, padded = padded_sizes(group, dim)
        merge_pieces_kernel[(len(plan.tiles) * kv_heads,)](
            out, plan.tiles, workspace.parts, kv_heads, group, dim, padded_heads, padded, plan.tile_tokens,
            MERGED_QUERIES, MERGED_PIECES, num_warps=4,
        )  # fmt: skip

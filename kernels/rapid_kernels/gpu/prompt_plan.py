# ruff: noqa: N803, N806 (constants of a Triton kernel are upper case)
"""How prompt chunks are cut for attention, and how what was cut is merged: the same for both kernels that attend.

A tile is the query heads of one KV head for a few consecutive tokens of one row, so that each key is read once for all
of them. A partition runs so many tiles at a time, a wave; those that would not fill the last wave are cut along their
keys into pieces that do, where that is quicker (split-KV: arXiv 2311.01282; equal shares of all work: arXiv
2405.10480). A program attends to one piece and leaves sums relative to its own maximum, and a second, small launch
merges the pieces of a tile in the order of their keys.

    tokens of a row   | cached ............................. | chunk |
    keys of a tile    | piece 0    | piece 1    | piece 2    . . |         cut between blocks, in equal shares

Planned on the device, once a batch, for every layer: the host knows only the most rows and tokens there can be. The
plan depends on the batch's lengths and on the size of a wave, so a result never depends on timing.
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
MOST_WAVES = 2
"""That pieces take."""
WHOLE_WAVES = 3
"""From so many on of whole tiles what does not fill another weighs little."""
START_UNITS = 4
"""Of keys, in whose time a piece starts. This and the next three were measured on an H200."""
MERGE_UNITS, PIECES_A_UNIT = 10, 5
"""Likewise what merging takes, and how many pieces are written and read in a unit's time."""
DECODE_TOKENS = 32
"""That decode rows of the same batch read in a unit's time, for each tile of a wave."""
MERGING = 4
"""Programs of the merging kernel for each piece."""
FEW_PIECES = tl.constexpr(8)
"""Of a tile: a merging program holds four queries of two pieces at a time; of more, one query of sixteen."""


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """The pieces of a batch's rows behind its decode rows. A tile that is not cut is one piece."""

    tile_tokens: int
    tiles: Tensor
    """[1 + N, 8] int32 on the device: how many pieces are tiles that may not be cut; and the pieces, those first, those
    of a tile in turn: first token in the batch behind the decode rows, tokens, position of the first token behind the
    piece's first key, row of the block table, first block in it, keys that the tile's last token sees in the piece,
    number of the piece in its tile, pieces of the tile. As many as there may be: those behind the last have no tokens.
    """
    most_cut: int
    """So many at most may be of tiles that are cut; 0: none is."""

    @property
    def most(self) -> int:
        """Pieces that there may be."""
        return len(self.tiles) - 1

    @property
    def cut(self) -> bool:
        """Whether a tile may have several pieces."""
        return self.most_cut > 0


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


@triton.jit
def _spare(
    units, whole_units, tiles, total_units, wave, decode_tokens,
    LEAST_UNITS: tl.constexpr, WAVES: tl.constexpr, START: tl.constexpr, MERGE: tl.constexpr, A_UNIT: tl.constexpr,
    DECODE: tl.constexpr,
):  # fmt: skip
    """How many more pieces than ``tiles`` are best, by what the longest tile, of ``units``, takes in keys' time.

    Behind whole tiles for half a wave or less there is room to hide what the batch's decode rows read.
    """
    least = units + START
    shown = tl.where(2 * tiles <= wave, decode_tokens // tl.maximum(DECODE * wave, 1), 0)
    spare = 0
    for waves in tl.static_range(1, WAVES + 1):
        pieces = _pieces(units, whole_units, waves * wave - tiles, total_units, LEAST_UNITS)
        each = (units + pieces - 1) // pieces + START
        time = waves * each + MERGE + tiles * pieces // A_UNIT + shown
        better = (pieces > 1) & (time < least)
        spare = tl.where(better, waves * wave - tiles, spare)
        least = tl.where(better, time, least)
    return spare


@triton.jit
def _totals(query_start, kv_lens, first_row, rows, TOKENS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr):
    """Tiles of all rows, the units of keys they read, and the row with the most."""
    tiles = 0
    all_units = 0
    longest = tl.full((), -1, tl.int64)
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        counts, units, _ = _row_sizes(query_start, kv_lens, first_row, each, rows, TOKENS, UNIT)
        tiles += tl.sum(counts)
        all_units += tl.sum(counts * units)
        longest = tl.maximum(longest, tl.max(units.to(tl.int64) * 2147483648 + each))
    return tiles, all_units, (longest % 2147483648).to(tl.int32)


@triton.jit(do_not_specialize=["first_row", "rows", "wave"])
def plan_prompts_kernel(
    query_start,  # [first_row + rows + 1] int32
    kv_lens,  # [first_row + rows] int32
    tiles,  # [1 + N, 8] int32
    first_row,
    rows,
    wave,  # tiles that run at a time; 0: none is cut
    TOKENS: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    LEAST_UNITS: tl.constexpr,
    WAVES: tl.constexpr,
    START: tl.constexpr,
    MERGE: tl.constexpr,
    A_UNIT: tl.constexpr,
    DECODE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Fill a `PromptPlan`: whole tiles, then those that may be cut; of each the last tile first. Grid: N.

    With fewer tiles than a wave any may be cut; else as many as are more than whole waves, of the row with most keys.
    """
    all_tiles, all_units, longest = _totals(query_start, kv_lens, first_row, rows, TOKENS, UNIT, ROWS)
    of_longest, most_units, whole_units = _row_sizes(query_start, kv_lens, first_row, longest, rows, TOKENS, UNIT)
    any_may = all_tiles < wave
    may = tl.where(any_may, all_tiles, tl.minimum(all_tiles % tl.maximum(wave, 1), of_longest))
    may_units = tl.where(any_may, all_units, may * most_units)
    decode_tokens = 0
    for begin in range(0, first_row, ROWS):
        each = begin + tl.arange(0, ROWS)
        decode_tokens += tl.sum(tl.load(kv_lens + each, mask=each < first_row, other=0))
    spare = _spare(
        most_units, whole_units, may, may_units, wave, decode_tokens,
        LEAST_UNITS, WAVES, START, MERGE, A_UNIT, DECODE,
    )  # fmt: skip

    pieces = 0
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        counts, units, whole = _row_sizes(query_start, kv_lens, first_row, each, rows, TOKENS, UNIT)
        cut = tl.where(any_may, counts, tl.where(each == longest, may, 0))
        pieces += tl.sum(cut * _pieces(units, whole, spare, may_units, LEAST_UNITS))
    left = all_tiles - may
    if tl.program_id(0) == 0:
        tl.store(tiles, left)

    uncut = tl.program_id(0) < left
    number = tl.where(uncut, left, left + pieces) - 1 - tl.program_id(0)
    row = 0
    in_row = 0
    of_own = 0
    skipped = 0
    before = 0
    for begin in range(0, rows, ROWS):
        each = begin + tl.arange(0, ROWS)
        counts, units, whole = _row_sizes(query_start, kv_lens, first_row, each, rows, TOKENS, UNIT)
        cut = tl.where(any_may, counts, tl.where(each == longest, may, 0))
        of_tile = tl.where(uncut, 1, _pieces(units, whole, spare, may_units, LEAST_UNITS))
        of_row = tl.where(uncut, counts - cut, cut) * of_tile
        ends = before + tl.cumsum(of_row)
        own = (number < ends) & (number >= ends - of_row)
        row += tl.sum(tl.where(own, each, 0))
        in_row += tl.sum(tl.where(own, number - ends + of_row, 0))
        of_own += tl.sum(tl.where(own, of_tile, 0))
        skipped += tl.sum(tl.where(own & uncut, cut, 0))
        before += tl.sum(of_row)
    of_own = tl.maximum(of_own, 1)
    _store_piece(
        tiles + (1 + tl.program_id(0)) * ENTRY, query_start, kv_lens, first_row, row, skipped + in_row // of_own,
        in_row, of_own, number >= 0, TOKENS, UNIT, BLOCK_TOKENS,
    )  # fmt: skip


@triton.jit
def _store_piece(
    to, query_start, kv_lens, first_row, row, tile, in_row, pieces, inside,
    TOKENS: tl.constexpr, UNIT: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
):  # fmt: skip
    """Write an entry: of a row's tile, of which the last piece comes first. ``inside``: there is one."""
    start = tl.load(query_start + first_row + row)
    tokens = tl.load(query_start + first_row + row + 1) - start
    first = tile * TOKENS
    index = pieces - 1 - in_row % pieces
    position = tl.load(kv_lens + first_row + row) - tokens + first
    count = tl.minimum(tokens - first, TOKENS)
    length = position + count
    units = (length + UNIT - 1) // UNIT
    first_key = index * units // pieces * UNIT
    end = tl.minimum((index + 1) * units // pieces * UNIT, length)
    tl.store(to, tl.where(inside, start - first_row + first, 0))
    tl.store(to + 1, tl.where(inside, count, 0))
    tl.store(to + 2, tl.where(inside, position - first_key, 0))
    tl.store(to + 3, first_row + row)
    tl.store(to + 4, tl.where(inside, first_key // BLOCK_TOKENS, 0))
    tl.store(to + 5, tl.where(inside, end - first_key, 0))
    tl.store(to + 6, tl.where(inside, index, 0))
    tl.store(to + 7, pieces)


def make_prompt_plan(ragged: Ragged, tile_tokens: int, wave: int = 0) -> PromptPlan:
    """Of a batch that has chunk rows, by the lengths on the device: the host may know only the most there can be.

    ``tile_tokens``: at most 128. ``wave``: tiles that the partition runs at a time, all KV heads of one counted once;
    0: none is cut, nor is one where there may be tiles for ``WHOLE_WAVES``.
    """
    first_row = ragged.num_decode  # rows and tokens alike
    rows = ragged.num_rows - first_row
    full_tiles = (ragged.num_tokens - first_row) // tile_tokens
    most_cut = MOST_WAVES * wave if full_tiles < WHOLE_WAVES * wave else 0
    most = full_tiles + rows + most_cut
    tiles = torch.empty((1 + most, ENTRY.value), dtype=torch.int32, device=ragged.block_tables.device)
    plan_prompts_kernel[(most,)](
        ragged.query_start, ragged.kv_lens, tiles, first_row, rows, wave if most_cut else 0,
        tile_tokens, max(UNIT, ragged.block_tokens), ragged.block_tokens, LEAST_UNITS, MOST_WAVES, START_UNITS,
        MERGE_UNITS, PIECES_A_UNIT, DECODE_TOKENS, ROWS, num_warps=1,
    )  # fmt: skip
    return PromptPlan(tile_tokens, tiles, most_cut)


@triton.jit
def _merge_tile(
    out, parts, slot, first, count, pieces, share, head,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, HEADS: tl.constexpr, PADDED: tl.constexpr,
    QUERIES: tl.constexpr, PROGRAMS: tl.constexpr, AT_ONCE: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """One share of a tile's queries, AT_ONCE by PIECES pieces at a time. ``slot``: of its piece 0."""
    dims = tl.arange(0, PADDED)
    for begin in range(share * AT_ONCE, count * HEADS, PROGRAMS * pieces * AT_ONCE):
        queries = begin + tl.arange(0, AT_ONCE)
        best = tl.full((AT_ONCE,), float("-inf"), dtype=tl.float32)
        weight = tl.zeros((AT_ONCE,), dtype=tl.float32)
        total = tl.zeros((AT_ONCE, PADDED), dtype=tl.float32)
        for chunk in range(0, pieces, PIECES):
            piece = chunk + tl.arange(0, PIECES)
            best, weight, total = merge_some(
                parts, slot + piece * KV_HEADS, piece < pieces, queries, dims, best, weight, total, QUERIES, PADDED
            )
        token = queries // HEADS
        of_group = queries % HEADS
        inside = ((token < count) & (of_group < GROUP))[:, None] & (dims < DIM)[None, :]
        at_token = out + (first + token).to(tl.int64)[:, None] * (KV_HEADS * GROUP * DIM)
        to = at_token + (head * GROUP + of_group)[:, None] * DIM + dims[None, :]
        tl.store(to, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)


@triton.jit
def merge_pieces_kernel(
    out,  # [T, KV_HEADS, GROUP, DIM]
    tiles,  # [1 + N, 8] int32
    parts,  # [most_cut, KV_HEADS, QUERIES * (PADDED + 2)] float32: values, maxima, weights
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    """Merge the cut tiles. Grid: (most_cut * KV_HEADS, PROGRAMS). The programs of a tile's pieces share its queries."""
    QUERIES: tl.constexpr = TOKENS * HEADS
    place = tl.program_id(0) // KV_HEADS
    head = tl.program_id(0) % KV_HEADS
    tile = tiles + (1 + tl.load(tiles) + place) * ENTRY
    pieces = tl.load(tile + 7)
    if pieces > 1:
        first = tl.load(tile)
        count = tl.load(tile + 1)
        index = tl.load(tile + 6)
        slot = (place - index) * KV_HEADS + head
        share = tl.program_id(1) * pieces + index
        if pieces <= FEW_PIECES:
            _merge_tile(
                out, parts, slot, first, count, pieces, share, head,
                KV_HEADS, GROUP, DIM, HEADS, PADDED, QUERIES, PROGRAMS, 4, 2,
            )  # fmt: skip
        else:
            _merge_tile(
                out, parts, slot, first, count, pieces, share, head,
                KV_HEADS, GROUP, DIM, HEADS, PADDED, QUERIES, PROGRAMS, 1, 16,
            )  # fmt: skip


def require_parts(plan: PromptPlan, workspace: Workspace, kv_heads: int, queries: int, padded: int) -> None:
    """Raise ValueError unless there is room for what the pieces leave."""
    if plan.cut:
        workspace.require(plan.most_cut * kv_heads * queries * (padded + 2))


def merge_pieces(out: Tensor, plan: PromptPlan, workspace: Workspace, kv_heads: int, group: int, dim: int) -> None:
    """Complete out [T, H * D] with the tiles that were cut; what the others have is left alone."""
    if plan.cut:
        padded_heads, padded = padded_sizes(group, dim)
        merge_pieces_kernel[(plan.most_cut * kv_heads, MERGING)](
            out, plan.tiles, workspace.parts, kv_heads, group, dim, padded_heads, padded, plan.tile_tokens,
            MERGING, num_warps=4,
        )  # fmt: skip

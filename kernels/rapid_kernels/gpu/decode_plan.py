# ruff: noqa: N803 (constants of a Triton kernel are upper case)
"""Which tiles of the paged cache a decode step reads, planned on the device once for all layers.

The rows' sequences are cut into tiles of at most 64 tokens; the tiles of all rows, one row after another, form one
line, which `rapid_kernels.gpu.attention` divides into equal stretches.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_kernels.gpu.chain import options, wait_for_previous
from rapid_kernels.gpu.heads import padded_dim

MAX_ROWS = 1024
TILE_BYTES = 32768
"""Keys and values of one head in a tile: three tiles, twice, fit a Hopper unit's shared memory."""


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Which tiles a step reads. Static buffers: planning again overwrites them, so graphs may hold them."""

    tile_tokens: int
    """Tokens a tile, a divisor of the block's."""
    tiles: Tensor
    """[max_tiles] int64, from the lowest bit: number of the tile in the cache 32 bits, its row 10, last token in it,
    exclusive, 8, first token in it 7, whether it ends its row 1."""
    first: Tensor
    """[max_rows + 1] int32: first tile of each row; then the number of all."""


def make_plan(
    block_tokens: int, head_dim: int, itemsize: int, max_rows: int, max_tokens: int, device: torch.device | str
) -> DecodePlan:
    """Buffers for batches of up to ``max_rows`` rows that attend to ``max_tokens`` tokens in all.

    Blocks are a power of two >= 16 tokens.
    """
    if block_tokens < 16 or block_tokens & (block_tokens - 1):
        raise ValueError(f"block_tokens must be a power of two of at least 16, not {block_tokens}")
    if max_rows > MAX_ROWS:
        raise ValueError(f"at most {MAX_ROWS} rows, not {max_rows}")
    fitting = TILE_BYTES // (2 * padded_dim(head_dim) * itemsize)
    # triton 3.6 writes past the end of shared memory with wider tiles of rows that are no multiple of 16 bytes.
    tile_tokens = min(block_tokens, 64, max(16, fitting)) if head_dim * itemsize % 16 == 0 else 16
    max_tiles = max_tokens // tile_tokens + 2 * max_rows  # a row's first and last tile may be partly used
    tiles = torch.zeros(max_tiles, dtype=torch.int64, device=device)
    return DecodePlan(tile_tokens, tiles, torch.zeros(max_rows + 1, dtype=torch.int32, device=device))


@triton.jit(do_not_specialize=["rows", "table_stride", "window"])
def plan_decode_kernel(
    kv_lens,  # [rows] int32
    block_tables,  # [rows, table_stride] int32
    tiles,  # [max_tiles] int64
    first,  # [rows + 1] int32
    rows,
    table_stride,
    window,
    BLOCK_TOKENS: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHAINED: tl.constexpr,
):
    """Fill a `DecodePlan`. Grid: rows <= ROWS."""
    wait_for_previous(CHAINED)
    row = tl.program_id(0)
    each = tl.arange(0, ROWS)
    lens = tl.load(kv_lens + each, mask=each < rows, other=0)
    counts = (lens + TILE - 1) // TILE - tl.maximum(lens - window, 0) // TILE
    begin = tl.sum(tl.where(each < row, counts, 0))
    length = tl.load(kv_lens + row)
    oldest = tl.maximum(length - window, 0)
    skipped = oldest // TILE
    count = (length + TILE - 1) // TILE - skipped
    tl.store(first + row, begin)
    tl.store(first + rows, begin + count, mask=row == rows - 1)
    for chunk in range(0, count, CHUNK):
        index = chunk + tl.arange(0, CHUNK)
        own = index < count
        tile = skipped + index
        block = tl.load(block_tables + row.to(tl.int64) * table_stride + tile * TILE // BLOCK_TOKENS, mask=own, other=0)
        place = block * (BLOCK_TOKENS // TILE) + tile % (BLOCK_TOKENS // TILE)
        low = tl.maximum(oldest - tile * TILE, 0)
        high = tl.minimum(length - tile * TILE, TILE)
        rest = row + high * 1024 + low * 262144 + tl.where(index == count - 1, 33554432, 0)
        tl.store(tiles + begin + index, place.to(tl.int64) + rest.to(tl.int64) * 4294967296, mask=own)


def plan_decode(
    plan: DecodePlan,
    kv_lens: Tensor,
    block_tables: Tensor,
    block_tokens: int,
    window: int | None = None,
    chained: bool = False,
) -> None:
    """Plan a step: kv_lens [R] int32, each >= 1; block_tables [R, max_blocks] int32, rows contiguous.

    ``window``: a row sees its last so many tokens. Lengths are trusted: they are not on the host.
    """
    rows = kv_lens.shape[0]
    plan_decode_kernel[(rows,)](
        kv_lens, block_tables, plan.tiles, plan.first, rows, block_tables.stride(0), window or 1 << 30,
        block_tokens, plan.tile_tokens, triton.next_power_of_2(rows), 128, chained,
        **options(chained),
    )  # fmt: skip

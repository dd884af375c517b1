"""Which tiles the kernels run with: measured on an H100 and an H200 in bf16 (`kernels/bench/bench_gpu.py tune`).

Few units are limited by what a unit can take in, so x must be read rarely: wide tiles, weights brought to the L2 cache
ahead. Many units are limited by memory and by what every launch costs: narrow tiles, of which few are cut, or all are
cut alike (128 programs) where the next kernel adds the parts up.
"""

from rapid_kernels.gpu.decode_call import DecodeTile
from rapid_kernels.gpu.matmul import Tile
from rapid_kernels.gpu.matmul_hopper import SHARING_BYTES, SlimTile
from rapid_kernels.gpu.prefill import PromptTile
from rapid_kernels.gpu.prefill_hopper import HopperTile

WIDE = Tile(64, 256, 64, 5, 4, prefetched=6)
MIDDLE = Tile(64, 128, 128, 4, 4, prefetched=6)
BROAD = Tile(64, 128, 128, 4, 4)
NARROW = Tile(64, 64, 128, 6, 4)
SPREAD = Tile(64, 64, 128, 6, 4, spread=True, most=128)
TALL = Tile(128, 128, 64, 6, 8)
SLIM = SlimTile(128, 128, 200 << 10)
SLIM_NARROW = SlimTile(64, 128, 200 << 10, spread=True, most=128)
SLIM_PAIR = SlimTile(128, 64, SHARING_BYTES, per_unit=2)
SLIM_ROWS = 32
"""Up to so many rows slim tiles are the fastest."""
PAIR_ROWS = 16
"""Up to so many, on the fewest units, two programs a unit are."""
CHAINED_UNITS = 100
"""Chained launches gain 1 to 5 % of a decode step below so many units."""
CHAINED_ROWS = 128
"""On all units they gain with up to so many rows: 9 % of a step of one row, 2 % of 64, 1 % of 96 (H200)."""
ALONE_UNITS = 128
"""From so many units on a program of decode attention has one for itself, and memory for more tiles."""

AMD = Tile(64, 128, 64, 2, 4, bulk=False)
"""Compiles within every CDNA chip's limits; never measured."""

AMD_DECODE = DecodeTile(2, bulk=False)
"""Likewise."""

PROMPT = PromptTile(queries=64, keys=32, stages=2, warps=4)
"""Of prompt chunks by pointers: within every chip's limits up to the largest head."""

HOPPER_PROMPT = HopperTile(queries=64, keys=64, stages=2)
"""Two programs a unit: one's softmax hides behind the other's products."""

PROMPTS_PER_UNIT = 2
"""Programs of prompt attention that a unit runs at a time."""


def tile_for(rows: int, n: int, units: int, gated: bool, hopper: bool, parts: bool = False) -> Tile | SlimTile | None:
    """The tile for ``rows`` of x by a weight of ``n`` rows on so many units; None: the library is faster.

    ``parts``: the next kernel adds up what is left in parts.
    """
    if rows > 128:
        return None
    if rows > 64:
        # Here arithmetic limits few units, and the library wastes less of it on padding.
        if units < 32:
            return TALL if n <= 8192 else None
        return TALL if units < 100 and n <= 32768 else None
    if hopper and rows <= SLIM_ROWS:
        return slim_tile_for(rows, n, units, gated)
    if rows <= 32 and units >= 100:
        return None
    if units < 32:
        return WIDE if n > 4096 else MIDDLE
    if units < 64:
        return MIDDLE
    if n > 8192:
        return BROAD
    return SPREAD if parts else NARROW


def slim_tile_for(rows: int, n: int, units: int, gated: bool) -> SlimTile:
    """The same for the fewest rows on Hopper units."""
    if units >= CHAINED_UNITS and n <= 8192 and not gated:
        return SLIM_NARROW
    return SLIM_PAIR if units < 28 and rows <= PAIR_ROWS else SLIM


def decode_tile_for(units: int, alone: bool, hopper: bool) -> DecodeTile:
    """The tile of decode attention on so many Hopper units; ``alone``: not beside a prompt's, which wants memory.

    ``hopper``: by Hopper's own kernel.
    """
    if units < 64:
        return DecodeTile(stages=3, hopper=True) if hopper else DecodeTile()
    if alone and units >= ALONE_UNITS:
        return DecodeTile(stages=4, most=128, hopper=True) if hopper else DecodeTile(stages=7, most=128)
    return DecodeTile(most=128)

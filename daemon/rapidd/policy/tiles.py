"""Sizes that batches with prompt tokens take, so that no tile of a matrix product and no captured batch is part empty.

Pure. On a GPU a batch of decode rows and a chunk is one of some captured sizes: rows padded to `MIXED_ROWS`, and rows
and chunk together to `MIXED_TOTALS`, because the products see one matrix of all tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

TILE_TOKENS: Final = 64
"""Matrix libraries are slower on the rest of a tile."""
MIXED_ROWS: Final = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512)
"""Decode rows of mixed batches that are captured."""
CHUNK_ROWS: Final = 16
"""Most prompts in a captured batch, which has room for as many tokens."""
ODD_TOTAL: Final = 384
"""Beyond so many tokens an odd number of tiles takes longer than one more. Of an 8B model with cuBLAS on an H200 448
tokens took 16.8 ms and 512 took 13.7, 576 16.6 and 640 16.0, but 320 took 11.2 and 384 12.1."""
MIXED_TOTALS: Final = (*range(TILE_TOKENS, ODD_TOTAL, TILE_TOKENS), *range(ODD_TOTAL, 1025, 2 * TILE_TOKENS))
"""Tokens of such batches, decode rows included. Close together, because a decode step waits for the padding too."""


def padded_rows(rows: int) -> int:
    """Decode rows that the batch has which holds so many."""
    at = bisect_left(MIXED_ROWS, rows)
    return MIXED_ROWS[at] if at < len(MIXED_ROWS) else rows


def whole_tiles(tokens: int) -> int:
    """The longest chunk of at most ``tokens`` that leaves no tile part empty; ``tokens``, where one tile is more."""
    return tokens - tokens % TILE_TOKENS if tokens > TILE_TOKENS else tokens


def padded_total(tokens: int) -> int:
    """Tokens of the batch that takes so many, decode rows included."""
    return tokens + -tokens % _step(tokens)


def beside_rows(tokens: int, rows: int) -> int:
    """As `whole_tiles`, of a chunk in one batch with decode rows."""
    held = padded_rows(rows)
    total = held + tokens
    fits = total - total % _step(total) - held
    return fits if fits > 0 else tokens


def _step(total: int) -> int:
    return TILE_TOKENS if total <= ODD_TOTAL else 2 * TILE_TOKENS

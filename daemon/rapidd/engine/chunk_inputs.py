"""What a captured batch with prompt chunks reads: decode rows padded to a number, prompt tokens padded to another.

    tokens   | decode rows, then padding | tokens of the chunks, row after row | padding |
               one token each              0 .. `chunk` in all

A padding row is a sequence of one token in block 0, and row 0 of the token table; padding tokens belong to no row and
are written to block 0. Nobody owns either. Decode rows and chunk together have one of `tiles.MIXED_TOTALS` tokens, up
to 1,024: the host takes 31 to 38 ms to launch such a batch kernel by kernel (measured with an 8B model), which is what
happens to batches that fit no captured size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidd.engine.batch import Batch, Row
from rapidd.engine.block_tables import BlockTables, Cells
from rapidd.engine.staging import aligned
from rapidd.policy.tiles import CHUNK_ROWS, MIXED_ROWS, MIXED_TOTALS

CHUNKS: Final = (64, 128, 256, 384, 512)
"""Prompt tokens to capture alone: the kernels of more take longer than the host takes to launch them."""

Size = tuple[int, int]
"""Decode rows, prompt tokens."""


def sizes(num_slots: int, *, mixed: bool) -> list[Size]:
    """What to capture on a stream that takes chunks alone, or (``mixed``) beside decode rows too. Largest first."""
    if not mixed:
        return [(0, chunk) for chunk in reversed(CHUNKS)]
    rows = {0, *(count for count in MIXED_ROWS if count < num_slots), num_slots}
    found = [(decode, total - decode) for decode in rows for total in MIXED_TOTALS if total - decode >= CHUNK_ROWS]
    return sorted(found, key=lambda size: (sum(size), size), reverse=True)


def size_for(batch: Batch, captured: Sequence[Size]) -> Size | None:
    """The smallest captured size that holds the batch."""
    tokens, rows = batch.num_prefill_tokens, len(batch.rows) - batch.num_decode
    if rows > CHUNK_ROWS or not captured:
        return None
    decode = min((decode for decode, _ in captured if decode >= batch.num_decode), default=0)
    chunk = min((chunk for rows, chunk in captured if rows == decode and chunk >= tokens), default=0)
    return (decode, chunk) if chunk and decode >= batch.num_decode else None


class ChunkParts(NamedTuple):
    """Of T = decode + chunk tokens in R = decode + `CHUNK_ROWS` rows."""

    positions: Tensor
    """[T] int64."""
    slot_mapping: Tensor
    """[T] int64."""
    source: Tensor
    """[T] int64: of the input id in the flat token table."""
    query_start: Tensor
    """[R + 1] int32."""
    kv_lens: Tensor
    """[R] int32."""
    cells: Cells


class ChunkInputs:
    """Inputs of one size as parts of one flat buffer. ``stride``: of the token table [slots, stride]."""

    def __init__(self, size: Size, stride: int) -> None:
        self.decode, self.chunk = size
        self.tokens = self.decode + self.chunk
        self.rows = self.decode + CHUNK_ROWS
        self._stride = stride
        wide, narrow = (8, self.tokens), (4, self.tokens)
        self._parts = (wide, wide, wide, wide, narrow, (8, self.rows), (4, self.rows + 1), (4, self.rows))
        """Bytes of an element, and elements."""
        self.nbytes = sum(aligned(size * count) for size, count in self._parts)

    def parts(self, buffer: Tensor) -> ChunkParts:
        """Views of a uint8 buffer of at least ``nbytes``."""
        views, at = [], 0
        for size, count in self._parts:
            views.append(buffer[at : at + size * count].view(torch.int64 if size == 8 else torch.int32))
            at += aligned(size * count)
        positions, slot_mapping, source, cells, blocks, slots, query_start, kv_lens = views
        return ChunkParts(positions, slot_mapping, source, query_start, kv_lens, Cells(cells, blocks, slots))

    def fill(self, host: Tensor, rows: Sequence[Row], num_decode: int, tables: BlockTables) -> None:
        """See `staging.Inputs`."""
        host[: self.nbytes] = 0
        parts = self.parts(host)
        positions, slot_mapping, source, query_start, kv_lens = (part.numpy() for part in parts[:5])
        cells, blocks, slots = (part.numpy() for part in (parts.cells.at, parts.cells.blocks, parts.cells.slots))
        counts = np.array([row.count for row in rows], np.int64)
        first = np.array([row.start for row in rows], np.int64)
        slot = np.array([row.slot for row in rows], np.int64)
        ends = counts.cumsum()
        slot_of = np.repeat(slot, counts)
        position: NDArray[np.int64] = np.arange(len(slot_of)) + np.repeat(first - ends + counts, counts)
        cell = slot_of * tables.width + position // tables.block_tokens
        block = tables.mirror.take(cell)

        own, at = (self.places(count, num_decode) for count in (len(position), len(rows)))
        positions[own], cells[own], blocks[own] = position, cell, block
        slot_mapping[own] = block.astype(np.int64) * tables.block_tokens + position % tables.block_tokens
        source[own] = slot_of * self._stride + position
        slots[at] = slot
        kv_lens[:] = 1
        kv_lens[at] = first + counts
        query_start[: self.decode + 1] = np.arange(self.decode + 1)
        query_start[self.decode + 1 :] = own[-1] + 1 if len(own) > num_decode else self.decode
        query_start[at[num_decode:] + 1] = self.decode + ends[num_decode:] - num_decode

    def places(self, count: int, num_decode: int) -> NDArray[np.int64]:
        """Which of the R rows, or T tokens, a batch's are: prompts stand behind the padding of decode rows."""
        places = np.arange(count)
        places[num_decode:] += self.decode - num_decode
        return places

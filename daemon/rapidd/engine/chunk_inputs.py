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
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidd.engine.batch import Batch, Row
from rapidd.engine.staging import BlockTables, aligned
from rapidd.policy.tiles import MIXED_ROWS, MIXED_TOTALS

CHUNKS: Final = (64, 128, 256, 384, 512)
"""Prompt tokens to capture alone: the kernels of more take longer than the host takes to launch them."""
CHUNK_ROWS: Final = 16
"""Most prompts in a captured batch."""

Size = tuple[int, int]
"""Decode rows, prompt tokens."""


def sizes(num_slots: int, *, mixed: bool) -> list[Size]:
    """What to capture on a stream that takes chunks alone, or (``mixed``) beside decode rows too. Largest first."""
    if not mixed:
        return [(0, chunk) for chunk in reversed(CHUNKS)]
    rows = {0, *(count for count in MIXED_ROWS if count < num_slots), num_slots}
    found = [(decode, total - decode) for decode in rows for total in MIXED_TOTALS if total > decode]
    return sorted(found, key=lambda size: (sum(size), size), reverse=True)


def size_for(batch: Batch, captured: Sequence[Size]) -> Size | None:
    """The smallest captured size that holds the batch."""
    tokens, rows = batch.num_prefill_tokens, len(batch.rows) - batch.num_decode
    if rows > CHUNK_ROWS or not captured:
        return None
    decode = min((decode for decode, _ in captured if decode >= batch.num_decode), default=0)
    chunk = min((chunk for rows, chunk in captured if rows == decode and chunk >= tokens), default=0)
    return (decode, chunk) if chunk and decode >= batch.num_decode else None


class ChunkInputs:
    """Inputs of one size as parts of one flat buffer of bytes.

    For T = decode + chunk tokens in R = decode + `CHUNK_ROWS` rows: positions [T], slot_mapping [T] and source [T] (of
    the input id in the flat token table) int64; query_start [R + 1], kv_lens [R] and block_tables [R, width] int32.
    """

    def __init__(self, size: Size, width: int) -> None:
        self.decode, self.chunk = size
        self.tokens = self.decode + self.chunk
        self.rows = self.decode + CHUNK_ROWS
        self.width = width
        wide, starts, lens = aligned(8 * self.tokens), aligned(4 * (self.rows + 1)), aligned(4 * self.rows)
        self._at = (0, wide, 2 * wide, 3 * wide, 3 * wide + starts, 3 * wide + starts + lens)
        self.nbytes = self._at[-1] + 4 * self.rows * width

    def parts(self, buffer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Views of a uint8 buffer of at least ``nbytes``, in the order above."""
        wide = [buffer[at : at + 8 * self.tokens].view(torch.int64) for at in self._at[:3]]
        starts = buffer[self._at[3] : self._at[3] + 4 * (self.rows + 1)].view(torch.int32)
        lens = buffer[self._at[4] : self._at[4] + 4 * self.rows].view(torch.int32)
        tables = buffer[self._at[5] : self.nbytes].view(torch.int32).view(self.rows, self.width)
        return wide[0], wide[1], wide[2], starts, lens, tables

    def fill(self, host: Tensor, rows: Sequence[Row], num_decode: int, tables: BlockTables, stride: int) -> None:
        """Write a batch's inputs to a zeroed host buffer of ``nbytes``. The first ``num_decode`` rows are decode rows.

        ``stride``: of the token table [slots, stride].
        """
        positions, slot_mapping, source, starts, lens, block_tables = (part.numpy() for part in self.parts(host))
        block_tokens = tables.block_tokens
        lens += 1
        starts[: self.decode + 1] = np.arange(self.decode + 1)
        starts[self.decode + 1 :] = self.decode
        if not rows:
            return
        mirrored = tables.rows(rows)
        chunks = len(rows) - num_decode
        for part in (slice(num_decode), slice(num_decode, None)):  # decode rows, then prompts
            counts = np.array([row.count for row in rows[part]], np.int64)
            if not len(counts):
                continue
            first = np.array([row.start for row in rows[part]], np.int64)
            ends = counts.cumsum()
            token = np.repeat(first - (ends - counts), counts) + np.arange(ends[-1])
            own = mirrored[np.repeat(np.arange(len(counts)) + (part.start or 0), counts), token // block_tokens]
            to = slice(ends[-1]) if part.start is None else slice(self.decode, self.decode + ends[-1])
            positions[to] = token
            source[to] = token + np.repeat([row.slot * stride for row in rows[part]], counts)
            slot_mapping[to] = own.astype(np.int64) * block_tokens + token % block_tokens
            at = slice(len(counts)) if part.start is None else slice(self.decode, self.decode + chunks)
            lens[at] = first + counts
            block_tables[at, : mirrored.shape[1]] = mirrored[part]
            if part.start is not None:
                starts[self.decode + 1 : self.decode + chunks + 1] = self.decode + ends
                starts[self.decode + chunks + 1 :] = self.decode + ends[-1]

    def last_tokens(self, rows: Sequence[Row], num_decode: int) -> NDArray[np.int64]:
        """Where each row's last token is among the T."""
        ends = np.cumsum([row.count for row in rows[num_decode:]])
        return np.concatenate((np.arange(num_decode), self.decode + ends - 1)).astype(np.int64)

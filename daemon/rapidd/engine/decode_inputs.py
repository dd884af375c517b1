"""What a captured decode step reads: a few numbers a row.

Rows behind the last are padding: sequences of one token, in block 0 and in row 0 of the token table, which nobody owns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rapidd.engine.batch import Row
from rapidd.engine.block_tables import BlockTables, Cells
from rapidd.engine.staging import aligned


class DecodeParts(NamedTuple):
    """On the device, of a step's rows."""

    positions: Tensor
    """[rows] int64."""
    slot_mapping: Tensor
    """[rows] int64."""
    source: Tensor
    """[rows] int64: of the input id in the flat token table; the output goes one behind it."""
    kv_lens: Tensor
    """[rows] int32."""
    cells: Cells


class DecodeInputs:
    """Inputs of ``rows`` rows as parts of one flat buffer: five times int64, twice int32, each [rows].

    ``stride``: of the token table.
    """

    def __init__(self, rows: int, stride: int) -> None:
        self.rows = rows
        self._stride = stride
        self._wide, self._narrow = aligned(8 * rows), aligned(4 * rows)
        self.nbytes = 5 * self._wide + 2 * self._narrow

    def parts(self, buffer: Tensor) -> DecodeParts:
        """Views of a uint8 buffer of at least ``nbytes``."""
        narrow_at = 5 * self._wide
        wide = buffer[:narrow_at].view(torch.int64).view(5, -1)[:, : self.rows]
        narrow = buffer[narrow_at : self.nbytes].view(torch.int32).view(2, -1)[:, : self.rows]
        return DecodeParts(wide[0], wide[1], wide[2], narrow[0], Cells(wide[3], narrow[1], wide[4]))

    def fill(self, host: Tensor, rows: Sequence[Row], num_decode: int, tables: BlockTables) -> None:
        """See `staging.Inputs`."""
        narrow_at, block_tokens = 5 * self._wide, tables.block_tokens
        numbers = host.numpy()
        wide = numbers[:narrow_at].view(np.int64).reshape(5, -1)[:, : self.rows]
        kv_lens, blocks = numbers[narrow_at : self.nbytes].view(np.int32).reshape(2, -1)[:, : self.rows]
        positions, slot_mapping, source, cells, slots = wide
        wide[:, num_decode:] = 0
        positions[:num_decode] = [row.start for row in rows]
        slots[:num_decode] = [row.slot for row in rows]
        block = positions // block_tokens
        np.add(slots * tables.width, block, out=cells)
        np.take(tables.mirror, cells, out=blocks, mode="clip")
        np.add((blocks - block) * block_tokens, positions, out=slot_mapping)
        np.add(slots * self._stride, positions, out=source)
        kv_lens[:] = positions + 1

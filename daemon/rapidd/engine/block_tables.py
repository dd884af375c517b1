"""The block tables of a place's sequences, by slot: on the device, and their mirror on the host.

In the steady state a sequence's table only grows at its end, by the blocks that its new tokens lie in. So a batch names
these blocks again for every one of its tokens (`Cells`), whether they are new or not, and its graph writes them before
it gathers the tables of its rows: the number of kernels is fixed, and the host need not know which are new. A whole
table is copied only where it is another one: a sequence took the slot, or was computed elsewhere meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from rapid_kernels import DUMMY_BLOCK
from rapidd.engine.batch import Row

NO_BLOCKS: list[int] = []


class Cells(Struct, frozen=True):
    """On the device, of a batch of T tokens in R rows; padding names cell 0, which always holds `DUMMY_BLOCK`."""

    at: Tensor
    """[T] int64: of each token, the cell of the flat tables ..."""
    blocks: Tensor
    """[T] int32: ... and what belongs there."""
    slots: Tensor
    """[R] int64: of each row."""


class BlockTables:
    """``num_slots`` sequences of up to ``width`` blocks. Slot 0 is padding's: a table of `DUMMY_BLOCK` alone."""

    def __init__(self, num_slots: int, width: int, block_tokens: int, device: torch.device) -> None:
        self.block_tokens = block_tokens
        self.width = width
        self.mirror: NDArray[np.int32] = np.full((num_slots + 1, width), DUMMY_BLOCK, np.int32)
        """[num_slots + 1, width]: of the sequence that has the slot, `DUMMY_BLOCK` behind its own."""
        self.there = torch.full((num_slots + 1, width), DUMMY_BLOCK, dtype=torch.int32, device=device)
        """The same on the device, once the batches that were staged have run."""
        self.forget()

    def forget(self) -> None:
        """Assume nothing of what is on the device."""
        self._lists = [NO_BLOCKS] * len(self.mirror)
        """By slot: the very list of a sequence's blocks, which only grows."""
        self._known = [0] * len(self.mirror)
        """By slot: how many of them are in its table."""

    def sync(self, rows: Sequence[Row]) -> list[int]:
        """Take over the rows' blocks. Returns the slots whose whole table the device lacks."""
        lists, known = self._lists, self._known
        return [
            row.slot
            for row in rows
            if (lists[row.slot] is not row.blocks or known[row.slot] != len(row.blocks)) and not self._extend(row)
        ]

    def _extend(self, row: Row) -> bool:
        """Mirror a row's blocks, none of later rows; whether only those of its own tokens can be new."""
        slot, blocks, size = row.slot, row.blocks, self.block_tokens
        known, count = self._known[slot], -(-(row.start + row.count) // size)
        extends = self._lists[slot] is blocks and row.start // size <= known <= count
        if not extends:
            known = 0
            self.mirror[slot, count:] = DUMMY_BLOCK
        self.mirror[slot, known:count] = blocks[known:count]
        self._lists[slot], self._known[slot] = blocks, count
        return extends

    def gather(self, cells: Cells, out: Tensor) -> None:
        """On the current stream: write the batch's blocks, and bring its rows' tables to ``out`` [R, width] int32."""
        self.there.view(-1).index_copy_(0, cells.at, cells.blocks)
        torch.index_select(self.there, 0, cells.slots, out=out)

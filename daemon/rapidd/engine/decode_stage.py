"""What a captured decode step reads, staged so that a step in the steady state copies a few numbers a row.

The device keeps what the last step left there. Positions move at every step; a row's block table, up to thousands of
blocks wide, is copied when it changed or another sequence took its row. Rows behind the last are padding: sequences of
one token, in block 0 and in row 0 of the token table, which nobody owns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidd.engine.batch import Row
from rapidd.engine.staging import BlockTables, Version, aligned

MOST_TABLES: Final = 4
"""Block tables copied one by one; if more changed, everything is copied at once."""


class DecodeInputs:
    """What a decode step of ``rows`` rows reads, as parts of one flat buffer of bytes.

    positions [rows] int64, slot_mapping [rows] int64, source [rows] int64 (of the input id in the flat token table;
    the output goes one behind it), kv_lens [rows] int32, block_tables [rows, width] int32.
    """

    def __init__(self, rows: int, width: int) -> None:
        self.rows = rows
        self.width = width
        wide, narrow = aligned(8 * rows), aligned(4 * rows)
        self._at = (0, wide, 2 * wide, 3 * wide, 3 * wide + narrow)
        self.nbytes = self._at[-1] + 4 * rows * width

    def parts(self, buffer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Views of a uint8 buffer of at least ``nbytes``, in the order above."""
        rows = self.rows
        wide = [buffer[at : at + 8 * rows].view(torch.int64) for at in self._at[:3]]
        kv_lens = buffer[self._at[3] : self._at[3] + 4 * rows].view(torch.int32)
        tables = buffer[self._at[4] : self.nbytes].view(torch.int32).view(rows, self.width)
        return wide[0], wide[1], wide[2], kv_lens, tables

    @property
    def tables_at(self) -> int:
        """Bytes before the block tables."""
        return self._at[-1]

    def numbers(self, buffer: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Of a host buffer, the three int64 parts as [3, rows], and kv_lens."""
        rows, pitch = self.rows, self._at[1] // 8
        wide = buffer[: self._at[3]].view(np.int64).reshape(3, pitch)[:, :rows]
        return wide, buffer[self._at[3] : self._at[4]].view(np.int32)[:rows]


class DecodeStage:
    """The inputs of a place's decode steps on the device, and what is known to be there.

    ``buffer``: bytes on the device, enough for the largest number of rows. ``stride``: of the token table.
    """

    def __init__(self, buffer: Tensor, tables: BlockTables, stride: int) -> None:
        self.buffer = buffer
        self._tables = tables
        self._stride = stride
        self._inputs: DecodeInputs | None = None
        self._there: list[Version] = []
        """By row of ``_inputs``: the version of the block table that the device has."""
        self._slots = np.empty(0, np.int64)
        """By row of ``_inputs``."""

    def stage(self, inputs: DecodeInputs, rows: Sequence[Row]) -> None:
        """Bring a step's inputs to the device on the current stream, behind the step before."""
        tables = self._tables
        tables.sync(rows)
        padding = [0] * (inputs.rows - len(rows))
        slots = [row.slot for row in rows] + padding
        versions = [tables.versions[slot] for slot in slots]
        starts = np.array([row.start for row in rows] + padding, np.int64)
        changed: Sequence[int] = ()
        if inputs is not self._inputs:
            changed = range(inputs.rows)
        elif versions != self._there:
            changed = [at for at, (new, old) in enumerate(zip(versions, self._there, strict=True)) if new != old]
        if changed:
            self._slots = np.array(slots, np.int64)
        self._inputs = None  # until everything is under way
        if len(changed) <= MOST_TABLES:
            self._copy_some(inputs, starts, changed)
        else:
            self._copy_all(inputs, starts)
        self._inputs, self._there = inputs, versions

    def _copy_all(self, inputs: DecodeInputs, starts: NDArray[np.int64]) -> None:
        host = self._pinned(inputs.nbytes)
        self._write_numbers(inputs, host, starts)
        tables = host[inputs.tables_at :].numpy().view(np.int32).reshape(inputs.rows, inputs.width)
        np.take(self._tables.tables, self._slots, axis=0, out=tables)
        self.buffer[: inputs.nbytes].copy_(host, non_blocking=True)

    def _copy_some(self, inputs: DecodeInputs, starts: NDArray[np.int64], changed: Sequence[int]) -> None:
        """The numbers, and the tables of the rows ``changed``."""
        nbytes = 4 * inputs.width
        host = self._pinned(inputs.tables_at + nbytes * len(changed))
        self._write_numbers(inputs, host, starts)
        self.buffer[: inputs.tables_at].copy_(host[: inputs.tables_at], non_blocking=True)
        for index, row in enumerate(changed):
            source = host[inputs.tables_at + nbytes * index :][:nbytes]
            source.numpy().view(np.int32)[:] = self._tables.tables[self._slots[row]]
            self.buffer[inputs.tables_at + nbytes * row :][:nbytes].copy_(source, non_blocking=True)

    def _write_numbers(self, inputs: DecodeInputs, host: Tensor, starts: NDArray[np.int64]) -> None:
        """All but the tables."""
        (positions, slot_mapping, source), kv_lens = inputs.numbers(host.numpy())
        block_tokens = self._tables.block_tokens
        block = starts // block_tokens
        positions[:] = starts
        kv_lens[:] = starts + 1
        np.add(self._slots * self._stride, starts, out=source)
        np.add((self._tables.tables[self._slots, block] - block) * block_tokens, starts, out=slot_mapping)

    def _pinned(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=self.buffer.is_cuda)

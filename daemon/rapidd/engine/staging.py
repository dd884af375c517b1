"""From host to device without waiting: one pinned buffer, one copy, many tensors.

Pinned memory comes from torch's caching allocator, which hands a buffer out again only when the streams that read it
have gone past the copy: there is no ring to size and nothing to wait for. Parts start at 64 bytes, so that no kernel is
compiled anew for another alignment. On a CPU, for tests, the same code makes plain copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapid_kernels import DUMMY_BLOCK
from rapidd.engine.batch import Row
from rapidd.engine.request import Request

ALIGNMENT = 64


def upload(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """The arrays on the device, in one non-blocking copy on the current stream."""
    offsets = [0]
    for array in arrays:
        offsets.append(offsets[-1] + aligned(array.nbytes))
    host = torch.empty(offsets[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    bytes_ = host.numpy()
    for array, offset in zip(arrays, offsets, strict=False):
        bytes_[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    there = host.to(device, non_blocking=True)
    return [
        there[offset : offset + array.nbytes].view(torch.from_numpy(array[:0]).dtype).view(array.shape)
        for array, offset in zip(arrays, offsets, strict=False)
    ]


def download(tensor: Tensor) -> Tensor:
    """A host copy that is complete once the current stream has come so far."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    host.copy_(tensor, non_blocking=True)
    return host


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

    def host_parts(self, buffer: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """The same of a buffer of exactly ``nbytes`` on the host: the three int64 ones as [3, rows], and so on."""
        rows, pitch = self.rows, self._at[1] // 8
        wide = buffer[: self._at[3]].view(np.int64).reshape(3, pitch)[:, :rows]
        narrow = buffer[self._at[3] :].view(np.int32)
        return wide, narrow[:rows], narrow[(self._at[4] - self._at[3]) // 4 :].reshape(rows, self.width)


class BlockTables:
    """Host mirror of the block tables by slot, so that a step writes only the blocks that are new."""

    def __init__(self, num_slots: int, width: int, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._tables = np.full((num_slots + 1, width), DUMMY_BLOCK, np.int32)
        self._known: list[tuple[Request | None, int, int]] = [(None, 0, 0)] * (num_slots + 1)
        """By slot: the request, its generation, and how many of its blocks are in the mirror."""

    def rows(self, rows: Sequence[Row]) -> NDArray[np.int32]:
        """Tables of the rows, as wide as the longest; `DUMMY_BLOCK` behind a row's own."""
        known, slots, longest = self._known, [], 1
        for row in rows:
            slot, count = row.slot, len(row.blocks)
            slots.append(slot)
            if count > longest:
                longest = count
            request, generation, have = known[slot]
            if request is not row.request or generation != row.generation:
                have = 0
                self._tables[slot, count:] = DUMMY_BLOCK  # another sequence had this slot
            if have < count:
                self._tables[slot, have:count] = row.blocks[have:]
                known[slot] = (row.request, row.generation, count)
        return self._tables[slots, :longest]


def fill_decode(inputs: DecodeInputs, host: Tensor, rows: Sequence[Row], tables: BlockTables, stride: int) -> None:
    """Write a decode step's inputs to a zeroed host buffer; rows behind the last are padding, which touches nobody.

    A padding row is a sequence of one token: in block 0, and in row 0 of the token table [slots, stride].
    """
    (positions, slot_mapping, source), kv_lens, block_tables = inputs.host_parts(host.numpy())
    n = len(rows)
    mirrored = tables.rows(rows)
    starts = np.array([row.start for row in rows], np.int64)
    positions[:n] = starts
    kv_lens[:n] = starts
    kv_lens += 1
    source[:n] = starts + [row.slot * stride for row in rows]
    block = starts // tables.block_tokens
    slot_mapping[:n] = (mirrored[np.arange(n), block] - block) * np.int64(tables.block_tokens) + starts
    block_tables[:n, : mirrored.shape[1]] = mirrored


def aligned(nbytes: int) -> int:
    """Rounded up to `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT

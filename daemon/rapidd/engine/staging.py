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
Version = tuple[Request | None, int, int]
"""A sequence (a request and its generation), and how many of its blocks are in a table."""


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


class BlockTables:
    """Host mirror of the block tables by slot, so that a step writes only the blocks that are new."""

    def __init__(self, num_slots: int, width: int, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.width = width
        self.tables: NDArray[np.int32] = np.full((num_slots + 1, width), DUMMY_BLOCK, np.int32)
        """[num_slots + 1, width]: of the sequence that has the slot, `DUMMY_BLOCK` behind its own; slot 0 has none."""
        self.versions: list[Version] = [(None, 0, 0)] * (num_slots + 1)
        """By slot, replaced by another object whenever its table changes."""

    def sync(self, rows: Sequence[Row]) -> None:
        """Take over the rows' blocks."""
        versions = self.versions
        for row in rows:
            slot, count = row.slot, len(row.blocks)
            request, generation, have = versions[slot]
            if request is not row.request or generation != row.generation:
                have = 0
                self.tables[slot, count:] = DUMMY_BLOCK  # another sequence had this slot
            if have < count:
                self.tables[slot, have:count] = row.blocks[have:]
                versions[slot] = (row.request, row.generation, count)

    def rows(self, rows: Sequence[Row]) -> NDArray[np.int32]:
        """Tables of the rows, as wide as the longest; `DUMMY_BLOCK` behind a row's own."""
        self.sync(rows)
        longest = max((len(row.blocks) for row in rows), default=1)
        return self.tables[[row.slot for row in rows], :longest]


def aligned(nbytes: int) -> int:
    """Rounded up to `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT

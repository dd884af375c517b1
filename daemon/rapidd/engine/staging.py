"""From host to device without waiting: one pinned buffer, one copy, many tensors.

Pinned memory comes from torch's caching allocator, which hands a buffer out again only when the streams that read it
have gone past the copy: there is no ring to size and nothing to wait for. Parts start at 64 bytes, so that no kernel is
compiled anew for another alignment. On a CPU, for tests, the same code makes plain copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidd.engine.batch import Row
from rapidd.engine.block_tables import BlockTables

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


class Inputs(Protocol):
    """The layout of what a captured batch reads."""

    nbytes: int
    """A multiple of `ALIGNMENT`."""

    def fill(self, host: Tensor, rows: Sequence[Row], num_decode: int, tables: BlockTables) -> None:
        """Write rows, ``num_decode`` decode rows first, and padding to ``nbytes`` of the host, whatever is there.

        ``tables`` has the rows' blocks.
        """


class Stage:
    """What a place's captured batches read on the device: ``nbytes`` of inputs, and the block tables.

    One copy brings both: behind the inputs follow the tables that the device lacks, which are then put in their slots.

        | inputs | slots of k tables, int64 | k tables [k, width] int32 |
    """

    def __init__(self, tables: BlockTables, nbytes: int) -> None:
        self.tables = tables
        room = nbytes + aligned(8 * len(tables.mirror)) + tables.there.nbytes
        self.buffer = torch.zeros(room, dtype=torch.uint8, device=tables.there.device)
        """The inputs are its first bytes."""

    def bring(self, inputs: Inputs, rows: Sequence[Row], num_decode: int) -> None:
        """Bring a batch's inputs to the device on the current stream, behind the batch before."""
        tables, buffer = self.tables, self.buffer
        missing = tables.sync(rows)
        count, tables_at = len(missing), inputs.nbytes + aligned(8 * len(missing))
        end = tables_at + 4 * tables.width * count
        host = torch.empty(end, dtype=torch.uint8, pin_memory=buffer.is_cuda)
        inputs.fill(host, rows, num_decode, tables)
        if missing:
            behind = host.numpy()[inputs.nbytes :]
            behind[: 8 * count].view(np.int64)[:] = missing
            whole = behind[tables_at - inputs.nbytes :].view(np.int32).reshape(count, -1)
            np.take(tables.mirror, missing, axis=0, out=whole, mode="clip")
        buffer[:end].copy_(host, non_blocking=True)
        if missing:
            slots = buffer[inputs.nbytes :][: 8 * count].view(torch.int64)
            tables.there.index_copy_(0, slots, buffer[tables_at:end].view(torch.int32).view(count, -1))


def aligned(nbytes: int) -> int:
    """Rounded up to `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT

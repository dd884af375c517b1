"""How a batch and the KV cache lie in memory. Plain descriptions: no arithmetic of the model, no scheduling.

A batch flattens the new tokens of R rows into T tokens, row after row. Row r owns tokens
``query_start[r] : query_start[r + 1]``; its sequence has ``kv_lens[r]`` tokens once they are written, so its first
``kv_lens[r] - query_len`` ones were cached by earlier batches.

    row            0         1               2
    tokens      | 0 |  1  2  3  4  |  5  |               T = 6, query_start = [0, 1, 5, 6]
    positions   | 9 |  0  1  2  3  | 31  |               kv_lens = [10, 4, 32]
                decode   prompt      decode
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

DUMMY_BLOCK = 0
"""Block that padding rows read and write; never owned by a request."""


class Scratch:
    """Static buffers of one lane, made by `Kernels.make_scratch`; only those kernels look inside."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Ragged:
    """One batch's rows. Belongs to one forward pass in one thread; host mirrors end in ``_cpu``.

    ``units`` is the number of compute units of the partition it runs on: kernels that size their grid by the
    device must use it instead. The CPU ignores it, its worker's thread count is the partition.
    """

    positions: Tensor
    """[T] int64: index of each token in its sequence."""
    slot_mapping: Tensor
    """[T] int64: where each token's key and value are written, ``block * block_tokens + offset``."""
    block_tables: Tensor
    """[R, max_blocks] int32; entries past a row's last block are `DUMMY_BLOCK`."""
    query_start: Tensor
    """[R + 1] int32."""
    query_start_cpu: list[int]
    kv_lens: Tensor
    """[R] int32: tokens of the row's sequence, this batch's included."""
    kv_lens_cpu: list[int]
    block_tokens: int
    units: int
    derived: dict[Hashable, Any] = field(default_factory=dict)
    """What an implementation computes once a batch and reuses in every layer."""
    scratch: Scratch | None = None
    """Of the lane that the batch runs on; None where `Kernels.make_scratch` gives None."""

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.query_start_cpu[-1]

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.kv_lens_cpu)

    @property
    def num_decode(self) -> int:
        """How many rows, from the first on, have exactly one new token."""
        found: int | None = self.derived.get("num_decode")
        if found is None:
            ends = self.query_start_cpu[1:]
            found = next((row for row, end in enumerate(ends) if end != row + 1), len(ends))
            self.derived["num_decode"] = found
        return found


def make_ragged(
    query_lens: Sequence[int],
    kv_lens: Sequence[int],
    block_tables: Sequence[Sequence[int]],
    block_tokens: int,
    units: int,
    device: torch.device | str = "cpu",
    scratch: Scratch | None = None,
) -> Ragged:
    """Describe a batch from host lists; two host-to-device copies whatever the number of rows, not waited for on a GPU.

    ``query_lens[r]`` >= 1 new tokens bring row r's sequence to ``kv_lens[r]`` tokens. ``block_tables[r]`` holds at
    least the blocks of these; more are ignored. Raises ValueError when they contradict each other.
    """
    rows = len(query_lens)
    query = np.asarray(query_lens, np.int64)
    kv = np.asarray(kv_lens, np.int64)
    if rows == 0 or len(kv) != rows or len(block_tables) != rows or query.min() < 1 or (kv < query).any():
        raise ValueError(f"rows do not fit together: query_lens={query_lens}, kv_lens={kv_lens}")
    pinned = torch.device(device).type == "cuda"
    blocks = -(-kv // block_tokens)
    width = int(blocks.max())
    # One buffer for everything that is int32, so that it reaches the device in one copy: lengths, starts, tables.
    starts_at = _aligned(rows, 4)
    tables_at = starts_at + _aligned(rows + 1, 4)
    narrow_t = torch.full((tables_at + rows * width,), DUMMY_BLOCK, dtype=torch.int32, pin_memory=pinned)
    narrow = narrow_t.numpy()
    narrow[:rows] = kv
    start = narrow[starts_at : starts_at + rows + 1]
    start[0] = 0
    np.cumsum(query, out=start[1:])
    tables = narrow[tables_at:].reshape(rows, width)
    for row, (table, count) in enumerate(zip(block_tables, blocks.tolist(), strict=True)):
        if len(table) < count:
            raise ValueError(f"row {row} has {len(table)} blocks; {kv_lens[row]} tokens need {count}")
        tables[row, :count] = table[:count]

    tokens = int(start[-1])
    wide_t = torch.empty((2, _aligned(tokens, 2)), dtype=torch.int64, pin_memory=pinned)
    positions, slots = wide_t.numpy()[:, :tokens]
    np.subtract(np.arange(tokens), np.repeat(start[1:] - kv, query), out=positions)
    block, offset = np.divmod(positions, block_tokens)
    np.add(tables[np.repeat(np.arange(rows), query), block].astype(np.int64) * block_tokens, offset, out=slots)

    query_start_cpu = start.tolist()
    wide_t = wide_t.to(device, non_blocking=pinned)
    narrow_t = narrow_t.to(device, non_blocking=pinned)
    return Ragged(
        positions=wide_t[0, :tokens],
        slot_mapping=wide_t[1, :tokens],
        block_tables=narrow_t[tables_at:].view(rows, width),
        query_start=narrow_t[starts_at : starts_at + rows + 1],
        query_start_cpu=query_start_cpu,
        kv_lens=narrow_t[:rows],
        kv_lens_cpu=kv.tolist(),
        block_tokens=block_tokens,
        units=units,
        scratch=scratch,
    )


def _aligned(count: int, multiple: int) -> int:
    """Rounded up: parts of a buffer start at 16 bytes, so that no batch makes Triton compile for another alignment."""
    return -(-count // multiple) * multiple


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Shape of a KV cache."""

    num_layers: int
    num_blocks: int
    block_tokens: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @property
    def bytes_per_block(self) -> int:
        """Of all layers together."""
        token = 2 * self.num_kv_heads * self.head_dim * self.dtype.itemsize
        return self.num_layers * self.block_tokens * token


@dataclass(frozen=True, slots=True)
class KVCache:
    """Paged keys and values of every layer; made by `Kernels.allocate_cache`.

    ``layers[i]``: [num_blocks * block_tokens, 2, num_kv_heads, head_dim], key then value of one token side by side, so
    that a token is written, and gathered, in one piece. Not initialised where the implementation can do without: no
    kernel may let an unwritten slot reach its output, not even multiplied by zero (it may hold NaN).
    """

    layout: CacheLayout
    layers: tuple[Tensor, ...]


Layout = Literal["plain", "mkl", "onednn"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight [out, in], made by `Kernels.prepare` for the implementation that made it."""

    layout: Layout
    data: Tensor
    """Readable as a matrix only when plain."""
    like: Tensor
    """[out, in], of the weight's dtype and without memory of its own: for those who ask for the shape."""


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Rotary embedding by position: [max_positions, head_dim / 2] float32 each, attention scaling included."""

    cos: Tensor
    sin: Tensor

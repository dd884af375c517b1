"""A plain pipelined read of memory: the bandwidth that other kernels are held against."""

import triton
import triton.language as tl
from torch import Tensor

READ_TILES = ((4096, 5, 4, 2), (4096, 4, 8, 3), (2048, 6, 4, 4))
"""Elements, stages, warps and programs a unit. Which is fastest depends on the device; all fit every one."""


@triton.jit
def read_kernel(
    data,  # [blocks, BLOCK] int32
    out,  # [programs] int32
    blocks,
    BLOCK: tl.constexpr,  # noqa: N803
    STAGES: tl.constexpr,  # noqa: N803
):
    """Read everything: ``out`` adds up to the sum of ``data``, in 32 bits."""
    offsets = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0), num_stages=STAGES):
        total += tl.load(data + block * BLOCK + offsets)
    tl.store(out + tl.program_id(0), tl.sum(total))


def read_all(data: Tensor, out: Tensor, units: int, tile: tuple[int, int, int, int]) -> None:
    """Read ``data`` [n] int32, n a multiple of the tile's elements below 2^31; ``out``: an int32 for each program."""
    block, stages, warps, per_unit = tile
    assert data.numel() % block == 0
    assert data.numel() < 1 << 31
    assert out.numel() >= units * per_unit
    read_kernel[(units * per_unit,)](data, out, data.numel() // block, BLOCK=block, STAGES=stages, num_warps=warps)

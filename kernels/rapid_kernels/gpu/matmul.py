"""Skinny matmul: few rows of x by a weight matrix that is read from memory exactly once.

The output's tiles are cut along K into steps, all steps of all tiles form one line, and each program takes an equal,
contiguous stretch of it (stream-K, arXiv 2301.03598): 24 units are as evenly loaded as 132. A tile cut by the end of a
stretch is delivered in float32 partials; its last program to finish adds them in the order of K.

    tiles      |   0   |   1   |   2   |          3 tiles of 4 steps on 5 programs
    programs   | 0  | 1 | 2  | 3 |  4  |          tile 1 = partials of programs 1, 2 and 3

Contract: one launch on one stream at a time per `Workspace`. Numerics: products in the tensors' type, sums in float32;
the result depends on (shape, tile, programs), never on timing. No program waits for another: any number may be resident.
Graph-safe once compiled.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from rapid_kernels.gpu.workspace import Workspace

MAX_ROWS = 256


@dataclass(frozen=True, slots=True)
class Tile:
    """How one launch cuts its work."""

    block_m: int
    """Rows of x, padded; all of them are in one tile."""
    block_n: int
    """Rows of the weight."""
    block_k: int
    stages: int
    """Steps whose loads are in flight, the one computed included."""
    warps: int
    per_unit: int = 1
    """Programs a unit."""
    bulk: bool = True
    """Load through the bulk tensor copy engine (Hopper on) instead of by pointers."""


@triton.jit
def _stretch_start(program, steps, programs):
    """First step of a program's stretch; the next program's is its end."""
    return (program.to(tl.int64) * steps // programs).to(tl.int32)


@triton.jit
def _owner(step, steps, programs):
    """The program whose stretch holds a step."""
    return (((step.to(tl.int64) + 1) * programs - 1) // steps).to(tl.int32)


@triton.jit
def _halves(block, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Left and right half of the columns."""
    return tl.split(tl.permute(tl.reshape(block, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))


@triton.jit
def _put_piece(at, row_stride, first_column, block, m, width, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows = tl.arange(0, BLOCK_M)
    columns = first_column + tl.arange(0, BLOCK_N)
    inside = (rows < m)[:, None] & (columns < width)[None, :]
    tl.store(at + rows[:, None] * row_stride + columns[None, :], block.to(at.dtype.element_ty), mask=inside)


@triton.jit
def _put(at, row_stride, block, m, width, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Store block[:m, :width]. In quarters: each passes through shared memory, of which the loads want all."""
    left, right = _halves(block, BLOCK_M, BLOCK_N)
    quarter: tl.constexpr = BLOCK_N // 4
    left0, left1 = _halves(left, BLOCK_M, BLOCK_N // 2)
    right0, right1 = _halves(right, BLOCK_M, BLOCK_N // 2)
    _put_piece(at, row_stride, 0, left0, m, width, BLOCK_M, quarter)
    _put_piece(at, row_stride, quarter, left1, m, width, BLOCK_M, quarter)
    _put_piece(at, row_stride, 2 * quarter, right0, m, width, BLOCK_M, quarter)
    _put_piece(at, row_stride, 3 * quarter, right1, m, width, BLOCK_M, quarter)


@triton.jit
def _finish(y, block, tile, m, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GATED: tl.constexpr):
    """Store a complete tile of the product."""
    if GATED:
        gate, up = _halves(block, BLOCK_M, BLOCK_N)
        first = tile * (BLOCK_N // 2)
        _put(y + first, N // 2, gate / (1 + tl.exp(-gate)) * up, m, N // 2 - first, BLOCK_M, BLOCK_N // 2)
    else:
        first = tile * BLOCK_N
        _put(y + first, N, block, m, N - first, BLOCK_M, BLOCK_N)


@triton.jit
def _deliver(
    y, partials, arrived, tile, m, begin, end, steps, programs,
    N: tl.constexpr, K_STEPS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """Count this program's partial of a tile in; the last one in adds them all up."""
    begin_of_tile = tile * K_STEPS
    if (begin > begin_of_tile) | (end < begin_of_tile + K_STEPS):
        low = _owner(begin_of_tile, steps, programs)
        high = _owner(begin_of_tile + K_STEPS - 1, steps, programs)
        before = tl.atomic_add(arrived + tile, 1, sem="acq_rel", scope="gpu")
        if before == high - low:
            rows = tl.arange(0, BLOCK_M)
            columns = tl.arange(0, BLOCK_N)
            inside = rows[:, None] * BLOCK_N + columns[None, :]
            total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
            for program in range(low, high + 1):
                starts_tile = _stretch_start(program, steps, programs) <= begin_of_tile
                slot = 2 * program + starts_tile.to(tl.int32)
                part = partials + slot.to(tl.int64) * (BLOCK_M * BLOCK_N)
                total += tl.load(part + inside, mask=(rows < m)[:, None], other=0.0, cache_modifier=".cg")
            _finish(y, total, tile, m, N, BLOCK_M, BLOCK_N, GATED)
            tl.store(arrived + tile, 0)


@triton.jit(do_not_specialize=["m"])
def skinny_matmul_kernel(
    x,  # [m, K], or a descriptor of it with blocks [BLOCK_M, BLOCK_K]
    weight,  # [N, K], or a descriptor of it as [1 + GATED, N / (1 + GATED), K] with blocks of BLOCK_N rows in all
    y,  # [m, N], gated [m, N / 2]
    partials,  # [2 * programs, BLOCK_M, BLOCK_N] float32
    arrived,  # [tiles] int32, zero
    m,
    x_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    BULK: tl.constexpr,
    GATED: tl.constexpr,
):  # fmt: skip
    """See the module. Grid: any number of programs up to the number of steps."""
    K_STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    TILES: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    steps = TILES * K_STEPS
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    PARTS: tl.constexpr = 2 if GATED else 1  # a gated tile has as many gate rows as up rows
    PART_N: tl.constexpr = N // PARTS
    begin = _stretch_start(program, steps, programs)
    end = _stretch_start(program + 1, steps, programs)

    rows = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in tl.range(begin, end, num_stages=STAGES):
        tile = step // K_STEPS
        k = (step % K_STEPS) * BLOCK_K
        if BULK:
            a = x.load([0, k])
            b = weight.load([0, tile * (BLOCK_N // PARTS), k]).reshape(BLOCK_N, BLOCK_K)
        else:
            seen = (rows < m)[:, None]
            n = tile * (BLOCK_N // PARTS) + columns % (BLOCK_N // PARTS)
            n = tl.minimum(n, PART_N - 1) + columns // (BLOCK_N // PARTS) * PART_N  # rows past the end are not stored
            a_at = x + rows[:, None] * x_stride + (k + ks)[None, :]
            b_at = weight + n.to(tl.int64)[:, None] * K + (k + ks)[None, :]
            if K % BLOCK_K == 0:
                a = tl.load(a_at, mask=seen, other=0.0)
                b = tl.load(b_at)
            else:
                a = tl.load(a_at, mask=seen & (k + ks < K)[None, :], other=0.0)
                b = tl.load(b_at, mask=(k + ks < K)[None, :], other=0.0)
        acc = tl.dot(a, b.T, acc)
        ends_tile = (step + 1) % K_STEPS == 0
        if ends_tile | (step == end - 1):
            if ends_tile & (begin <= tile * K_STEPS):
                _finish(y, acc, tile, m, N, BLOCK_M, BLOCK_N, GATED)
            else:
                slot = 2 * program + (begin <= tile * K_STEPS).to(tl.int32)
                part = partials + slot.to(tl.int64) * (BLOCK_M * BLOCK_N)
                _put(part, BLOCK_N, acc, m, BLOCK_N, BLOCK_M, BLOCK_N)
            acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)

    # A stretch cuts at most two tiles: the one it begins in and the one it ends in.
    tl.debug_barrier()  # every warp's partials are stored before one of them counts them in
    head = begin // K_STEPS
    tail = (end - 1) // K_STEPS
    _deliver(y, partials, arrived, head, m, begin, end, steps, programs, N, K_STEPS, BLOCK_M, BLOCK_N, GATED)
    if tail != head:
        _deliver(y, partials, arrived, tail, m, begin, end, steps, programs, N, K_STEPS, BLOCK_M, BLOCK_N, GATED)


def skinny_matmul(
    x: Tensor, weight: Tensor, units: int, workspace: Workspace, tile: Tile, gated: bool = False
) -> Tensor:
    """x [M, K] by weight [N, K], M <= tile.block_m: [M, N] of x's type.

    Rows of both are contiguous; with ``tile.bulk`` both start at multiples of 16 bytes and so do their rows.
    """
    m, k = x.shape
    n = weight.shape[0]
    if m > tile.block_m:
        raise ValueError(f"{m} rows do not fit a tile of {tile.block_m}")
    steps = triton.cdiv(n, tile.block_n) * triton.cdiv(k, tile.block_k)
    programs = min(units * tile.per_unit, steps)
    workspace.require(2 * programs * tile.block_m * tile.block_n, triton.cdiv(n, tile.block_n))
    parts = 1 + gated
    y = torch.empty((m, n // parts), dtype=x.dtype, device=x.device)
    a: Tensor | TensorDescriptor = x
    b: Tensor | TensorDescriptor = weight
    if tile.bulk:
        a = TensorDescriptor(x, [m, k], [x.stride(0), 1], [tile.block_m, tile.block_k])
        row = weight.stride(0)
        block = [parts, tile.block_n // parts, tile.block_k]
        b = TensorDescriptor(weight, [parts, n // parts, k], [n // parts * row, row, 1], block)
    skinny_matmul_kernel[(programs,)](
        a, b, y, workspace.partials, workspace.arrived, m, x.stride(0), n, k,
        tile.block_m, tile.block_n, tile.block_k, tile.stages, tile.bulk, gated,
        num_warps=tile.warps,
    )  # fmt: skip
    return y


def skinny_matmul_reference(x: Tensor, weight: Tensor) -> Tensor:
    """The same in float32 arithmetic."""
    return (x.float() @ weight.float().t()).to(x.dtype)

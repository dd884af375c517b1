# ruff: noqa: N803, N806 (constants of a Triton kernel are upper case)
"""Skinny matmul: few rows of x by a weight matrix that is read from memory exactly once.

The output's tiles are cut along K into steps, all steps of all tiles form one line, and each program takes an equal,
contiguous stretch of it (stream-K, arXiv 2301.03598): 24 units are as evenly loaded as 132. Tiles cut by the end of a
stretch are left in float32 parts, which a second, small launch adds up in the order of K.

    tiles      |   0   |   1   |   2   |          3 tiles of 4 steps on 5 programs
    programs   | 0  | 1 | 2  | 3 |  4  |          tile 1 = parts of programs 1, 2 and 3

Contract: one call on one stream at a time per `Workspace`. Numerics: products in the tensors' type, sums in float32;
the result depends on (shape, tile, programs), never on timing. No program waits for another: any number may be
resident. Graph-safe once compiled.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import silu
from triton.tools.tensor_descriptor import TensorDescriptor

from rapid_kernels.gpu.chain import options, prefetch, wait_for_previous
from rapid_kernels.gpu.product import Product
from rapid_kernels.gpu.stretches import owner, stretch_start
from rapid_kernels.gpu.workspace import Workspace

FINISHED_ROWS = 16
"""Rows a program of the second launch adds up."""


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
    spread: bool = False
    """Use every unit, however many tiles that cuts: where whoever reads the product next adds the parts up."""
    most: int = 1 << 20
    """Programs at most."""
    prefetched: int = 0
    """Steps whose weights are brought to the L2 cache ahead (NVIDIA); for few units, whose stages hold too little."""


@triton.jit
def _halves(block, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Left and right half of the columns."""
    return tl.split(tl.permute(tl.reshape(block, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit
def _put_piece(at, row_stride, first_column, block, m, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    columns = first_column + tl.arange(0, COLUMNS)
    inside = (rows < m)[:, None] & (columns < width)[None, :]
    tl.store(at + rows[:, None] * row_stride + columns[None, :], block.to(at.dtype.element_ty), mask=inside)


@triton.jit
def _put(at, row_stride, block, m, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Store block[:m, :width]. In quarters: each passes through shared memory, of which the loads want all."""
    quarter: tl.constexpr = COLUMNS // 4
    left, right = _halves(block, ROWS, COLUMNS)
    left0, left1 = _halves(left, ROWS, COLUMNS // 2)
    right0, right1 = _halves(right, ROWS, COLUMNS // 2)
    _put_piece(at, row_stride, 0, left0, m, width, ROWS, quarter)
    _put_piece(at, row_stride, quarter, left1, m, width, ROWS, quarter)
    _put_piece(at, row_stride, 2 * quarter, right0, m, width, ROWS, quarter)
    _put_piece(at, row_stride, 3 * quarter, right1, m, width, ROWS, quarter)


@triton.jit
def _finish(y, block, tile, m, N, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, GATED: tl.constexpr):
    """Store a complete tile of the product."""
    if GATED:
        gate, up = _halves(block, ROWS, BLOCK_N)
        first = tile * (BLOCK_N // 2)
        _put(y + first, N // 2, gate / (1 + tl.exp(-gate)) * up, m, N // 2 - first, ROWS, BLOCK_N // 2)
    else:
        first = tile * BLOCK_N
        _put(y + first, N, block, m, N - first, ROWS, BLOCK_N)


@triton.jit
def _prefetch_step(
    weight, step, end, N,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    """Bring the weight's block of a step, or of the last before ``end``, from memory to the L2 cache.

    What the stages hold in flight covers the way from the L2 cache, not the way from memory.
    """
    K_STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    HALF: tl.constexpr = BLOCK_N // HALVES
    step = tl.minimum(step, end - 1)
    columns = tl.arange(0, BLOCK_N)
    lines = tl.arange(0, BLOCK_K // 64) * 64  # of 128 bytes
    n = tl.minimum(step // K_STEPS * HALF + columns % HALF, N // HALVES - 1) + columns // HALF * (N // HALVES)
    k = tl.minimum(step % K_STEPS * BLOCK_K + lines, K - 1)
    prefetch(weight + n.to(tl.int64)[:, None] * K + k[None, :])


@triton.jit(do_not_specialize=["m"])
def skinny_matmul_kernel(
    x,  # [m, K], or a descriptor of it with blocks [BLOCK_M, BLOCK_K]
    weight,  # [N, K], or a descriptor of it as [1 + GATED, N / (1 + GATED), K] with blocks of BLOCK_N rows in all
    weight_at,  # [N, K]
    y,  # [m, N], gated [m, N / 2]
    parts,  # [2 * programs, BLOCK_M, BLOCK_N] float32
    m,
    N,
    x_stride,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    BULK: tl.constexpr,
    GATED: tl.constexpr,
    CHAINED: tl.constexpr,
    PREFETCH: tl.constexpr,
):
    """See the module. Grid: any number of programs up to the number of steps."""
    K_STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    HALVES: tl.constexpr = 2 if GATED else 1  # a gated tile has as many gate rows as up rows
    HALF: tl.constexpr = BLOCK_N // HALVES
    steps = (N + BLOCK_N - 1) // BLOCK_N * K_STEPS
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    begin = stretch_start(program, steps, programs)
    end = stretch_start(program + 1, steps, programs)
    rows = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    # Weights are nobody's output: they are on their way while the previous kernel ends.
    for ahead in tl.static_range(PREFETCH):
        _prefetch_step(weight_at, begin + ahead, end, N, K, BLOCK_N, BLOCK_K, HALVES)
    wait_for_previous(CHAINED)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in tl.range(begin, end, num_stages=STAGES):
        tile = step // K_STEPS
        k = (step % K_STEPS) * BLOCK_K
        if PREFETCH > 0:
            _prefetch_step(weight_at, step + PREFETCH, end, N, K, BLOCK_N, BLOCK_K, HALVES)
        if BULK:
            a = x.load([0, k])
            b = weight.load([0, tile * HALF, k]).reshape(BLOCK_N, BLOCK_K)
        else:
            seen = (rows < m)[:, None]
            n = tl.minimum(tile * HALF + columns % HALF, N // HALVES - 1)  # rows past the end are not stored
            n += columns // HALF * (N // HALVES)
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
            starts_tile = begin <= tile * K_STEPS
            if ends_tile & starts_tile:
                _finish(y, acc, tile, m, N, BLOCK_M, BLOCK_N, GATED)
            else:
                # A stretch leaves at most two parts: of the tile it begins in, and of the one it ends in.
                slot = 2 * program + starts_tile.to(tl.int32)
                _put(
                    parts + slot.to(tl.int64) * (BLOCK_M * BLOCK_N), BLOCK_N, acc, m, BLOCK_N, BLOCK_M, BLOCK_N
                )  # fmt: skip
            acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)


@triton.jit(do_not_specialize=["m", "programs"])
def finish_matmul_kernel(
    y,  # [m, N], gated [m, N / 2]
    parts,  # [2 * programs, BLOCK_M, BLOCK_N] float32
    m,
    N,
    programs,
    K_STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    GATED: tl.constexpr,
    CHAINED: tl.constexpr,
):
    """Add up the tile that the end of a stretch cuts. Grid: programs - 1 ends x ceil(m / ROWS)."""
    wait_for_previous(CHAINED)
    steps = (N + BLOCK_N - 1) // BLOCK_N * K_STEPS
    low = tl.program_id(0)
    cut = stretch_start(low + 1, steps, programs)
    begin = cut // K_STEPS * K_STEPS
    # Of several ends in a tile the first one does it.
    if (cut > begin) & (stretch_start(low, steps, programs) <= begin):
        first_row = tl.program_id(1) * ROWS
        at = parts + first_row * BLOCK_N
        inside = tl.arange(0, ROWS)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        seen = (tl.arange(0, ROWS) < m - first_row)[:, None]
        total = tl.load(at + (2 * low + 1).to(tl.int64) * (BLOCK_M * BLOCK_N) + inside, mask=seen, other=0.0)
        # There is a second part; outside of the loop its load does not wait for the first one's.
        total += tl.load(at + (2 * low + 2) * (BLOCK_M * BLOCK_N) + inside, mask=seen, other=0.0)
        for program in range(low + 2, owner(begin + K_STEPS - 1, steps, programs) + 1):
            total += tl.load(at + (2 * program) * (BLOCK_M * BLOCK_N) + inside, mask=seen, other=0.0)
        width = N // 2 if GATED else N
        _finish(y + first_row * width, total, begin // K_STEPS, m - first_row, N, ROWS, BLOCK_N, GATED)


def skinny_product(
    x: Tensor,
    weight: Tensor,
    units: int,
    workspace: Workspace,
    tile: Tile,
    gated: bool = False,
    chained: bool = False,
) -> Product:
    """x [M, K] by weight [N, K], M <= tile.block_m: [M, N] of x's type, to be finished by `finish_matmul`.

    Or, unless gated, by whoever reads it next. ``gated``: the first half of the weight's rows is the gate, and
    silu(gate) * up is given, [M, N / 2]. ``chained``: see `rapid_kernels.gpu.chain`.
    Rows of x are contiguous, the weight as a whole; with ``tile.bulk`` both start at multiples of 16 bytes and so do
    their rows. Raises ValueError when they do not fit the tile or the workspace.
    """
    m, k = x.shape
    n = weight.shape[0]
    if m > tile.block_m:
        raise ValueError(f"{m} rows do not fit a tile of {tile.block_m}")
    if not weight.is_contiguous() or x.stride(1) != 1:
        raise ValueError(f"not contiguous: x has strides {x.stride()}, the weight {weight.stride()}")
    k_steps = triton.cdiv(k, tile.block_k)
    tiles, most = triton.cdiv(n, tile.block_n), min(units * tile.per_unit, tile.most)
    programs = min(most, tiles * k_steps) if tile.spread else whole_programs(tiles, k_steps, most)
    # Programs that do not fill the units must not start early: they would crowd on those that are free first.
    early = chained and programs == most
    workspace.require(2 * programs * tile.block_m * tile.block_n)
    halves = 1 + gated
    y = torch.empty((m, n // halves), dtype=x.dtype, device=x.device)
    a: Tensor | TensorDescriptor = x
    b: Tensor | TensorDescriptor = weight
    if tile.bulk:
        row = weight.stride(0)
        block = [halves, tile.block_n // halves, tile.block_k]
        a = TensorDescriptor(x, [m, k], [x.stride(0), 1], [tile.block_m, tile.block_k])
        b = TensorDescriptor(weight, [halves, n // halves, k], [n // halves * row, row, 1], block)
    skinny_matmul_kernel[(programs,)](
        a, b, weight, y, workspace.parts, m, n, x.stride(0), k,
        tile.block_m, tile.block_n, tile.block_k, tile.stages, tile.bulk, gated, early, tile.prefetched,
        num_warps=tile.warps, **options(early),
    )  # fmt: skip
    return Product(y, workspace.parts, n, programs, k_steps, tile.block_m, tile.block_n)


def finish_matmul(product: Product, gated: bool, chained: bool) -> Tensor:
    """Add up what is in parts: y as a whole."""
    y, m = product.y, product.y.shape[0]
    if product.most_parts > 1:
        finish_matmul_kernel[(product.programs - 1, triton.cdiv(m, FINISHED_ROWS))](
            y, product.parts, m, product.n, product.programs, product.k_steps, product.block_m, product.block_n,
            FINISHED_ROWS, gated, chained,
            num_warps=4, **options(chained),
        )  # fmt: skip
    return y


def whole_programs(tiles: int, k_steps: int, most: int) -> int:
    """How many programs share the tiles: as many as there may be, or somewhat fewer if then no tile is cut.

    From 64 on, programs are more than memory needs.
    """
    fewest = min(64, most - most // 8)
    whole = (p for p in range(most, fewest - 1, -1) if tiles % p == 0)
    return next(whole, min(most, tiles * k_steps))


def skinny_matmul_reference(x: Tensor, weight: Tensor, gated: bool = False) -> Tensor:
    """The same in float32 arithmetic."""
    y = x.float() @ weight.float().t()
    if gated:
        gate, up = y.chunk(2, -1)
        y = silu(gate) * up
    return y.to(x.dtype)

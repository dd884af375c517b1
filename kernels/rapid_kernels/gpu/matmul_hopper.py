# ruff: noqa: N803, N806 (constants of a kernel are upper case)
"""`rapid_kernels.gpu.matmul` for the fewest rows on Hopper, in Gluon: the same stretches, by warps with one task each.

One warp starts the copies, four multiply. Weights are nobody's output, so a chained program fills its stages with
them before it waits for the kernels launched earlier, and adds x when that is there. Weights are the first operand, in
rows of 64 as the tensor cores take them, and x is the second: its rows are padded to a power of two of 8 or more.
"""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.extra import cuda

from rapid_kernels.gpu.chain import options
from rapid_kernels.gpu.matmul import whole_programs
from rapid_kernels.gpu.prefill_hopper import GLUON_TYPES
from rapid_kernels.gpu.product import Product
from rapid_kernels.gpu.workspace import Workspace

MAX_ROWS = 128
SHARING_BYTES = 100 << 10
"""Two programs of so much shared memory fit a unit, if each also takes half of its registers."""


@dataclass(frozen=True, slots=True)
class SlimTile:
    """How one launch cuts its work."""

    block_n: int
    """Rows of the weight: 64 or 128 a sum. A gated tile has two sums, of as many gate rows as up rows."""
    block_k: int
    memory: int
    """Bytes of shared memory for the steps whose loads are in flight, the one computed included."""
    per_unit: int = 1
    """Programs a unit."""
    spread: bool = False
    """Use every program, however many tiles that cuts: where whoever reads the product next adds the parts up."""
    most: int = 1 << 20
    """Programs at most."""

    def stages(self, rows: int) -> int:
        """Steps that the memory holds, of 16-bit numbers."""
        return self.memory // (2 * (self.block_n + rows) * self.block_k)


@gluon.jit
def _bring_weight(
    weight, weights, arrived, step, slot, N,
    K_STEPS: gl.constexpr, PARTS: gl.constexpr, BYTES: gl.constexpr,
):  # fmt: skip
    """Start the copies of a step's weights into a slot, which is to receive BYTES in all."""
    SHARE: gl.constexpr = weight.block_type.shape[0]
    BLOCK_K: gl.constexpr = weight.block_type.shape[1]
    first = step // K_STEPS * SHARE
    k = step % K_STEPS * BLOCK_K
    mbarrier.expect(arrived.index(slot), BYTES)
    for part in gl.static_range(PARTS):
        at = weights.index(PARTS * slot + part)
        tma.async_copy_global_to_shared(weight, [first + part * (N // PARTS), k], arrived.index(slot), at)


@gluon.jit
def _bring_rows(x, rows_of_x, arrived, step, slot, K_STEPS: gl.constexpr):
    """Start the copy of a step's x."""
    k = step % K_STEPS * x.block_type.shape[1]
    tma.async_copy_global_to_shared(x, [0, k], arrived.index(slot), rows_of_x.index(slot))


@gluon.jit
def _copy(
    x, weight, rows_of_x, weights, arrived, free, begin, end, N,
    K_STEPS: gl.constexpr, STAGES: gl.constexpr, PARTS: gl.constexpr, BYTES: gl.constexpr,
    CHAINED: gl.constexpr,
):  # fmt: skip
    """The task of the copying warp."""
    for ahead in gl.static_range(STAGES):
        if begin + ahead < end:
            _bring_weight(weight, weights, arrived, begin + ahead, ahead, N, K_STEPS, PARTS, BYTES)
    if CHAINED:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    for ahead in gl.static_range(STAGES):
        if begin + ahead < end:
            _bring_rows(x, rows_of_x, arrived, begin + ahead, ahead, K_STEPS)
    for step in range(begin + STAGES, end):
        turn = step - begin
        slot = turn % STAGES
        mbarrier.wait(free.index(slot), (turn // STAGES + 1) & 1)
        _bring_weight(weight, weights, arrived, step, slot, N, K_STEPS, PARTS, BYTES)
        _bring_rows(x, rows_of_x, arrived, step, slot, K_STEPS)


@gluon.jit
def _put(at, row_stride, block, m, width, LAYOUT: gl.constexpr):
    """Store the transpose of block[:width, :m]."""
    columns = gl.expand_dims(gl.arange(0, block.shape[0], layout=gl.SliceLayout(1, LAYOUT)), 1)
    rows = gl.expand_dims(gl.arange(0, block.shape[1], layout=gl.SliceLayout(0, LAYOUT)), 0)
    gl.store(at + rows * row_stride + columns, block.to(at.dtype.element_ty), mask=(rows < m) & (columns < width))


@gluon.jit
def _multiply(
    rows_of_x, weights, arrived, free, y, parts, program, begin, end, m, N,
    K_STEPS: gl.constexpr, STAGES: gl.constexpr, ROWS: gl.constexpr, PARTS: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """The task of the multiplying warps. A gated tile has two sums of SHARE columns, another one uses the first."""
    SHARE: gl.constexpr = weights.shape[1]
    BLOCK_N: gl.constexpr = PARTS * SHARE
    first = warpgroup_mma_init(gl.zeros((SHARE, ROWS), gl.float32, layout=LAYOUT))
    second = first
    for step in range(begin, end):
        turn = step - begin
        slot = turn % STAGES
        tile = step // K_STEPS
        goes_on = (step % K_STEPS != 0) & (step != begin)
        mbarrier.wait(arrived.index(slot), turn // STAGES & 1)
        x = rows_of_x.index(slot).permute((1, 0))
        first = warpgroup_mma(weights.index(PARTS * slot), x, first, use_acc=goes_on, is_async=True)
        if PARTS == 2:
            second = warpgroup_mma(weights.index(2 * slot + 1), x, second, use_acc=goes_on, is_async=True)
            first_now, second_now = warpgroup_mma_wait(num_outstanding=2, deps=[first, second])
            second = warpgroup_mma_init(second_now)
        else:
            first_now = warpgroup_mma_wait(num_outstanding=1, deps=[first])
        first = warpgroup_mma_init(first_now)
        mbarrier.arrive(free.index((turn + STAGES - 1) % STAGES), pred=turn > 0)  # the turn before is done with it
        ends_tile = (step + 1) % K_STEPS == 0
        if ends_tile | (step == end - 1):
            starts_tile = begin <= tile * K_STEPS
            # A stretch leaves at most two parts: of the tile it begins in, and of the one it ends in.
            slot_of_part = 2 * program + starts_tile.to(gl.int32)
            part = parts + slot_of_part.to(gl.int64) * (ROWS * BLOCK_N)
            column = tile * SHARE
            width = N // PARTS - column
            if PARTS == 2:
                total, other = warpgroup_mma_wait(num_outstanding=0, deps=[first, second])
                if ends_tile & starts_tile:
                    _put(y + column, N // 2, total / (1 + gl.exp(-total)) * other, m, width, LAYOUT)
                else:
                    _put(part, BLOCK_N, total, m, BLOCK_N, LAYOUT)
                    _put(part + SHARE, BLOCK_N, other, m, BLOCK_N, LAYOUT)
            else:
                total = warpgroup_mma_wait(num_outstanding=0, deps=[first])
                if ends_tile & starts_tile:
                    _put(y + column, N, total, m, width, LAYOUT)
                else:
                    _put(part, BLOCK_N, total, m, BLOCK_N, LAYOUT)
    if PARTS == 2:
        warpgroup_mma_wait(num_outstanding=0, deps=[first, second])
    else:
        warpgroup_mma_wait(num_outstanding=0, deps=[first])


@gluon.jit(do_not_specialize=["m"])
def slim_matmul_kernel(
    x,  # descriptor of [m, K] with blocks [ROWS, BLOCK_K]
    weight,  # descriptor of [N, K] with blocks [BLOCK_N / PARTS, BLOCK_K]
    y,  # [m, N / PARTS]
    parts,  # [2 * programs, ROWS, BLOCK_N] float32
    m,
    N,
    K: gl.constexpr,
    ROWS: gl.constexpr,
    STAGES: gl.constexpr,
    PARTS: gl.constexpr,
    CHAINED: gl.constexpr,
    num_warps: gl.constexpr,
):
    """See the modules. Grid: any number of programs up to the number of steps. PARTS: 2 if gated, else 1."""
    SHARE: gl.constexpr = weight.block_type.shape[0]
    BLOCK_K: gl.constexpr = weight.block_type.shape[1]
    K_STEPS: gl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    BYTES: gl.constexpr = PARTS * weight.block_type.nbytes + x.block_type.nbytes
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, ROWS, 16])
    steps = (N // PARTS + SHARE - 1) // SHARE * K_STEPS
    program = gl.program_id(0)
    programs = gl.num_programs(0)
    begin = program * steps // programs
    end = (program + 1) * steps // programs
    rows_of_x = gl.allocate_shared_memory(x.dtype, [STAGES, ROWS, BLOCK_K], x.layout)
    weights = gl.allocate_shared_memory(weight.dtype, [PARTS * STAGES, SHARE, BLOCK_K], weight.layout)
    arrived = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        mbarrier.init(arrived.index(slot), count=1)
        mbarrier.init(free.index(slot), count=1)
    fence_async_shared()
    gl.warp_specialize(
        [
            (_multiply, (rows_of_x, weights, arrived, free, y, parts, program, begin, end, m, N,
                         K_STEPS, STAGES, ROWS, PARTS, LAYOUT)),
            (_copy, (x, weight, rows_of_x, weights, arrived, free, begin, end, N,
                     K_STEPS, STAGES, PARTS, BYTES, CHAINED)),
        ],
        [1],
        [40],
    )  # fmt: skip


def slim_product(
    x: Tensor,
    weight: Tensor,
    units: int,
    workspace: Workspace,
    tile: SlimTile,
    gated: bool = False,
    chained: bool = False,
) -> Product:
    """`rapid_kernels.gpu.matmul.skinny_product` of at most MAX_ROWS rows; K is a multiple of 8.

    Raises ValueError for more rows, and for a gated product in tiles of 64: the tensor cores take no fewer a sum.
    """
    m, k = x.shape
    n = weight.shape[0]
    parts = 1 + gated
    if m > MAX_ROWS or tile.block_n // parts < 64:
        raise ValueError(f"{m} rows in {parts} sums do not fit {tile}")
    rows = max(8, triton.next_power_of_2(m))
    k_steps = triton.cdiv(k, tile.block_k)
    tiles, most = triton.cdiv(n, tile.block_n), min(units * tile.per_unit, tile.most)
    programs = min(most, tiles * k_steps) if tile.spread else whole_programs(tiles, k_steps, most)
    workspace.require(2 * programs * rows * tile.block_n)
    y = torch.empty((m, n // parts), dtype=x.dtype, device=x.device)
    blocks = [rows, tile.block_k], [tile.block_n // parts, tile.block_k]
    layouts = [gl.NVMMASharedLayout.get_default_for(block, GLUON_TYPES[x.dtype]) for block in blocks]
    slim_matmul_kernel[(programs,)](
        TensorDescriptor(x, [m, k], [x.stride(0), 1], blocks[0], layouts[0]),
        TensorDescriptor(weight, [n, k], [weight.stride(0), 1], blocks[1], layouts[1]),
        y, workspace.parts, m, n, k, rows, tile.stages(rows), parts, chained,
        num_warps=4, maxnreg=128 if tile.memory <= SHARING_BYTES else None, **options(chained),
    )  # fmt: skip
    return Product(y, workspace.parts, n, programs, k_steps, rows, tile.block_n)

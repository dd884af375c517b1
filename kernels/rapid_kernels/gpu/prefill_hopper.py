# ruff: noqa: N803, N806, SIM300 (constants of a kernel are upper case; one on the left is no Yoda)
"""`rapid_kernels.gpu.prefill` for Hopper, in Gluon: the same plan and contract, asynchronous products and copies.

While the tensor cores multiply a step's weights by its values, the next step's scores are made and their softmax is
taken (arXiv 2407.08608, section 3.2). So a turn has the scores of its step and the values of the step before; the bulk
copy engine brings the two tiles STAGES turns ahead, whole: every slot of the cache must hold a finite number, as in
`rapid_kernels.gpu.attention`. No window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.extra import cuda

from rapid_kernels.gpu.chain import options
from rapid_kernels.gpu.heads import padded_sizes
from rapid_kernels.gpu.pieces import BASE_2
from rapid_kernels.gpu.prompt_plan import ENTRY, PromptPlan, merge_pieces, require_parts
from rapid_kernels.gpu.workspace import Workspace
from rapid_kernels.layout import Ragged

GLUON_TYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


@dataclass(frozen=True, slots=True)
class HopperTile:
    """How one launch cuts its work."""

    queries: int = 128
    """Query vectors a tile; four warps take 64."""
    keys: int = 64
    """Keys a step, at most a block's."""
    stages: int = 3
    """Steps whose keys and values are held."""


@gluon.jit
def _slots(kv, KEYS: gl.constexpr, PADDED: gl.constexpr, STAGES: gl.constexpr):
    """Where the copies of STAGES turns go, keys and values [STAGES, KEYS, PADDED], and a barrier for each turn's."""
    keys = gl.allocate_shared_memory(kv.dtype, [STAGES, KEYS, PADDED], kv.layout)
    values = gl.allocate_shared_memory(kv.dtype, [STAGES, KEYS, PADDED], kv.layout)
    arrived = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        mbarrier.init(arrived.index(slot), count=1)
    fence_async_shared()
    return keys, values, arrived


@gluon.jit
def _place(table, step, KEYS: gl.constexpr, BLOCK_TOKENS: gl.constexpr):
    """Number of a step's key tile in the cache."""
    return gl.load(table + step * KEYS // BLOCK_TOKENS) * (BLOCK_TOKENS // KEYS) + step % (BLOCK_TOKENS // KEYS)


@gluon.jit
def _bring(
    kv, keys, values, arrived, turn, place, last_place, key_column, value_column,
    KEYS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Start the copies for a turn: the keys of its step and the values of the step before."""
    slot = turn % STAGES
    mbarrier.expect(arrived.index(slot), 2 * kv.block_type.nbytes)
    tma.async_copy_global_to_shared(kv, [place * KEYS, key_column], arrived.index(slot), keys.index(slot))
    tma.async_copy_global_to_shared(kv, [last_place * KEYS, value_column], arrived.index(slot), values.index(slot))


@gluon.jit
def _bring_first(
    kv, keys, values, arrived, table, steps, key_column, value_column,
    KEYS: gl.constexpr, BLOCK_TOKENS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Start the copies for the first STAGES turns, the first one's values for nobody; gives the last place."""
    place = _place(table, 0, KEYS, BLOCK_TOKENS)
    _bring(kv, keys, values, arrived, 0, place, place, key_column, value_column, KEYS, STAGES)
    for turn in gl.static_range(1, STAGES):
        if turn <= steps:
            next_place = _place(table, gl.minimum(turn, steps - 1), KEYS, BLOCK_TOKENS)
            _bring(kv, keys, values, arrived, turn, next_place, place, key_column, value_column, KEYS, STAGES)
            place = next_place
    return place


@gluon.jit
def _store_part(part, total, best, weight, QUERIES: gl.constexpr, PADDED: gl.constexpr):
    """Leave a piece's sums, values [QUERIES, PADDED] first, then maxima, then weights."""
    rows = gl.arange(0, QUERIES, layout=gl.SliceLayout(1, total.type.layout))
    columns = gl.arange(0, PADDED, layout=gl.SliceLayout(0, total.type.layout))
    gl.store(part + gl.expand_dims(rows * PADDED, 1) + gl.expand_dims(columns, 0), total)
    queries = gl.arange(0, QUERIES, layout=best.type.layout)
    gl.store(part + QUERIES * PADDED + queries, best)
    gl.store(part + QUERIES * (PADDED + 1) + queries, weight)


@gluon.jit
def _store_result(to, total, weight, inside, ROWWISE: gl.constexpr):
    """A whole tile's values over its weights, by the pointers ``to``."""
    result = total / gl.expand_dims(gl.convert_layout(weight, gl.SliceLayout(1, total.type.layout)), 1)
    gl.store(to, gl.convert_layout(result.to(to.dtype.element_ty), ROWWISE), mask=inside)


@gluon.jit
def _store(
    to, parts, tiles, tile, total, best, weight, inside,
    KV_HEADS: gl.constexpr, QUERIES: gl.constexpr, PADDED: gl.constexpr, ROWWISE: gl.constexpr, CUT: gl.constexpr,
):  # fmt: skip
    """Leave what the tile's piece gave: the result, where there is no other piece."""
    if CUT:  # triton 3.6 cannot compile a branch that is never taken
        if gl.load(tile + 7) > 1:
            slot = gl.program_id(0) - gl.load(tiles) * KV_HEADS
            part = parts + slot.to(gl.int64) * (QUERIES * (PADDED + 2))
            _store_part(part, total, best, weight, QUERIES, PADDED)
        else:
            _store_result(to, total, weight, inside, ROWWISE)
    else:
        _store_result(to, total, weight, inside, ROWWISE)


@gluon.jit
def _softmax(scores, best, scale):
    """Weights of a step's scores, its greatest so far, and what the older sums are to be multiplied by."""
    new = gl.maximum(best, gl.max(scores, 1) * scale)
    shares = gl.exp2(scores * scale - gl.expand_dims(new, 1))
    return shares, new, gl.exp2(best - new)


@gluon.jit
def _mask(scores, position, step, KEYS: gl.constexpr, SCORES: gl.constexpr):
    """Hide the keys behind each query's token."""
    keys = step * KEYS + gl.arange(0, KEYS, layout=gl.SliceLayout(0, SCORES))
    return gl.where(gl.expand_dims(position, 1) >= gl.expand_dims(keys, 0), scores, float("-inf"))


@gluon.jit
def _own(
    head, count, GROUP: gl.constexpr, DIM: gl.constexpr, HEADS: gl.constexpr, QUERIES: gl.constexpr,
    PADDED: gl.constexpr, ROWWISE: gl.constexpr,
):  # fmt: skip
    """Of a tile's queries: token in the tile [QUERIES]; place in the token, and if it exists [QUERIES, PADDED]."""
    token = gl.arange(0, QUERIES, layout=gl.SliceLayout(1, ROWWISE)) // HEADS
    of_group = gl.arange(0, QUERIES, layout=gl.SliceLayout(1, ROWWISE)) % HEADS
    dims = gl.arange(0, PADDED, layout=gl.SliceLayout(0, ROWWISE))
    inside = gl.expand_dims((token < count) & (of_group < GROUP), 1) & gl.expand_dims(dims < DIM, 0)
    return token, gl.expand_dims((head * GROUP + of_group) * DIM, 1) + gl.expand_dims(dims, 0), inside


@gluon.jit
def _queries(q, q_stride, first, inside, token, at, DTYPE: gl.constexpr, QUERIES: gl.constexpr, PADDED: gl.constexpr):
    """A tile's queries in shared memory, zeros where there are none."""
    loaded = gl.load(q + gl.expand_dims((first + token).to(gl.int64) * q_stride, 1) + at, mask=inside, other=0.0)
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([QUERIES, PADDED], DTYPE)
    query = gl.allocate_shared_memory(DTYPE, [QUERIES, PADDED], layout, loaded)
    fence_async_shared()
    return query


@gluon.jit
def _first_step(
    query, keys, arrived, position, scale,
    QUERIES: gl.constexpr, KEYS: gl.constexpr, SCORES: gl.constexpr, OPERAND: gl.constexpr,
):  # fmt: skip
    """Weights of the first step's scores as an operand, their greatest, and their sums."""
    best = gl.full((QUERIES,), float("-inf"), gl.float32, layout=gl.SliceLayout(1, SCORES))
    mbarrier.wait(arrived.index(0), 0)
    nothing = gl.zeros((QUERIES, KEYS), gl.float32, layout=SCORES)
    scores = warpgroup_mma(query, keys.index(0).permute((1, 0)), nothing, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(num_outstanding=0, deps=[scores])
    shares, best, _ = _softmax(_mask(scores, position, 0, KEYS, SCORES), best, scale)
    weight = gl.sum(shares, 1)
    return gl.convert_layout(shares.to(query.dtype), OPERAND), best, weight


@gluon.jit
def _walk(
    query, kv, keys, values, arrived, table, begin, end, steps, place, best, weight, total, shares, position,
    key_column, value_column, scale,
    QUERIES: gl.constexpr, KEYS: gl.constexpr, BLOCK_TOKENS: gl.constexpr, STAGES: gl.constexpr, SCORES: gl.constexpr,
    TOTAL: gl.constexpr, MASKED: gl.constexpr,
):  # fmt: skip
    """Turns [begin, end). ``place``: of the last step that was brought; ``shares``: weights of step begin - 1."""
    OPERAND: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=TOTAL, k_width=2)
    for turn in range(begin, end):
        slot = turn % STAGES
        mbarrier.wait(arrived.index(slot), turn // STAGES & 1)
        nothing = gl.zeros((QUERIES, KEYS), gl.float32, layout=SCORES)
        scores = warpgroup_mma(query, keys.index(slot).permute((1, 0)), nothing, use_acc=False, is_async=True)
        total = warpgroup_mma(shares, values.index(slot), total, is_async=True)
        # Behind the last step comes one turn for its values, which brings some keys again.
        next_place = _place(table, gl.minimum(turn + STAGES, steps - 1), KEYS, BLOCK_TOKENS)
        scores = warpgroup_mma_wait(num_outstanding=1, deps=[scores])
        if MASKED:
            scores = _mask(scores, position, turn, KEYS, SCORES)
        new_shares, best, old_scale = _softmax(scores, best, scale)
        weight = weight * old_scale + gl.sum(new_shares, 1)
        total = warpgroup_mma_wait(num_outstanding=0, deps=[total])
        if turn + STAGES <= steps:
            _bring(
                kv, keys, values, arrived, turn + STAGES, next_place, place, key_column, value_column, KEYS, STAGES
            )  # fmt: skip
        total = total * gl.expand_dims(gl.convert_layout(old_scale, gl.SliceLayout(1, TOTAL)), 1)
        shares = gl.convert_layout(new_shares.to(kv.dtype), OPERAND)
        place = next_place
    return place, best, weight, total, shares


@gluon.jit
def _last_values(shares, values, arrived, total, steps, STAGES: gl.constexpr):
    """The turn behind the last step, for its values: gives the total of all."""
    slot = steps % STAGES
    mbarrier.wait(arrived.index(slot), steps // STAGES & 1)
    total = warpgroup_mma(shares, values.index(slot), total, is_async=True)
    return warpgroup_mma_wait(num_outstanding=0, deps=[total])


@gluon.jit
def _end_behind_previous(FOLLOWS: gl.constexpr):
    """What ran beside the kernel before is not done before that is: one program, the last to start, waits for it."""
    if FOLLOWS:  # noqa: SIM102 (decided when compiling)
        if gl.program_id(0) == gl.num_programs(0) - 1:
            cuda.gdc_wait()


@gluon.jit(do_not_specialize=["table_stride"])
def hopper_prompt_attention_kernel(
    q,  # [T, KV_HEADS, GROUP, DIM], tokens q_stride apart
    kv,  # descriptor of [slots, 2 * KV_HEADS * DIM] with blocks [KEYS, PADDED]
    out,  # [T, KV_HEADS, GROUP, DIM]
    block_tables,  # [rows, table_stride] int32
    tiles,  # [1 + N, 8] int32
    parts,  # [most_cut, KV_HEADS, QUERIES * (PADDED + 2)] float32: values, maxima, weights
    table_stride,
    q_stride,
    scale,  # of the scores, in base 2
    KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    DIM: gl.constexpr,
    HEADS: gl.constexpr,
    PADDED: gl.constexpr,
    TOKENS: gl.constexpr,
    KEYS: gl.constexpr,
    BLOCK_TOKENS: gl.constexpr,
    STAGES: gl.constexpr,
    CUT: gl.constexpr,
    FOLLOWS: gl.constexpr,
    num_warps: gl.constexpr,
):
    """See the modules. Grid: N * KV_HEADS. Columns past DIM belong to another head: the queries have zeros there."""
    QUERIES: gl.constexpr = TOKENS * HEADS
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, KEYS, 16])
    TOTAL: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, PADDED, 16])
    OPERAND: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=TOTAL, k_width=2)
    ROWWISE: gl.constexpr = gl.BlockedLayout([1, 8], [16, 2], [num_warps, 1], [1, 0])
    head = gl.program_id(0) % KV_HEADS
    tile = tiles + (1 + gl.program_id(0) // KV_HEADS) * ENTRY
    first = gl.load(tile)
    count = gl.load(tile + 1)
    if count == 0:
        _end_behind_previous(FOLLOWS)
        return
    oldest = gl.load(tile + 2)
    table = block_tables + gl.load(tile + 3).to(gl.int64) * table_stride + gl.load(tile + 4)
    steps = (gl.load(tile + 5) + KEYS - 1) // KEYS
    key_column = head * DIM
    value_column = (KV_HEADS + head) * DIM

    keys, values, arrived = _slots(kv, KEYS, PADDED, STAGES)
    place = _bring_first(
        kv, keys, values, arrived, table, steps, key_column, value_column, KEYS, BLOCK_TOKENS, STAGES
    )  # fmt: skip

    token, at, inside = _own(head, count, GROUP, DIM, HEADS, QUERIES, PADDED, ROWWISE)
    query = _queries(q, q_stride, first, inside, token, at, kv.dtype, QUERIES, PADDED)
    position = oldest + gl.arange(0, QUERIES, layout=gl.SliceLayout(1, SCORES)) // HEADS
    total = gl.zeros((QUERIES, PADDED), gl.float32, layout=TOTAL)
    shares, best, weight = _first_step(query, keys, arrived, position, scale, QUERIES, KEYS, SCORES, OPERAND)
    if STAGES <= steps:
        next_place = _place(table, gl.minimum(STAGES, steps - 1), KEYS, BLOCK_TOKENS)
        _bring(kv, keys, values, arrived, STAGES, next_place, place, key_column, value_column, KEYS, STAGES)
        place = next_place

    # All of the tile's tokens see the key tiles before this one whole.
    whole = gl.maximum(gl.minimum((oldest + 1) // KEYS, steps), 1)
    place, best, weight, total, shares = _walk(
        query, kv, keys, values, arrived, table, 1, whole, steps, place, best, weight, total, shares, position,
        key_column, value_column, scale, QUERIES, KEYS, BLOCK_TOKENS, STAGES, SCORES, TOTAL, False,
    )  # fmt: skip
    place, best, weight, total, shares = _walk(
        query, kv, keys, values, arrived, table, whole, steps, steps, place, best, weight, total, shares, position,
        key_column, value_column, scale, QUERIES, KEYS, BLOCK_TOKENS, STAGES, SCORES, TOTAL, True,
    )  # fmt: skip
    total = _last_values(shares, values, arrived, total, steps, STAGES)
    to = out + gl.expand_dims((first + token).to(gl.int64) * (KV_HEADS * GROUP * DIM), 1) + at
    _store(to, parts, tiles, tile, total, best, weight, inside, KV_HEADS, QUERIES, PADDED, ROWWISE, CUT)
    _end_behind_previous(FOLLOWS)


def hopper_prompt_attention(
    q: Tensor,
    kv: Tensor,
    ragged: Ragged,
    plan: PromptPlan,
    tile: HopperTile,
    workspace: Workspace,
    out: Tensor | None = None,
    follows: bool = False,
) -> Tensor:
    """`rapid_kernels.gpu.prefill.prompt_attention` without a window; D is a multiple of 8.

    ``follows``: runs beside the launch before, see `rapid_kernels.gpu.chain`.
    """
    tokens, heads, dim = q.shape
    slots, _, kv_heads, _ = kv.shape
    group = heads // kv_heads
    padded_heads, padded = padded_sizes(group, dim)
    require_parts(plan, workspace, kv_heads, plan.tile_tokens * padded_heads, padded)
    block = [min(tile.keys, ragged.block_tokens), padded]
    layout = gl.NVMMASharedLayout.get_default_for(block, GLUON_TYPES[kv.dtype])
    width = 2 * kv_heads * dim
    cache = TensorDescriptor(kv.view(slots, width), [slots, width], [width, 1], block, layout)
    if out is None:
        out = torch.empty((tokens, heads * dim), dtype=q.dtype, device=q.device)
    hopper_prompt_attention_kernel[(plan.most * kv_heads,)](
        q, cache, out, ragged.block_tables, plan.tiles, workspace.parts, ragged.block_tables.stride(0), q.stride(0),
        dim**-0.5 * BASE_2,
        kv_heads, group, dim, padded_heads, padded, plan.tile_tokens, block[0], ragged.block_tokens, tile.stages,
        plan.cut, follows,
        num_warps=tile.queries // 16, **options(follows),
    )  # fmt: skip
    merge_pieces(out, plan, workspace, kv_heads, group, dim)
    return out

# ruff: noqa: N803, N806 (constants of a kernel are upper case)
"""`rapid_kernels.gpu.attention` for Hopper, in Gluon: the same plan, stretches, parts and contract, less work a tile.

What limits decode attention beside prompts is power, and on few units the chain of one tile. So the tensor cores get
queries padded to 8 rather than 16, which halves the softmax; a row's queries are loaded once, while the row before is
walked; tiles that are seen whole are not masked; and few barriers order a tile, where Triton's own pipeline has many.
"""

import torch
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
from rapid_kernels.gpu.decode_call import HOPPER_TOKENS, DecodeCall
from rapid_kernels.gpu.pieces import BASE_2
from rapid_kernels.gpu.prefill_hopper import GLUON_TYPES

SAFE_EXPONENT = gl.constexpr(64.0)
"""See `rapid_kernels.gpu.attention`."""


@gluon.jit
def _exp2(x):
    """2^x; results below 2^-126 are 0."""
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], gl.float32, is_pure=True, pack=1)


@gluon.jit
def _bring(kv, keys, values, arrived, slot, tile, key_column, value_column):
    """Start the copies of a tile's keys and values into a slot."""
    token = (tile & 0xFFFFFFFF).to(gl.int32) * kv.block_type.shape[0]
    mbarrier.expect(arrived.index(slot), 2 * kv.block_type.nbytes)
    tma.async_copy_global_to_shared(kv, [token, key_column], arrived.index(slot), keys.index(slot))
    tma.async_copy_global_to_shared(kv, [token, value_column], arrived.index(slot), values.index(slot))


@gluon.jit
def _load_queries(
    q, row, rows, q_stride, head,
    GROUP: gl.constexpr, DIM: gl.constexpr, QUERIES: gl.constexpr, PADDED: gl.constexpr, ROWWISE: gl.constexpr,
):  # fmt: skip
    """A row's queries of a KV head, [QUERIES, PADDED], zeros where there are none."""
    of_group = gl.arange(0, QUERIES, layout=gl.SliceLayout(1, ROWWISE))
    dims = gl.arange(0, PADDED, layout=gl.SliceLayout(0, ROWWISE))
    inside = gl.expand_dims(of_group < GROUP, 1) & gl.expand_dims(dims < DIM, 0)
    at = gl.expand_dims((head * GROUP + of_group) * DIM, 1) + gl.expand_dims(dims, 0)
    return gl.load(q + row.to(gl.int64) * q_stride + at, mask=inside & (row < rows), other=0.0)


@gluon.jit
def _leave(
    out, parts, row, group, head, ends_row, starts_row, best, weight, total,
    KV_HEADS: gl.constexpr, GROUP: gl.constexpr, DIM: gl.constexpr, QUERIES: gl.constexpr, PADDED: gl.constexpr,
):  # fmt: skip
    """Store what a stretch has of a row: its result, where it has all of it, else a part."""
    queries = gl.arange(0, QUERIES, layout=gl.SliceLayout(0, total.type.layout))
    dims = gl.arange(0, PADDED, layout=gl.SliceLayout(1, total.type.layout))
    if ends_row & starts_row:
        to = out + (row.to(gl.int64) * KV_HEADS + head) * (GROUP * DIM)
        inside = gl.expand_dims(dims < DIM, 1) & gl.expand_dims(queries < GROUP, 0)
        result = (total / gl.expand_dims(weight, 0)).to(out.dtype.element_ty)
        gl.store(to + gl.expand_dims(queries * DIM, 0) + gl.expand_dims(dims, 1), result, mask=inside)
    else:
        # A stretch leaves at most two parts: of the row it begins in, and of the one it ends in.
        slot = (2 * group + starts_row.to(gl.int32)) * KV_HEADS + head
        part = parts + slot.to(gl.int64) * ((PADDED + 2) * QUERIES)
        gl.store(part + gl.expand_dims(queries * PADDED, 0) + gl.expand_dims(dims, 1), total)
        gl.store(part + QUERIES * PADDED + queries, best)
        gl.store(part + QUERIES * (PADDED + 1) + queries, weight)


@gluon.jit
def _weigh(scores, best, outgrown, starts, scale, EXACT: gl.constexpr):
    """Weights of a tile's scores, relative to the greatest so far (EXACT) or of the row's first tile.

    Gives them, what they are relative to, how far scores outgrew that, and what older sums are to be multiplied by.
    """
    if EXACT:
        older = gl.where(starts, float("-inf"), best)
        best = gl.maximum(older, gl.max(scores, 0) * scale)
        return _exp2(scores * scale - gl.expand_dims(best, 0)), best, outgrown, _exp2(older - best)
    if starts:
        best = gl.max(scores, 0) * scale
    relative = scores * scale - gl.expand_dims(best, 0)
    return _exp2(relative), best, gl.maximum(outgrown, relative), best


@gluon.jit
def _walk(
    q, kv, out, tiles, first, parts, rows, begin, end, group, head, q_stride, scale,
    query, shares, keys, values, arrived, turn,
    KV_HEADS: gl.constexpr, GROUP: gl.constexpr, DIM: gl.constexpr, QUERIES: gl.constexpr, PADDED: gl.constexpr,
    STAGES: gl.constexpr, EXACT: gl.constexpr, LAYOUT: gl.constexpr, ROWWISE: gl.constexpr,
):  # fmt: skip
    """Walk a stretch of at least one tile; ``turn``: how many tiles were walked before.

    Gives by what power of two the greatest score outgrew its reference, 0 if EXACT.
    """
    TOKENS: gl.constexpr = kv.block_type.shape[0]
    key_column = head * DIM
    value_column = (KV_HEADS + head) * DIM
    for ahead in gl.static_range(STAGES):
        if begin + ahead < end:
            tile = gl.load(tiles + begin + ahead)
            _bring(kv, keys, values, arrived, (turn + ahead) % STAGES, tile, key_column, value_column)
    tile = gl.load(tiles + begin)
    row = (tile >> 32).to(gl.int32) & 1023
    query.store(_load_queries(q, row, rows, q_stride, head, GROUP, DIM, QUERIES, PADDED, ROWWISE))
    fence_async_shared()
    coming = _load_queries(q, row + 1, rows, q_stride, head, GROUP, DIM, QUERIES, PADDED, ROWWISE)

    tokens = gl.arange(0, TOKENS, layout=gl.SliceLayout(1, LAYOUT))
    best = gl.full((QUERIES,), float("-inf"), gl.float32, layout=gl.SliceLayout(0, LAYOUT))
    weight = gl.zeros((TOKENS, QUERIES), gl.float32, layout=LAYOUT)  # summed over tokens at the end of a row only
    total = gl.zeros((PADDED, QUERIES), gl.float32, layout=LAYOUT)
    outgrown = gl.full((TOKENS, QUERIES), float("-inf"), gl.float32, layout=LAYOUT)
    starts = begin < end
    slot = turn % STAGES
    phase = turn // STAGES & 1
    for step in range(begin, end):
        rest = (tile >> 32).to(gl.int32)
        low = (rest >> 18) & 127
        high = (rest >> 10) & 255
        ends_row = (rest >> 25) == 1
        tile = gl.load(tiles + gl.minimum(step + 1, end - 1))
        later = gl.load(tiles + gl.minimum(step + STAGES, end - 1))
        mbarrier.wait(arrived.index(slot), phase)
        nothing = gl.zeros((TOKENS, QUERIES), gl.float32, layout=LAYOUT)
        scores = warpgroup_mma(keys.index(slot), query.permute((1, 0)), nothing, use_acc=False, is_async=True)
        scores = warpgroup_mma_wait(num_outstanding=0, deps=[scores])
        if (low > 0) | (high < TOKENS):
            seen = (tokens < high) & (tokens >= low)
            scores = gl.where(gl.expand_dims(seen, 1), scores, float("-inf"))
        new, best, outgrown, old_scale = _weigh(scores, best, outgrown, starts, scale, EXACT)
        if EXACT:
            weight = weight * gl.expand_dims(old_scale, 0)
            total = total * gl.expand_dims(old_scale, 0)
        weight += new
        shares.store(new.to(kv.dtype).permute((1, 0)))
        fence_async_shared()
        total = warpgroup_mma(
            values.index(slot).permute((1, 0)), shares.permute((1, 0)), total, use_acc=starts == 0, is_async=True
        )  # fmt: skip
        total = warpgroup_mma_wait(num_outstanding=0, deps=[total])
        if step + STAGES < end:
            _bring(kv, keys, values, arrived, slot, later, key_column, value_column)
        if ends_row | (step == end - 1):
            starts_row = begin <= gl.load(first + row)
            _leave(
                out, parts, row, group, head, ends_row, starts_row, best, gl.sum(weight, 0), total,
                KV_HEADS, GROUP, DIM, QUERIES, PADDED,
            )  # fmt: skip
            weight = gl.zeros((TOKENS, QUERIES), gl.float32, layout=LAYOUT)
            row += 1
            query.store(coming)
            fence_async_shared()
            coming = _load_queries(q, row + 1, rows, q_stride, head, GROUP, DIM, QUERIES, PADDED, ROWWISE)
        starts = ends_row
        slot += 1
        if slot == STAGES:
            slot = 0
            phase ^= 1
    if EXACT:
        return 0.0
    return gl.max(gl.max(outgrown, 0), 0)


@gluon.jit(do_not_specialize=["rows"])
def hopper_decode_attention_kernel(
    q,  # [rows, KV_HEADS, GROUP, DIM], rows q_stride apart
    kv,  # descriptor of [slots, 2 * KV_HEADS * DIM] with blocks [TOKENS, PADDED]
    out,  # [rows, KV_HEADS, GROUP, DIM]
    tiles,  # [max_tiles] int64
    first,  # [rows + 1] int32
    parts,  # [2 * groups, KV_HEADS, QUERIES * (PADDED + 2)] float32: values, maxima, weights
    rows,
    q_stride,
    scale,  # of the scores, in base 2
    KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    DIM: gl.constexpr,
    QUERIES: gl.constexpr,
    PADDED: gl.constexpr,
    STAGES: gl.constexpr,
    EXACT: gl.constexpr,
    CHAINED: gl.constexpr,
    LEADS: gl.constexpr,
    num_warps: gl.constexpr,
):
    """See the modules. Grid: a multiple of KV_HEADS. Columns past DIM are another head's: the queries have zeros."""
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, QUERIES, 16])
    ROWWISE: gl.constexpr = gl.BlockedLayout([1, 8], [32 * 8 // PADDED, PADDED // 8], [num_warps, 1], [1, 0])
    TOKENS: gl.constexpr = kv.block_type.shape[0]
    QUERY: gl.constexpr = gl.NVMMASharedLayout.get_default_for([QUERIES, PADDED], kv.dtype)
    SHARES: gl.constexpr = gl.NVMMASharedLayout.get_default_for([QUERIES, TOKENS], kv.dtype)
    keys = gl.allocate_shared_memory(kv.dtype, [STAGES, TOKENS, PADDED], kv.layout)
    values = gl.allocate_shared_memory(kv.dtype, [STAGES, TOKENS, PADDED], kv.layout)
    query = gl.allocate_shared_memory(kv.dtype, [QUERIES, PADDED], QUERY)
    shares = gl.allocate_shared_memory(kv.dtype, [QUERIES, TOKENS], SHARES)
    arrived = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        mbarrier.init(arrived.index(slot), count=1)
    fence_async_shared()
    if CHAINED:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    if LEADS:
        cuda.gdc_launch_dependents()
    head = gl.program_id(0) % KV_HEADS
    group = gl.program_id(0) // KV_HEADS
    steps = gl.load(first + rows)
    groups = gl.minimum(gl.num_programs(0) // KV_HEADS, steps)
    if group < groups:
        begin = group * steps // groups
        end = (group + 1) * steps // groups
        outgrown = _walk(
            q, kv, out, tiles, first, parts, rows, begin, end, group, head, q_stride, scale,
            query, shares, keys, values, arrived, 0,
            KV_HEADS, GROUP, DIM, QUERIES, PADDED, STAGES, EXACT, LAYOUT, ROWWISE,
        )  # fmt: skip
        if not EXACT:  # noqa: SIM102 (decided when compiling)
            if outgrown > SAFE_EXPONENT:
                _walk(
                    q, kv, out, tiles, first, parts, rows, begin, end, group, head, q_stride, scale,
                    query, shares, keys, values, arrived, end - begin,
                    KV_HEADS, GROUP, DIM, QUERIES, PADDED, STAGES, True, LAYOUT, ROWWISE,
                )  # fmt: skip


def attend_decode_hopper(call: DecodeCall, leads: bool) -> None:
    """`rapid_kernels.gpu.attention.attend_decode` of a call whose tile is for Hopper."""
    q, kv, tile = call.q, call.kv, call.tile
    padded = call.shape[-1]
    slots, width = kv.shape[0], kv[0].numel()
    block = [HOPPER_TOKENS, padded]
    layout = gl.NVMMASharedLayout.get_default_for(block, GLUON_TYPES[kv.dtype])
    hopper_decode_attention_kernel[(call.groups * call.shape[0],)](
        q, TensorDescriptor(kv.view(slots, width), [slots, width], [width, 1], block, layout), call.out,
        call.plan.tiles, call.plan.first, call.workspace.parts, q.shape[0], q.stride(0), q.shape[2] ** -0.5 * BASE_2,
        *call.shape, tile.stages, q.dtype == torch.float16, call.early, leads,
        num_warps=4, **options(call.early),
    )  # fmt: skip

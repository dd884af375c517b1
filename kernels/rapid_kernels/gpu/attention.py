# ruff: noqa: N803, N806 (constants of a Triton kernel are upper case)
"""Decode attention over the paged cache: one new token a row, its keys and values read exactly once.

The rows' sequences are cut into tiles of at most 64 tokens; the tiles of all rows, one row after another, form one
line. Each group of programs takes an equal, contiguous stretch of it, program h of the group reading KV head h, so
that a token's heads are read at about the same time (split-KV: arXiv 2311.01282; equal stretches: arXiv 2405.10480).
Rows cut by the end of a stretch are left in parts, which a second, small launch merges in the order of the tokens.

Contract: `plan_decode` once a step, then any number of `decode_attention` with that plan; one call on one stream at a
time per `Workspace`. The bulk copy engine brings whole tiles, so every slot of the cache must hold finite numbers
(zeros at first; `rope_and_cache` writes no others): slots that a row has not written have weight 0, but 0 * NaN is NaN.
Loads by pointers skip them. Numerics: products in the cache's type, softmax and sums in float32; the result depends on
the batch's lengths and the programs, never on timing. No program waits for another. Graph-safe: lengths and tables are
read on the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from triton.tools.tensor_descriptor import TensorDescriptor

from rapid_kernels.gpu.attention_hopper import attend_decode_hopper
from rapid_kernels.gpu.chain import let_next_start, options, wait, wait_for_previous
from rapid_kernels.gpu.decode_call import DecodeCall, DecodeTile
from rapid_kernels.gpu.decode_plan import DecodePlan
from rapid_kernels.gpu.pieces import BASE_2, merge_some
from rapid_kernels.gpu.stretches import owner, stretch_start
from rapid_kernels.gpu.workspace import Workspace

SAFE_EXPONENT = tl.constexpr(64.0)
"""Sums of weights up to 2^64 are far from float32's and bfloat16's limit of 2^127; float16 has no such room."""
MERGED_QUERIES, MERGED_PIECES, MERGING_WARPS = 1, 16, 1
"""That a program of the merging kernel holds at once: all pieces of a row that is alone on a large device. One warp
waits for no other; four queries by eight warps took twice as long as their loads."""


@triton.jit
def _put(
    at, block, row_stride, rows, columns,
    QUERIES: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Store block[:rows, :columns] of [QUERIES, PADDED].

    In halves: each passes through shared memory, of which the loads want all.
    """
    row = tl.arange(0, QUERIES)[:, None]
    column = tl.arange(0, PADDED // 2)[None, :]
    left, right = tl.split(tl.permute(tl.reshape(block, (QUERIES, 2, PADDED // 2)), (0, 2, 1)))
    first = at + row * row_stride + column
    tl.store(first, left.to(at.dtype.element_ty), mask=(row < rows) & (column < columns))
    tl.store(first + PADDED // 2, right.to(at.dtype.element_ty), mask=(row < rows) & (column + PADDED // 2 < columns))


@triton.jit
def _exp2(x, FAST: tl.constexpr):
    """2^x; results below 2^-126 may be 0."""
    if FAST:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    return tl.exp2(x)


@triton.jit
def _leave(
    out, parts, row, group, head, ends_row, starts_row, best, weight, total,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, QUERIES: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Store what a stretch has of a row: its result, where it has all of it, else a part (see `merge_some`)."""
    if ends_row & starts_row:
        at = out + (row.to(tl.int64) * KV_HEADS + head) * (GROUP * DIM)
        _put(at, tl.trans(total / weight[None, :]), DIM, GROUP, DIM, QUERIES, PADDED)
    else:
        # A stretch leaves at most two parts: of the row it begins in, and of the one it ends in.
        queries = tl.arange(0, QUERIES)
        slot = (2 * group + starts_row.to(tl.int32)) * KV_HEADS + head
        part = parts + slot.to(tl.int64) * ((PADDED + 2) * QUERIES)
        _put(part, tl.trans(total), PADDED, QUERIES, PADDED, QUERIES, PADDED)
        tl.store(part + QUERIES * PADDED + queries, best)
        tl.store(part + QUERIES * (PADDED + 1) + queries, weight)


@triton.jit
def _attend(
    q, kv, out, tiles, first, parts, begin, end, group, head, q_stride, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, QUERIES: tl.constexpr, PADDED: tl.constexpr,
    TILE: tl.constexpr, STAGES: tl.constexpr, BULK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk a stretch. Weights are relative to the greatest score so far (EXACT) or of the row's first tile.

    The latter needs no exchange between warps, and is as good unless a later score is so much greater that sums may
    overflow. Gives by what power of two the greatest outgrew its reference, 0 if EXACT.
    """
    TOKEN: tl.constexpr = 2 * KV_HEADS * DIM
    tokens = tl.arange(0, TILE)
    queries = tl.arange(0, QUERIES)
    dims = tl.arange(0, PADDED)
    best = tl.full((QUERIES,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((TILE, QUERIES), dtype=tl.float32)  # summed over tokens at the end of a row only
    total = tl.zeros((PADDED, QUERIES), dtype=tl.float32)
    outgrown = tl.full((TILE, QUERIES), float("-inf"), dtype=tl.float32)
    starts = begin < end
    for step in tl.range(begin, end, num_stages=STAGES):
        tile = tl.load(tiles + step)
        place = (tile & 0xFFFFFFFF).to(tl.int32)
        rest = (tile >> 32).to(tl.int32)
        row = rest & 1023
        seen = (tokens < (rest >> 10) & 255) & (tokens >= (rest >> 18) & 127)
        ends_row = (rest >> 25) == 1
        if BULK:
            query = q.load([row, head, 0, 0]).reshape(QUERIES, PADDED)
            key = kv.load([head, place * TILE, 0]).reshape(TILE, PADDED)
            value = kv.load([KV_HEADS + head, place * TILE, 0]).reshape(TILE, PADDED)
        else:
            q_at = q + row.to(tl.int64) * q_stride + (head * GROUP + queries)[:, None] * DIM + dims[None, :]
            pair = kv + place.to(tl.int64) * (TILE * TOKEN) + head * DIM + tokens[:, None] * TOKEN + dims[None, :]
            inside = seen[:, None] & (dims < DIM)[None, :]
            query = tl.load(q_at, mask=(queries < GROUP)[:, None] & (dims < DIM)[None, :], other=0.0)
            key = tl.load(pair, mask=inside, other=0.0)
            value = tl.load(pair + KV_HEADS * DIM, mask=inside, other=0.0)

        scores = tl.where(seen[:, None], tl.dot(key, query.T), float("-inf"))
        if EXACT:
            new = tl.maximum(best, tl.max(scores, 0) * scale)
            old_scale = _exp2(best - new, BULK)  # 0 in a row's first tile: what was summed before vanishes
            best = new
            shares = _exp2(scores * scale - best[None, :], BULK)
            weight = weight * old_scale[None, :] + shares
            total = total * old_scale[None, :]
        else:
            if starts:
                best = tl.max(scores, 0) * scale
            relative = scores * scale - best[None, :]
            outgrown = tl.maximum(outgrown, relative)
            shares = _exp2(relative, BULK)
            weight = tl.where(starts, 0.0, weight) + shares
            total = tl.where(starts, 0.0, total)
        total = tl.dot(value.T, shares.to(value.dtype), total)
        if ends_row | (step == end - 1):
            starts_row = begin <= tl.load(first + row)
            _leave(
                out, parts, row, group, head, ends_row, starts_row, best, tl.sum(weight, 0), total,
                KV_HEADS, GROUP, DIM, QUERIES, PADDED,
            )  # fmt: skip
        starts = ends_row
        if EXACT:
            best = tl.where(ends_row, float("-inf"), best)
    return 0.0 if EXACT else tl.max(outgrown)


@triton.jit(do_not_specialize=["rows"])
def decode_attention_kernel(
    q,  # [rows, KV_HEADS, GROUP, DIM], rows q_stride apart, or a descriptor with blocks [1, 1, QUERIES, PADDED]
    kv,  # [slots, 2, KV_HEADS, DIM], or a descriptor of [2 * KV_HEADS, slots, DIM] with blocks [1, TILE, PADDED]
    out,  # [rows, KV_HEADS, GROUP, DIM]
    tiles,  # [max_tiles] int64
    first,  # [rows + 1] int32
    parts,  # [2 * groups, KV_HEADS, QUERIES * (PADDED + 2)] float32: values, maxima, weights
    rows,
    q_stride,
    scale,  # of the scores, in base 2
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    BULK: tl.constexpr,
    EXACT: tl.constexpr,
    CHAINED: tl.constexpr,
    LEADS: tl.constexpr,
):
    """See the module. Grid: a multiple of KV_HEADS; QUERIES and PADDED are GROUP and DIM padded, at least 16."""
    wait_for_previous(CHAINED)
    let_next_start(LEADS)
    head = tl.program_id(0) % KV_HEADS
    group = tl.program_id(0) // KV_HEADS
    steps = tl.load(first + rows)
    groups = tl.minimum(tl.num_programs(0) // KV_HEADS, steps)
    begin = stretch_start(group, steps, groups)
    end = stretch_start(group + 1, steps, groups)
    if group >= groups:
        end = begin

    if EXACT:
        _attend(
            q, kv, out, tiles, first, parts, begin, end, group, head, q_stride, scale,
            KV_HEADS, GROUP, DIM, QUERIES, PADDED, TILE, STAGES, BULK, True,
        )  # fmt: skip
    else:
        outgrown = _attend(
            q, kv, out, tiles, first, parts, begin, end, group, head, q_stride, scale,
            KV_HEADS, GROUP, DIM, QUERIES, PADDED, TILE, STAGES, BULK, False,
        )  # fmt: skip
        if outgrown > SAFE_EXPONENT:
            _attend(
                q, kv, out, tiles, first, parts, begin, end, group, head, q_stride, scale,
                KV_HEADS, GROUP, DIM, QUERIES, PADDED, TILE, STAGES, BULK, True,
            )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def merge_kernel(
    out,  # [rows, KV_HEADS, GROUP, DIM]
    tiles,  # [max_tiles] int64
    first,  # [rows + 1] int32
    parts,  # [2 * groups, KV_HEADS, QUERIES * (PADDED + 2)] float32: values, maxima, weights
    rows,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    PADDED: tl.constexpr,
    AT_ONCE: tl.constexpr,
    PIECES: tl.constexpr,
    CHAINED: tl.constexpr,
    PLANNED: tl.constexpr,
):
    """Merge the row that the end of a stretch cuts: AT_ONCE queries by PIECES pieces at a time.

    Grid: groups x KV_HEADS x ceil(GROUP / AT_ONCE); the last group's end cuts none. PLANNED: the plan was there before
    the launch whose parts these are, so it is looked at while that runs.
    """
    let_next_start(CHAINED)
    if not PLANNED:
        wait(CHAINED)
    low = tl.program_id(0)
    head = tl.program_id(1)
    steps = tl.load(first + rows)
    groups = tl.minimum(tl.num_programs(0), steps)
    cut = stretch_start(low + 1, steps, groups)
    row = (tl.load(tiles + cut, mask=cut < steps, other=0) >> 32).to(tl.int32) & 1023
    begin = tl.load(first + row)
    end = tl.load(first + row + 1)
    if PLANNED:
        wait(CHAINED)
    # Of several ends in a row the first one does it.
    if (cut < steps) & (cut > begin) & (stretch_start(low, steps, groups) <= begin):
        pieces = owner(end - 1, steps, groups) - low + 1
        queries = tl.program_id(2) * AT_ONCE + tl.arange(0, AT_ONCE)
        dims = tl.arange(0, PADDED)
        best = tl.full((AT_ONCE,), float("-inf"), dtype=tl.float32)
        weight = tl.zeros((AT_ONCE,), dtype=tl.float32)
        total = tl.zeros((AT_ONCE, PADDED), dtype=tl.float32)
        for chunk in range(0, pieces, PIECES):
            piece = chunk + tl.arange(0, PIECES)
            # Of the first group it is the part that its stretch ends in, of the others the one theirs begin in.
            slot = (2 * (low + piece) + (piece == 0).to(tl.int32)) * KV_HEADS + head
            best, weight, total = merge_some(
                parts, slot, piece < pieces, queries, dims, best, weight, total, QUERIES, PADDED
            )
        at = out + (row.to(tl.int64) * KV_HEADS + head) * (GROUP * DIM) + queries[:, None] * DIM + dims[None, :]
        inside = (queries < GROUP)[:, None] & (dims < DIM)[None, :]
        tl.store(at, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)


def decode_attention(
    q: Tensor,
    kv: Tensor,
    plan: DecodePlan,
    units: int,
    workspace: Workspace,
    tile: DecodeTile,
    chained: bool = False,
) -> Tensor:
    """Both launches of a `DecodeCall`: [R, H * D]."""
    out = torch.empty((q.shape[0], q.shape[1] * q.shape[2]), dtype=q.dtype, device=q.device)
    call = DecodeCall(q, kv, out, plan, units, workspace, tile, chained)
    attend_decode(call)
    merge_decode(call)
    return out


def attend_decode(call: DecodeCall, leads: bool = False) -> None:
    """The first launch; rows that several programs share are left in parts.

    ``leads``: the next launch may start once all programs have, see `rapid_kernels.gpu.chain`. So it may when the
    call is chained.
    """
    q, kv, tile, plan = call.q, call.kv, call.tile, call.plan
    kv_heads, group, dim, queries, padded = call.shape
    rows, slots = q.shape[0], kv.shape[0]
    call.workspace.require(2 * call.groups * kv_heads * queries * (padded + 2))
    if tile.hopper:
        attend_decode_hopper(call, leads or call.leads)
        return
    queries_of: Tensor | TensorDescriptor = q
    cache: Tensor | TensorDescriptor = kv
    if tile.bulk:
        queries_of = TensorDescriptor(
            q, [rows, kv_heads, group, dim], [q.stride(0), group * dim, dim, 1], [1, 1, queries, padded]
        )
        cache = TensorDescriptor(
            kv, [2 * kv_heads, slots, dim], [dim, 2 * kv_heads * dim, 1], [1, plan.tile_tokens, padded]
        )
    decode_attention_kernel[(call.groups * kv_heads,)](
        queries_of, cache, call.out, plan.tiles, plan.first, call.workspace.parts,
        rows, q.stride(0), dim**-0.5 * BASE_2,
        *call.shape, plan.tile_tokens, tile.stages, tile.bulk, q.dtype == torch.float16,
        call.early, leads or call.leads,
        num_warps=tile.warps, **options(call.early),
    )  # fmt: skip


def merge_decode(call: DecodeCall) -> None:
    """The second launch, on the same stream behind the first one."""
    if call.groups > 1:
        merge_kernel[(call.groups, call.kv.shape[2], triton.cdiv(call.group, MERGED_QUERIES))](
            call.out, call.plan.tiles, call.plan.first, call.workspace.parts, call.q.shape[0], *call.shape,
            MERGED_QUERIES, MERGED_PIECES, call.chained, not call.early,
            num_warps=MERGING_WARPS, **options(call.chained),
        )  # fmt: skip


def decode_attention_reference(
    q: Tensor, kv: Tensor, kv_lens: Tensor, block_tables: Tensor, block_tokens: int, window: int | None = None
) -> Tensor:
    """The same, row by row, in float32 arithmetic."""
    rows, heads, dim = q.shape
    out = torch.empty((rows, heads * dim), dtype=q.dtype, device=q.device)
    for row in range(rows):
        length = int(kv_lens[row])
        index = torch.arange(max(0, length - window) if window else 0, length, device=q.device)
        slots = block_tables[row, index // block_tokens].long() * block_tokens + index % block_tokens
        key, value = kv[slots].float().permute(1, 2, 0, 3).repeat_interleave(heads // kv.shape[2], 1).unbind(0)
        out[row] = scaled_dot_product_attention(q[row].float()[:, None], key, value).flatten().to(q.dtype)
    return out

# ruff: noqa: N803, N806 (constants of a Triton kernel are upper case)
"""What lies between a decoder layer's matmuls: norm with residual, QK norm and RoPE with the cache write, SiLU-mul.

Contract: rows contiguous; arithmetic in float32, rounded once at the end (the residual sum also before its norm, as it
is stored). One program a row or head group: small against a step, sized by the work. Graph-safe.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import silu

from rapid_kernels.gpu.chain import options, wait_for_previous
from rapid_kernels.gpu.product import Product, load_product


@triton.jit
def add_rms_norm_kernel(
    x,  # [rows, WIDTH]
    parts,  # of x: see `rapid_kernels.gpu.product`
    residual,  # [rows, WIDTH]; becomes x + residual
    weight,  # [WIDTH]
    out,  # [rows, WIDTH]
    programs,
    eps,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    ADD: tl.constexpr,
    K_STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    MOST: tl.constexpr,
    CHAINED: tl.constexpr,
):
    """Grid: rows. Without ADD the residual is left alone. The row is laid out by x's tiles, [PADDED / TILE, TILE]."""
    tiles = tl.arange(0, PADDED // TILE)[:, None]
    columns = tiles * TILE + tl.arange(0, TILE)[None, :]
    inside = columns < WIDTH
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    wait_for_previous(CHAINED)
    row = tl.program_id(0).to(tl.int64)
    at = row * WIDTH + columns
    value = load_product(x, parts, row, tiles, columns, inside, WIDTH, programs, K_STEPS, BLOCK_M, TILE, MOST)
    if ADD:
        value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(residual.dtype.element_ty)
        tl.store(residual + at, rounded, mask=inside)
        value = rounded.to(tl.float32)
    value *= tl.rsqrt(tl.sum(tl.sum(value * value, 1), 0) / WIDTH + eps)
    tl.store(out + at, (value * scale).to(out.dtype.element_ty), mask=inside)


def add_rms_norm(
    x: Tensor | Product, residual: Tensor | None, weight: Tensor, eps: float, chained: bool = False
) -> Tensor:
    """rms_norm(x + residual) by weight, all [M, N]; the sum replaces ``residual``. Without residual: rms_norm(x).

    Parts of a product are added up first.
    """
    x = x if isinstance(x, Product) else Product.whole(x)
    rows, width = x.y.shape
    out = torch.empty_like(x.y)
    most = x.most_parts
    padded = int(triton.next_power_of_2(width))
    tile = x.block_n if most > 1 else padded
    add_rms_norm_kernel[(rows,)](
        x.y, x.parts, x.y if residual is None else residual, weight, out, x.programs, eps,
        width, max(padded, tile), tile, residual is not None, x.k_steps, x.block_m, most, chained,
        num_warps=8, **options(chained),
    )  # fmt: skip
    return out


def add_rms_norm_reference(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The same and the sum, not in place."""
    total = x if residual is None else (x.float() + residual.float()).to(x.dtype)
    norm = total.float() * torch.rsqrt(total.float().square().mean(-1, keepdim=True) + eps)
    return (norm * weight.float()).to(x.dtype), total


@triton.jit
def _store_finite(at, value, mask):
    """Store, but 0 for what is not finite in the target's type: no row may spoil a later owner of its blocks."""
    rounded = value.to(at.dtype.element_ty)
    tl.store(at, tl.where(tl.abs(rounded.to(tl.float32)) < float("inf"), rounded, 0.0), mask=mask)


@triton.jit
def rope_and_cache_kernel(
    qkv,  # [rows, HEADS + 2 * KV_HEADS, DIM]; the queries are rotated in place
    parts,  # of qkv: see `rapid_kernels.gpu.product`
    cos,  # [max_positions, DIM / 2] float32
    sin,  # [max_positions, DIM / 2] float32
    positions,  # [rows] int64
    slots,  # [rows] int64
    kv,  # [slots, 2, KV_HEADS, DIM]
    q_weight,  # [DIM]
    k_weight,  # [DIM]
    programs,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    GROUP: tl.constexpr,
    NORM: tl.constexpr,
    K_STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MOST: tl.constexpr,
    CHAINED: tl.constexpr,
):
    """Grid: rows x ceil((HEADS + 2 * KV_HEADS) / GROUP): each program takes GROUP heads of one row.

    NORM: queries and keys are normed by head before they are rotated, by ``q_weight`` and ``k_weight``.
    """
    row = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    half = tl.arange(0, PADDED)
    inside = (heads < HEADS + 2 * KV_HEADS)[:, None] & (half < DIM // 2)[None, :]
    wait_for_previous(CHAINED)
    position = tl.load(positions + row)
    c = tl.load(cos + position * (DIM // 2) + half, mask=half < DIM // 2, other=0.0)[None, :]
    s = tl.load(sin + position * (DIM // 2) + half, mask=half < DIM // 2, other=0.0)[None, :]
    WIDTH: tl.constexpr = (HEADS + 2 * KV_HEADS) * DIM
    column = heads[:, None] * DIM + half[None, :]
    low = load_product(
        qkv, parts, row, column // BLOCK_N, column, inside, WIDTH, programs, K_STEPS, BLOCK_M, BLOCK_N, MOST
    )
    column += DIM // 2
    high = load_product(
        qkv, parts, row, column // BLOCK_N, column, inside, WIDTH, programs, K_STEPS, BLOCK_M, BLOCK_N, MOST
    )
    at = qkv + row * WIDTH + heads[:, None] * DIM + half[None, :]
    rotated = (heads < HEADS + KV_HEADS)[:, None]  # values are not
    is_query = (heads < HEADS)[:, None]
    if NORM:
        scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / DIM + eps)[:, None]
        seen = half < DIM // 2
        q_low = tl.load(q_weight + half, mask=seen, other=0.0).to(tl.float32)[None, :]
        q_high = tl.load(q_weight + DIM // 2 + half, mask=seen, other=0.0).to(tl.float32)[None, :]
        k_low = tl.load(k_weight + half, mask=seen, other=0.0).to(tl.float32)[None, :]
        k_high = tl.load(k_weight + DIM // 2 + half, mask=seen, other=0.0).to(tl.float32)[None, :]
        low = tl.where(rotated, low * scale * tl.where(is_query, q_low, k_low), low)
        high = tl.where(rotated, high * scale * tl.where(is_query, q_high, k_high), high)
    new_low = tl.where(rotated, low * c - high * s, low)
    new_high = tl.where(rotated, high * c + low * s, high)
    tl.store(at, new_low.to(qkv.dtype.element_ty), mask=inside & is_query)
    tl.store(at + DIM // 2, new_high.to(qkv.dtype.element_ty), mask=inside & is_query)
    # Key heads, then value heads: the order of a token in the cache.
    slot = tl.load(slots + row)
    to = kv + slot * (2 * KV_HEADS * DIM) + (heads - HEADS)[:, None] * DIM + half[None, :]
    _store_finite(to, new_low, inside & (heads >= HEADS)[:, None])
    _store_finite(to + DIM // 2, new_high, inside & (heads >= HEADS)[:, None])


def rope_and_cache(
    qkv: Tensor | Product,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    slots: Tensor,
    kv: Tensor,
    chained: bool = False,
    qk_norm: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """Half-rotation RoPE of the queries and keys of qkv [M, (H + 2 K) * D]; keys and values go to kv [slots, 2, K, D].

    ``qk_norm``: query weight [D], key weight [D] and epsilon of a norm by head before the rotation.
    Gives the queries [M, H, D], a view of ``qkv``, of which parts are added up first. What is not finite is cached as
    0: `rapid_kernels.gpu.attention` says why. Two rows may not share a slot unless nobody reads it (padding).
    """
    qkv = qkv if isinstance(qkv, Product) else Product.whole(qkv)
    rows, width = qkv.y.shape
    kv_heads, dim = kv.shape[2:]
    heads = width // dim - 2 * kv_heads
    group = 8
    q_weight, k_weight, eps = (cos, cos, 0.0) if qk_norm is None else qk_norm
    rope_and_cache_kernel[(rows, triton.cdiv(heads + 2 * kv_heads, group))](
        qkv.y, qkv.parts, cos, sin, positions, slots, kv, q_weight, k_weight, qkv.programs, eps,
        heads, kv_heads, dim, triton.next_power_of_2(dim // 2), group, qk_norm is not None,
        qkv.k_steps, qkv.block_m, qkv.block_n, qkv.most_parts, chained,
        num_warps=4, **options(chained),
    )  # fmt: skip
    return qkv.y.view(rows, heads + 2 * kv_heads, dim)[:, :heads]


def rope_and_cache_reference(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    slots: Tensor,
    kv: Tensor,
    qk_norm: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """The same; ``qkv`` is left alone."""
    kv_heads, dim = kv.shape[2:]
    heads = qkv.view(qkv.shape[0], -1, dim).float()
    rotated, values = heads[:, :-kv_heads], heads[:, -kv_heads:]
    if qk_norm is not None:
        q_weight, k_weight, eps = qk_norm
        weights = torch.stack([q_weight] * (rotated.shape[1] - kv_heads) + [k_weight] * kv_heads).float()
        rotated = rotated * torch.rsqrt(rotated.square().mean(-1, keepdim=True) + eps) * weights
    c, s = cos[positions][:, None], sin[positions][:, None]
    low, high = rotated.chunk(2, -1)
    rotated = torch.cat((low * c - high * s, high * c + low * s), -1)
    kv[slots] = torch.stack((rotated[:, -kv_heads:], values), 1).to(kv.dtype).nan_to_num(0, 0, 0)
    return rotated[:, :-kv_heads].to(qkv.dtype)


@triton.jit
def silu_mul_kernel(
    gate_up,  # [rows, 2, WIDTH]
    out,  # [rows, WIDTH]
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    CHAINED: tl.constexpr,
):
    """Grid: rows x ceil(WIDTH / BLOCK)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wait_for_previous(CHAINED)
    gate = tl.load(gate_up + row * (2 * WIDTH) + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * WIDTH) + WIDTH + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)
    value = gate / (1 + tl.exp(-gate)) * up
    tl.store(out + row * WIDTH + columns, value.to(out.dtype.element_ty), mask=columns < WIDTH)


def silu_mul(gate_up: Tensor, chained: bool = False) -> Tensor:
    """gate_up [M, 2 I], gate first: silu(gate) * up, [M, I]."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    silu_mul_kernel[(rows, triton.cdiv(width, 2048))](
        gate_up, out, width, 2048, chained, num_warps=4, **options(chained)
    )  # fmt: skip
    return out


def silu_mul_reference(gate_up: Tensor) -> Tensor:
    """The same."""
    gate, up = gate_up.float().chunk(2, -1)
    return (silu(gate) * up).to(gate_up.dtype)

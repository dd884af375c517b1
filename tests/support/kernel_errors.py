"""How far `Kernels` are from plain torch in float32, call by call, on a ragged batch over shuffled, poisoned blocks."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from rapid_kernels import CacheLayout, Kernels, KVCache, Ragged, RopeTable, make_ragged
from rapid_kernels.reference import ReferenceKernels
from support.choices import wrong_choices

LAYER, EPS = 1, 1e-5
HIDDEN, INNER = 288, 72
PLAIN = ReferenceKernels(pack=False)


@dataclass(frozen=True)
class Case:
    """A batch and a model's shape. ``rows``: (tokens already cached, new tokens), decode rows first."""

    rows: Sequence[tuple[int, int]]
    kv_heads: int
    group: int
    dim: int
    dtype: torch.dtype
    qk_norm: bool = False
    bias: bool = False
    window: int | None = None
    block_tokens: int = 16
    units: int = 8
    unwritten: float = math.nan
    """In slots that no row has written."""
    device: str = "cpu"


def worst_errors(kernels: Kernels, case: Case, seed: int = 0) -> dict[str, float]:
    """By call, the greatest relative error (by norm) of a token's result. NaN where one holds NaN.

    Of choices how many are wrong.
    """
    torch.manual_seed(seed)
    cache = _cache(kernels, case)
    ragged = _ragged(kernels, case, cache, seed)
    found = _attention_errors(kernels, case, cache, ragged) | _dense_errors(kernels, case, ragged)
    choose = partial(kernels.choose, ragged=ragged)
    wrong = wrong_choices(choose, ragged.num_rows, 3000, case.dtype, first=seed, device=case.device)
    return found | {"choose": float(len(wrong))}


def _error(got: Tensor, wanted: Tensor) -> float:
    distance = (got.float() - wanted.float()).flatten(1).norm(dim=1)
    return float((distance / wanted.float().flatten(1).norm(dim=1)).max())


def _poison(case: Case, *shape: int) -> None:
    """Leave NaN in the memory that the next allocation of this size probably gets."""
    torch.full(shape, math.nan, dtype=case.dtype, device=case.device)


def _random(case: Case, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, device=case.device).mul_(scale).to(case.dtype)


def _blocks(case: Case) -> list[int]:
    return [-(-(cached + new) // case.block_tokens) for cached, new in case.rows]


def _cache(kernels: Kernels, case: Case) -> KVCache:
    layout = CacheLayout(2, sum(_blocks(case)) + 3, case.block_tokens, case.kv_heads, case.dim, case.dtype)
    cache = kernels.allocate_cache(layout, case.device)
    for layer in cache.layers:
        layer.fill_(case.unwritten)
    return cache


def _ragged(kernels: Kernels, case: Case, cache: KVCache, seed: int) -> Ragged:
    """The batch, and its rows' earlier tokens in the cache."""
    counts = _blocks(case)
    order = list(range(1, sum(counts) + 3))
    random.Random(seed).shuffle(order)
    tables = [[order.pop() for _ in range(count)] for count in counts]
    for (cached, _), table in zip(case.rows, tables, strict=True):
        index = torch.arange(cached)
        slots = torch.tensor(table)[index // case.block_tokens] * case.block_tokens + index % case.block_tokens
        cache.layers[LAYER][slots.to(case.device)] = _random(case, cached, 2, case.kv_heads, case.dim)
    lens = [cached + new for cached, new in case.rows]
    scratch = kernels.make_scratch(cache.layout, len(lens), sum(lens), case.device)
    new = [new for _, new in case.rows]
    return make_ragged(new, lens, tables, case.block_tokens, case.units, case.device, scratch)


def _attention_errors(kernels: Kernels, case: Case, cache: KVCache, ragged: Ragged) -> dict[str, float]:
    tokens, heads = ragged.num_tokens, case.kv_heads * case.group
    width = (heads + 2 * case.kv_heads) * case.dim
    x, weight = _random(case, tokens, HIDDEN), _random(case, width, HIDDEN, scale=0.06)
    bias = _random(case, width) if case.bias else None
    angles = torch.rand(max(ragged.kv_lens_cpu), case.dim // 2, device=case.device) * 6.28
    rope = RopeTable(angles.cos(), angles.sin())
    norm = (_random(case, case.dim), _random(case, case.dim), EPS) if case.qk_norm else None
    wanted_norm = None if norm is None else (norm[0].float(), norm[1].float(), EPS)
    plain = _plain(cache)
    alone = replace(ragged, derived={})
    matrix, wanted_bias = PLAIN.prepare(weight.float()), None if bias is None else bias.float()
    wanted_q = PLAIN.linear_rope_and_cache(x.float(), matrix, wanted_bias, rope, wanted_norm, plain, LAYER, alone)
    _poison(case, tokens, width)
    q = kernels.linear_rope_and_cache(x, kernels.prepare(weight), bias, rope, norm, cache, LAYER, ragged)
    written = [kv.layers[LAYER][ragged.slot_mapping].flatten(1) for kv in (cache, plain)]

    wanted = PLAIN.attention(q.float(), _plain(cache), LAYER, alone, case.window)
    _poison(case, tokens, heads * case.dim)
    attention = kernels.attention(q, cache, LAYER, ragged, case.window)
    again = kernels.attention(q, cache, LAYER, ragged, case.window)
    assert torch.equal(attention, again)
    return {"rope": _error(q, wanted_q), "cache": _error(*written), "attention": _error(attention, wanted)}


def _plain(cache: KVCache) -> KVCache:
    layers = tuple(layer.float() for layer in cache.layers)
    return KVCache(replace(cache.layout, dtype=torch.float32), layers)


def _dense_errors(kernels: Kernels, case: Case, ragged: Ragged) -> dict[str, float]:
    tokens = ragged.num_tokens
    x, residual = _random(case, tokens, HIDDEN), _random(case, tokens, HIDDEN)
    weight, gated = _random(case, 120, HIDDEN, scale=0.1), _random(case, 2 * INNER, HIDDEN, scale=0.1)
    norm = _random(case, HIDDEN)
    biases = (_random(case, 120), _random(case, 2 * INNER)) if case.bias else (None, None)

    def plain(bias: Tensor | None) -> Tensor | None:
        return None if bias is None else bias.float()

    wanted_linear = PLAIN.linear(x.float(), PLAIN.prepare(weight.float()), plain(biases[0]), ragged)
    wanted_gated = PLAIN.gated_linear(x.float(), PLAIN.prepare(gated.float()), plain(biases[1]), ragged)
    total = (x.float() + residual.float()).to(case.dtype)
    wanted_norm = PLAIN.rms_norm(total.float(), norm.float(), EPS, ragged)
    for width in (120, INNER, HIDDEN):
        _poison(case, tokens, width)
    found = {
        "linear": _error(kernels.linear(x, kernels.prepare(weight), biases[0], ragged), wanted_linear),
        "gated_linear": _error(kernels.gated_linear(x, kernels.prepare(gated), biases[1], ragged), wanted_gated),
        "rms_norm": _error(kernels.rms_norm(total, norm, EPS, ragged), wanted_norm),
    }
    normed, summed = kernels.add_rms_norm(x, residual.clone(), norm, EPS, ragged)
    found |= {"add_rms_norm": _error(normed, wanted_norm), "residual": _error(summed, total)}
    square, bias = _random(case, HIDDEN, HIDDEN, scale=0.1), _random(case, HIDDEN) if case.bias else None
    wanted = PLAIN.linear_add_rms_norm(
        x.float(), PLAIN.prepare(square.float()), plain(bias), residual.float(), norm.float(), EPS, ragged
    )
    _poison(case, tokens, HIDDEN)
    got = kernels.linear_add_rms_norm(x, kernels.prepare(square), bias, residual, norm, EPS, ragged)
    return found | {"linear_norm": _error(got[0], wanted[0]), "linear_residual": _error(got[1], wanted[1])}

"""The kernels in plain torch: what the CPU runs, and what the GPU kernels are tested against.

Attention gathers each row's keys and values by token, not by block, and pads with tokens of the row itself: a slot that
the row has not written is never read. Decode rows of similar length share calls, each as large as the cores' caches; a
prompt chunk is a call of its own. What is derived from the batch (slots, masks, rotations, room for gathered keys) is
derived once and kept in `Ragged.derived` for the other layers.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from rapid_kernels.layout import CacheLayout, KVCache, Matrix, Ragged, RopeTable
from rapid_kernels.packed import multiply, pack

PADDING_RATIO = 1.5
"""Decode rows share a call while padding to the longest costs less than this over the shortest."""
GATHERED_BYTES = 1 << 20
"""Keys and values that a call for several decode rows gathers, for each unit, as long as its heads occupy all units:
attention then finds them in the caches of the cores (kernels/bench/attention_cpu.py)."""
LEAST_PIECES = 4
"""A decode row of more `GATHERED_BYTES` is read in such pieces, so many a call or one a unit: not from memory twice."""
QUERY_TILE = 256
"""Tokens of a chunk behind others that share a call: its keys end with its last token; a mask spares no products."""


class ReferenceKernels:
    """`Kernels` on any torch device. Without ``pack`` weights stay plain, as where no library has a packed layout."""

    def __init__(self, *, pack: bool = True) -> None:
        self._pack = pack

    def allocate_cache(self, layout: CacheLayout, device: torch.device | str = "cpu") -> KVCache:
        """See `Kernels`."""
        slots = layout.num_blocks * layout.block_tokens
        shape = (layout.num_layers, slots, 2, layout.num_kv_heads, layout.head_dim)
        return KVCache(layout, torch.empty(shape, dtype=layout.dtype, device=device).unbind(0))

    def make_scratch(self, layout: CacheLayout, max_rows: int, max_tokens: int, device: torch.device | str) -> None:
        """None: nothing is kept between calls."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, ragged: Ragged) -> Tensor:
        """See `Kernels`."""
        return _rms_norm(x, weight, eps)

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float, ragged: Ragged
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        total = residual.add_(x)
        return _rms_norm(total, weight, eps), total

    def prepare(self, weight: Tensor) -> Matrix:
        """See `Kernels`."""
        return pack(weight) if self._pack else Matrix("plain", weight, weight)

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None, ragged: Ragged) -> Tensor:
        """See `Kernels`. The result of few tokens may be a transposed view."""
        return multiply(x, weight, bias)

    def gated_linear(self, x: Tensor, weight: Matrix, bias: Tensor | None, ragged: Ragged) -> Tensor:
        """See `Kernels`."""
        gate, up = multiply(x, weight, bias).chunk(2, -1)
        return silu(gate).mul_(up)

    def linear_add_rms_norm(
        self, x: Tensor, weight: Matrix, bias: Tensor | None, residual: Tensor, norm: Tensor, eps: float, ragged: Ragged
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return self.add_rms_norm(self.linear(x, weight, bias, ragged), residual, norm, eps, ragged)

    def linear_rope_and_cache(
        self,
        x: Tensor,
        weight: Matrix,
        bias: Tensor | None,
        rope: RopeTable,
        qk_norm: tuple[Tensor, Tensor, float] | None,
        cache: KVCache,
        layer: int,
        ragged: Ragged,
    ) -> Tensor:
        """See `Kernels`."""
        return rope_and_cache(self.linear(x, weight, bias, ragged), rope, qk_norm, cache, layer, ragged)

    def attention(self, q: Tensor, cache: KVCache, layer: int, ragged: Ragged, window: int | None) -> Tensor:
        """See `Kernels`."""
        kv = cache.layers[layer]
        calls = _attention_calls(ragged, window, q.dtype, q.device, kv)
        room = _room(ragged, window, calls, kv)
        if len(calls) == 1:
            return calls[0].run(q, kv, room)
        out = torch.empty((q.shape[0], q.shape[1] * q.shape[2]), dtype=q.dtype, device=q.device)
        for call in calls:
            out[call.tokens] = call.run(q[call.tokens], kv, room)
        return out

    def choose(
        self, logits: Tensor, out: Tensor, chosen: Tensor, tokens: Tensor, target: Tensor, ragged: Ragged
    ) -> None:
        """See `Kernels`."""
        best, ids = out.copy_(logits).max(-1)
        failed = ~best.isfinite()
        chosen[0] = ids.masked_fill_(failed, 0)
        chosen[1] = failed
        tokens.index_copy_(0, target, chosen[0])


def rope_and_cache(
    qkv: Tensor,
    rope: RopeTable,
    qk_norm: tuple[Tensor, Tensor, float] | None,
    cache: KVCache,
    layer: int,
    ragged: Ragged,
) -> Tensor:
    """`Kernels.linear_rope_and_cache` of the projection qkv [T, (H + 2 K) * D], which may be overwritten."""
    kv_heads, dim = cache.layout.num_kv_heads, cache.layout.head_dim
    heads = qkv.view(qkv.shape[0], -1, dim)
    num_heads = heads.shape[1] - 2 * kv_heads
    rotated = heads[:, : num_heads + kv_heads]
    if qk_norm is not None:
        q_weight, k_weight, eps = qk_norm
        for part, weight in ((rotated[:, :num_heads], q_weight), (rotated[:, num_heads:], k_weight)):
            part.copy_(_rms_norm(part, weight, eps))
    # (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin): roll gives (x2, x1), the sign is in the table.
    cos, sin = _rotation(rope, ragged, qkv.dtype)
    swapped = rotated.roll(dim // 2, -1)
    rotated.mul_(cos).addcmul_(swapped, sin)
    # Key heads, then value heads: as the cache holds them.
    cache.layers[layer].index_copy_(0, ragged.slot_mapping, heads[:, num_heads:].view(-1, 2, kv_heads, dim))
    return heads[:, :num_heads]


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Over the last dimension. Fewer passes and temporaries than torch's own, which on a CPU is not fused."""
    norm: Tensor = torch.linalg.vector_norm(x, 2, -1, True, dtype=torch.float32)
    scale = torch.addcmul(_scalar(eps, x.device), norm, norm, value=1 / x.shape[-1]).rsqrt_()
    out = (x * scale).mul_(weight)
    return out if out.dtype == x.dtype else out.to(x.dtype)


@functools.cache
def _scalar(value: float, device: torch.device) -> Tensor:
    """Made once: a decode step on a CPU would spend as long on making it as on using it."""
    return torch.tensor(value, dtype=torch.float32, device=device)


def _rotation(rope: RopeTable, ragged: Ragged, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cos, cos) and (-sin, sin) at the batch's positions, [T, 1, D]."""
    found: tuple[Tensor, Tensor] | None = ragged.derived.get("rotation")
    if found is None:
        cos, sin = rope.cos[ragged.positions].to(dtype), rope.sin[ragged.positions].to(dtype)
        found = torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1)
        ragged.derived["rotation"] = found
    return found


@dataclass(frozen=True, slots=True)
class _MaskedCall:
    """Some of the batch's tokens over the keys in ``slots``. ``mask``: 0 or -inf."""

    tokens: Tensor | slice
    slots: Tensor | slice
    mask: Tensor | None

    @property
    def room(self) -> int:
        """Keys gathered at once."""
        return _num_slots(self.slots)


class _DecodeCall(_MaskedCall):
    """Rows with one new token each. ``slots`` [n * longest]; ``mask`` [n, 1, 1, longest]."""

    __slots__ = ()

    def run(self, q: Tensor, kv: Tensor, room: Tensor) -> Tensor:
        """The queries of a group share keys: they are the call's query positions, [n, K, group, D]."""
        n, heads, dim = q.shape
        kv_heads = kv.shape[2]
        k, v = _gather(kv, self.slots, room).view(n, -1, 2, kv_heads, dim).permute(2, 0, 3, 1, 4).unbind(0)
        out = _attend(q.reshape(n, kv_heads, heads // kv_heads, dim), k, v, self.mask)
        return out.reshape(n, heads * dim)


@dataclass(frozen=True, slots=True)
class _LongCall:
    """One row with one new token, on a CPU. ``pieces``: slots of some keys, and into how many equal parts they fall."""

    tokens: slice
    pieces: list[tuple[Tensor | slice, int]]

    @property
    def room(self) -> int:
        """Keys gathered at once."""
        return max(_num_slots(slots) for slots, _ in self.pieces)

    def run(self, q: Tensor, kv: Tensor, room: Tensor) -> Tensor:
        """A softmax over parts is their softmaxes, weighted by a softmax of their logarithms of summed exponentials."""
        _, heads, dim = q.shape
        kv_heads = kv.shape[2]
        query = q.view(1, kv_heads, heads // kv_heads, dim)
        outs, sums = [], []
        for slots, parts in self.pieces:
            k, v = _gather(kv, slots, room).view(parts, -1, 2, kv_heads, dim).permute(2, 0, 3, 1, 4).unbind(0)
            out, log_sum = _fused_attention(query.expand(parts, -1, -1, -1), k, v)
            outs.append(out)
            sums.append(log_sum)
        weights = torch.cat(sums).softmax(0).unsqueeze(-1)
        return (torch.cat(outs) * weights).sum(0).to(q.dtype).reshape(1, heads * dim)


_fused_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""What `scaled_dot_product_attention` calls on a CPU: [n, K, group, D], and the sums' logarithms [n, K, group]."""


class _PromptCall(_MaskedCall):
    """New tokens of one row. ``mask`` [tokens, keys]; None: the row starts here and is plainly causal."""

    __slots__ = ()

    def run(self, q: Tensor, kv: Tensor, room: Tensor) -> Tensor:
        """Key heads are the call's batch and a group its heads, so that keys are shared by stride 0, not copied."""
        length, heads, dim = q.shape
        kv_heads = kv.shape[2]
        group = heads // kv_heads
        shared = _gather(kv, self.slots, room).permute(1, 2, 0, 3).unsqueeze(2)
        k, v = shared.expand(2, kv_heads, group, -1, dim).unbind(0)
        out = _attend(q.view(length, kv_heads, group, dim).permute(1, 2, 0, 3), k, v, self.mask, self.mask is None)
        return out.permute(2, 0, 1, 3).reshape(length, heads * dim)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
    """Fused on a CPU alone: torch 2.11's fused kernels for GPUs give wrong last rows (pytorch issue 191937)."""
    if q.is_cpu:
        return scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)
    out: Tensor = _plain_attention(q, k, v, mask, 0.0, is_causal)[0]
    return out


_plain_attention = torch.ops.aten._scaled_dot_product_attention_math
"""What `scaled_dot_product_attention` calls where no fused kernel fits; chosen from outside it is for all threads."""


def _gather(kv: Tensor, slots: Tensor | slice, room: Tensor) -> Tensor:
    """[tokens, 2, K, D]: a view of the cache when the slots are consecutive, else of ``room``, which it overwrites."""
    if isinstance(slots, slice):
        return kv[slots]
    return torch.index_select(kv, 0, slots, out=room[: len(slots)])


def _num_slots(slots: Tensor | slice) -> int:
    """That have to be gathered: consecutive ones need not."""
    return len(slots) if isinstance(slots, Tensor) else 0


_Call = _DecodeCall | _LongCall | _PromptCall


def _room(ragged: Ragged, window: int | None, calls: Sequence[_Call], kv: Tensor) -> Tensor:
    """Where each call in turn gathers its keys and values, [most tokens, 2, K, D], the same in every layer.

    Large memory from the system anew, page by page, takes longer than attention.
    """
    room: Tensor | None = ragged.derived.get(("room", window))
    if room is None:
        most = max((call.room for call in calls), default=0)
        room = ragged.derived["room", window] = kv.new_empty((most, *kv.shape[1:]))
    return room


def _attention_calls(
    ragged: Ragged, window: int | None, dtype: torch.dtype, device: torch.device, kv: Tensor
) -> list[_Call]:
    """How this batch is attended to, the same in every layer with this window; ``kv``: any layer's cache."""
    calls: list[_Call] | None = ragged.derived.get(("attention", window))
    if calls is None:
        tables = ragged.block_tables.cpu().numpy()
        calls = []
        decode: list[tuple[int, int]] = []  # (keys to read, row)
        piece = max(1, GATHERED_BYTES // kv[0].nbytes)
        longest = LEAST_PIECES * piece if device.type == "cpu" else math.inf
        starts = ragged.query_start_cpu
        for row, kv_len in enumerate(ragged.kv_lens_cpu):
            if starts[row + 1] - starts[row] == 1:
                keys = min(kv_len, window or kv_len)
                if keys > longest:
                    calls.append(_long_call(ragged, tables[row], row, keys, piece))
                else:
                    decode.append((keys, row))
            else:
                calls += _prompt_calls(ragged, tables[row], row, window, dtype, device)
        groups = _groups(decode, ragged, kv)
        calls += [_decode_call(ragged, tables, group, window, dtype, device) for group in groups]
        ragged.derived["attention", window] = calls
    return calls


def _groups(decode: list[tuple[int, int]], ragged: Ragged, kv: Tensor) -> Iterator[list[int]]:
    """Which decode rows, as (keys to read, row), share a call: see `PADDING_RATIO` and `GATHERED_BYTES`."""
    decode.sort()
    few = ragged.units // math.gcd(ragged.units, kv.shape[2])  # rows whose heads the units share evenly
    most_keys = GATHERED_BYTES * ragged.units // kv[0].nbytes
    first = 0
    for last, (longest, _) in enumerate(decode):
        rows = last - first
        is_large = rows >= few and (rows + 1) * longest > most_keys
        if is_large or longest > PADDING_RATIO * decode[first][0] + ragged.block_tokens:
            yield sorted(row for _, row in decode[first:last])
            first = last
    if decode:
        yield sorted(row for _, row in decode[first:])


def _decode_call(
    ragged: Ragged,
    tables: NDArray[np.int32],
    group: list[int],
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> _DecodeCall:
    """Rows padded to the longest with their own last token, which the mask then hides."""
    rows = np.array(group)
    ends = np.array([ragged.kv_lens_cpu[row] for row in group])
    counts = np.minimum(ends, window) if window else ends
    offsets = np.arange(counts.max())
    index = np.minimum((ends - counts)[:, None] + offsets, ends[:, None] - 1)
    block, offset = np.divmod(index, ragged.block_tokens)
    slots = tables[rows[:, None], block].astype(np.int64) * ragged.block_tokens + offset
    mask = None
    if counts.min() != counts.max():
        hidden = torch.from_numpy(offsets >= counts[:, None])
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).to(device)[:, None, None]
    tokens = torch.tensor([ragged.query_start_cpu[row] for row in group], device=device)
    return _DecodeCall(tokens, _slots(slots.reshape(-1), device), mask)


def _long_call(ragged: Ragged, table: NDArray[np.int32], row: int, keys: int, piece: int) -> _LongCall:
    """A row's last ``keys`` in pieces of ``piece``, and what is left over as one of its own."""
    end = ragged.kv_lens_cpu[row]
    starts = [*range(end - keys, end - piece + 1, piece * max(LEAST_PIECES, ragged.units))]
    pieces = []
    for first in starts:
        parts = min(max(LEAST_PIECES, ragged.units), (end - first) // piece)
        pieces.append((_slots_of(ragged, table, first, first + parts * piece, torch.device("cpu")), parts))
    if left := keys % piece:
        pieces.append((_slots_of(ragged, table, end - left, end, torch.device("cpu")), 1))
    token = ragged.query_start_cpu[row]
    return _LongCall(slice(token, token + 1), pieces)


def _prompt_calls(
    ragged: Ragged,
    table: NDArray[np.int32],
    row: int,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> list[_PromptCall]:
    """One call for a row that starts here and is plainly causal, else one for each tile of its tokens."""
    begin, end = ragged.query_start_cpu[row : row + 2]
    kv_len = ragged.kv_lens_cpu[row]
    context = kv_len - (end - begin)
    fits = device.type == "cpu" or kv_len <= QUERY_TILE  # what is not fused holds all of a call's scores
    if fits and not context and not (window and kv_len > window):
        return [_PromptCall(slice(begin, end), _slots_of(ragged, table, 0, kv_len, device), None)]
    calls = []
    for first in range(context, kv_len, QUERY_TILE):
        last = min(first + QUERY_TILE, kv_len)
        first_key = max(0, first - window + 1) if window else 0
        # age[i, j]: how many positions key j lies behind query i
        age = torch.arange(first, last)[:, None] - torch.arange(first_key, last)
        hidden = (age < 0) | (age >= window) if window else age < 0
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).to(device)
        tokens = slice(begin + first - context, begin + last - context)
        calls.append(_PromptCall(tokens, _slots_of(ragged, table, first_key, last, device), mask))
    return calls


def _slots_of(ragged: Ragged, table: NDArray[np.int32], first: int, last: int, device: torch.device) -> Tensor | slice:
    """Where a row's keys ``[first, last)`` are."""
    block, offset = np.divmod(np.arange(first, last), ragged.block_tokens)
    return _slots(table[block].astype(np.int64) * ragged.block_tokens + offset, device)


def _slots(slots: NDArray[np.int64], device: torch.device) -> Tensor | slice:
    """Consecutive slots as a slice: they need no gather."""
    first, last = int(slots[0]), int(slots[-1])
    if last - first == len(slots) - 1 and (np.diff(slots) == 1).all():
        return slice(first, last + 1)
    return torch.from_numpy(slots).to(device)

"""The one API of the kernels. A fast path and its reference both implement it; `select` chooses once, by device.

Every call takes the batch's `Ragged`, because every call runs on a partition and the partition's unit count travels
in it. Implementations keep no state between calls: two lanes may run the same object at once over the same weights
and cache. Tensors given and returned are [tokens, features] and may be strided, except that a feature row of weights
is contiguous. ``x`` is never modified unless a call says so.
"""

from typing import Protocol

import torch
from torch import Tensor

from rapid_kernels.layout import CacheLayout, KVCache, Matrix, Ragged, RopeTable
from rapid_kernels.reference import ReferenceKernels


class Kernels(Protocol):
    """What a decoder layer is made of."""

    def allocate_cache(self, layout: CacheLayout, device: torch.device | str = "cpu") -> KVCache:
        """Memory for a KV cache, uninitialised."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, ragged: Ragged) -> Tensor:
        """Root-mean-square norm (arXiv 1910.07467) of x [T, N] by weight [N]; accumulates in float32."""
        ...

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float, ragged: Ragged
    ) -> tuple[Tensor, Tensor]:
        """``s = x + residual``; gives (rms_norm(s), s), both [T, N]. ``residual`` may be overwritten with s."""
        ...

    def prepare(self, weight: Tensor) -> Matrix:
        """A weight [out, in] in the form that `linear` reads fastest; only for the kernels that made it."""
        ...

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None, ragged: Ragged) -> Tensor:
        """x [T, in] by weight [out, in], plus bias [out]: [T, out]."""
        ...

    def rope_and_cache(
        self,
        qkv: Tensor,
        rope: RopeTable,
        qk_norm: tuple[Tensor, Tensor, float] | None,
        cache: KVCache,
        layer: int,
        ragged: Ragged,
    ) -> Tensor:
        """Rotate queries and keys, write keys and values to the cache, give the queries [T, H, D].

        qkv [T, (H + 2 K) * D] holds the H query heads, then the K key heads, then the K value heads; it may be
        overwritten. Half-rotation RoPE (arXiv 2104.09864, Hugging Face order) at ``ragged.positions``; cosine and
        sine may be rounded to the dtype of qkv. ``qk_norm`` = (query weight [D], key weight [D], eps): per-head RMS
        norm before the rotation.
        """
        ...

    def attention(self, q: Tensor, cache: KVCache, layer: int, ragged: Ragged, window: int | None) -> Tensor:
        """Causal attention of q [T, H, D] over each row's cached sequence: [T, H * D].

        The row's new tokens are in the cache already. Token at position p sees positions
        ``max(0, p - window + 1) .. p``. Grouped queries: head h reads key head ``h // (H / K)``. Scale 1/sqrt(D).
        """
        ...

    def silu_mul(self, gate_up: Tensor, ragged: Ragged) -> Tensor:
        """gate_up [T, 2 I], gate first: silu(gate) * up, [T, I]."""
        ...


def select(device: torch.device | str) -> Kernels:
    """The implementation for a device."""
    del device  # the reference runs on every device, and is the only one there is
    return ReferenceKernels()

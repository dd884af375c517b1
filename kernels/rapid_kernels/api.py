"""The one API of the kernels. A fast path and its reference both implement it; `select` chooses once, by device.

Every call takes the batch's `Ragged`, because every call runs on a partition and the partition's unit count travels
in it. Implementations keep no state between calls: two lanes may run the same object at once over the same weights
and cache, each with its own `Scratch`. Tensors given and returned are [tokens, features] and may be strided, except
that a feature row of weights is contiguous. ``x`` is never modified unless a call says so.
"""

from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from rapid_kernels.layout import CacheLayout, KVCache, Matrix, Ragged, RopeTable, Scratch
from rapid_kernels.reference import ReferenceKernels


class Kernels(Protocol):
    """What a decoder layer is made of, and the choice at the end of a step."""

    def allocate_cache(self, layout: CacheLayout, device: torch.device | str = "cpu") -> KVCache:
        """Memory for a KV cache, uninitialised. Raises ValueError for a layout that these kernels cannot serve."""
        ...

    def make_scratch(
        self, layout: CacheLayout, max_rows: int, max_tokens: int, device: torch.device | str
    ) -> Scratch | None:
        """A lane's static buffers, for `make_ragged`; None where batches need none.

        For batches of up to ``max_rows`` rows with one new token, which see up to ``max_tokens`` cached tokens in all:
        rows may share blocks, so that is rows times the longest sequence rather than the cache's size.
        """
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

    def gated_linear(self, x: Tensor, weight: Matrix, bias: Tensor | None, ragged: Ragged) -> Tensor:
        """x [T, in] by weight [2 I, in], gate rows first, plus bias [2 I]: silu(gate) * up, [T, I]."""
        ...

    def linear_add_rms_norm(
        self, x: Tensor, weight: Matrix, bias: Tensor | None, residual: Tensor, norm: Tensor, eps: float, ragged: Ragged
    ) -> tuple[Tensor, Tensor]:
        """What `add_rms_norm` by ``norm`` makes of `linear`'s result, in fewer passes where the kernels can."""
        ...

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
        """Project x by `linear`, rotate, write keys and values to the cache: the queries [T, H, D].

        The projection [T, (H + 2 K) * D] has the H query heads, then the K key heads, then the K value heads.
        Half-rotation RoPE (arXiv 2104.09864, Hugging Face order) at ``ragged.positions``; cosine and sine may be
        rounded to the dtype of x. ``qk_norm`` = (query weight [D], key weight [D], eps): per-head RMS norm before the
        rotation.
        """
        ...

    def attention(self, q: Tensor, cache: KVCache, layer: int, ragged: Ragged, window: int | None) -> Tensor:
        """Causal attention of q [T, H, D] over each row's cached sequence: [T, H * D].

        The row's new tokens are in the cache already. Token at position p sees positions
        ``max(0, p - window + 1) .. p``. Grouped queries: head h reads key head ``h // (H / K)``. Scale 1/sqrt(D).
        """
        ...

    def choose(
        self, logits: Tensor, out: Tensor, chosen: Tensor, tokens: Tensor, target: Tensor, ragged: Ragged
    ) -> None:
        """Greedy choice: of each row of logits [R, V] the id of the highest, the lowest id of equal ones.

        ``chosen`` [2, R] int32 becomes the ids, then 1 where a row failed, else 0: where it holds NaN, or its highest
        logit is not finite; its id is then 0. The ids also go to ``tokens`` [any] int32 at ``target`` [R] int64 (where
        rows share a place, one of them gets it), and the logits to ``out`` [R, V] float32. These four are contiguous.
        """
        ...


def select(device: torch.device | str, dtype: torch.dtype = torch.bfloat16) -> Kernels:
    """The implementation for a device and the type that weights, activations and cache have on it.

    On a GPU the Triton kernels in the 16-bit types, if triton is installed and supports it; else plain torch.
    """
    device = torch.device(device)
    if device.type == "cuda" and dtype.itemsize == 2 and find_spec("triton") is not None and _in_triton(device):
        from rapid_kernels.gpu.kernels import GpuKernels

        return GpuKernels.on(device)
    return ReferenceKernels()


def _in_triton(device: torch.device) -> bool:
    """HIP devices, and CUDA's from compute capability 8 on."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)

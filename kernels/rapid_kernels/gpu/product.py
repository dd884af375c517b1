# ruff: noqa: N803 (constants of a Triton kernel are upper case)
"""A product of which some tiles are still in parts, for the kernel that reads it next to add up.

`rapid_kernels.gpu.matmul` cuts its tiles along K into one line of steps, of which each program takes an equal stretch.
A tile that the end of a stretch cuts is left in float32 parts. Adding those up by a launch of its own costs 1 to 5 us,
nine times a layer; the norm or the rotation behind it has to read the product anyway.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import triton
import triton.language as tl
from torch import Tensor

from rapid_kernels.gpu.stretches import owner


@dataclass(frozen=True, slots=True)
class Product:
    """[M, N], until something else is launched that uses the same workspace."""

    y: Tensor
    """[M, N] of x's type, rows contiguous; meaningless where a tile is in parts."""
    parts: Tensor
    """[2 * programs, block_m, block_n] float32: what each stretch leaves of the tiles it begins and ends in."""
    n: int
    """Rows of the weight: N, or twice that where its gate is applied."""
    programs: int
    k_steps: int
    """Steps a tile takes."""
    block_m: int
    block_n: int

    @classmethod
    def whole(cls, y: Tensor) -> "Product":
        """Of which nothing is in parts."""
        return cls(y, y, y.shape[1], 1, 1, 1, 1)

    @property
    def most_parts(self) -> int:
        """In how many parts a tile may be; 1: all are whole."""
        return _most_parts(triton.cdiv(self.n, self.block_n) * self.k_steps, self.k_steps, self.programs)


@cache
def _most_parts(steps: int, k_steps: int, programs: int) -> int:
    cuts = (program * steps // programs for program in range(1, programs))
    inside = Counter(cut // k_steps for cut in cuts if cut % k_steps)
    return 1 + max(inside.values(), default=0)


@triton.jit
def load_product(
    y, parts, row, tiles, columns, inside, N, programs,
    K_STEPS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """A row's values at some columns, float32 rounded to y's type as a launch of its own would have left them.

    ``tiles``: columns // BLOCK_N, of a shape that broadcasts to that of the columns.
    """
    if MOST == 1:
        return tl.load(y + row * N + columns, mask=inside, other=0.0).to(tl.float32)
    steps = (N + BLOCK_N - 1) // BLOCK_N * K_STEPS
    first = owner(tiles * K_STEPS, steps, programs)
    last = owner(tiles * K_STEPS + K_STEPS - 1, steps, programs)
    # The first part is of the stretch that begins before the tile or with it: see the matmul's slots.
    place = row * BLOCK_N + columns - tiles * BLOCK_N
    total = tl.load(y + row * N + columns, mask=inside & (first == last), other=0.0).to(tl.float32)
    total += tl.load(
        parts + (2 * first + 1) * (BLOCK_M * BLOCK_N) + place, mask=inside & (first < last), other=0.0
    )  # fmt: skip
    for later in tl.static_range(1, MOST):
        at = parts + 2 * (first + later) * (BLOCK_M * BLOCK_N) + place
        total += tl.load(at, mask=inside & (first + later <= last), other=0.0)
    return total.to(y.dtype.element_ty).to(tl.float32)

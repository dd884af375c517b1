# ruff: noqa: N803 (constants of a Triton kernel are upper case)
"""Chained launches: a kernel starts while the stream's previous one ends (programmatic dependent launch, Hopper on).

What a kernel does before `wait_for_previous` may touch only what no kernel of the stream writes. Kernels wait before
they write, so a chain of any length is as ordered as without.
"""

import triton
import triton.language as tl
from triton.language.extra import cuda


@triton.jit
def wait_for_previous(CHAINED: tl.constexpr):
    """Let the next kernel be started, and wait until everything launched earlier on the stream is done and visible."""
    if CHAINED:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()


@triton.jit
def prefetch(pointers):
    """Bring the 128-byte lines at a block of pointers to the L2 cache (NVIDIA)."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


def options(chained: bool) -> dict[str, bool]:
    """Launch options that go with ``CHAINED``."""
    return {"launch_pdl": True} if chained else {}

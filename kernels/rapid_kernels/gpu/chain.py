# ruff: noqa: N803 (constants of a Triton kernel are upper case)
"""Chained launches: a kernel starts while the stream's previous one ends (programmatic dependent launch, Hopper on).

What a kernel does before `wait_for_previous` may touch only what no kernel of the stream writes. Kernels wait before
they write, so a chain of any length is as ordered as without.

Two kernels that need nothing of each other run side by side the same way: the first one (`let_next_start`) is launched
behind all that both need, and of the second one, launched right behind it, one program waits for it before it ends.
"""

import triton
import triton.language as tl
from triton.language.extra import cuda


@triton.jit
def wait_for_previous(CHAINED: tl.constexpr):
    """Let the next kernel be started, and wait until everything launched earlier on the stream is done and visible."""
    let_next_start(CHAINED)
    wait(CHAINED)


@triton.jit
def wait(CHAINED: tl.constexpr):
    """The second half of it."""
    if CHAINED:
        cuda.gdc_wait()


@triton.jit
def let_next_start(LEADS: tl.constexpr):
    """The first half: the next kernel may run, up to its own wait, as soon as all programs of this one do."""
    if LEADS:
        cuda.gdc_launch_dependents()


@triton.jit
def prefetch(pointers):
    """Bring the 128-byte lines at a block of pointers to the L2 cache (NVIDIA)."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


def options(chained: bool) -> dict[str, bool]:
    """Launch options that go with ``CHAINED``."""
    return {"launch_pdl": True} if chained else {}

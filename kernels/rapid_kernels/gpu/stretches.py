"""How work is divided that is one line of steps: each program takes an equal, contiguous stretch (arXiv 2301.03598)."""

import triton
import triton.language as tl


@triton.jit
def stretch_start(program, steps, programs):
    """First step of a program's stretch; the next program's is its end."""
    return program * steps // programs


@triton.jit
def owner(step, steps, programs):
    """The program whose stretch holds a step."""
    return tl.cdiv((step + 1) * programs, steps) - 1

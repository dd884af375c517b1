"""Compiles one small kernel for the chips of the fake GPUs: ``kernel.py FOLDER``. Needs no GPU and no ROCm."""

# mypy: allow-untyped-decorators, allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

import os
import sys
from pathlib import Path

os.environ["TRITON_ALWAYS_COMPILE"] = "1"

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = ("gfx90a", "gfx942", "gfx950")


@triton.jit
def mark_kernel(out_ptr, value):
    """out_ptr [programs] i32."""
    tl.store(out_ptr + tl.program_id(0), value)


@triton.jit
def tile_kernel(out_ptr, SIDE: tl.constexpr, DEPTH: tl.constexpr):  # noqa: N803
    """out_ptr [SIDE, SIDE] i32: a product whose operands are staged in shared memory, 2 * SIDE * DEPTH bf16."""
    row, column, depth = tl.arange(0, SIDE), tl.arange(0, SIDE), tl.arange(0, DEPTH)
    left = tl.load(out_ptr + row[:, None] * DEPTH + depth[None, :]).to(tl.bfloat16)
    right = tl.load(out_ptr + depth[:, None] * SIDE + column[None, :]).to(tl.bfloat16)
    tl.store(out_ptr + row[:, None] * SIDE + column[None, :], tl.dot(left, right).to(tl.int32))


def main(folder: Path) -> None:
    """One ``mark.ARCHITECTURE.hsaco`` each."""
    for architecture in ARCHITECTURES:
        source = ASTSource(fn=mark_kernel, signature={"out_ptr": "*i32", "value": "i32"})
        kernel = triton.compile(source, target=GPUTarget("hip", architecture, 64), options={"num_warps": 1})
        (folder / f"mark.{architecture}.hsaco").write_bytes(kernel.asm["hsaco"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Compiles one small kernel for the chips of the fake GPUs: ``kernel.py FOLDER``. Needs no GPU and no ROCm."""

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
def mark_kernel(out_ptr, value):  # type: ignore[no-untyped-def]
    """out_ptr [programs] i32."""
    tl.store(out_ptr + tl.program_id(0), value)


def main(folder: Path) -> None:
    """One ``mark.ARCHITECTURE.hsaco`` each."""
    for architecture in ARCHITECTURES:
        source = ASTSource(fn=mark_kernel, signature={"out_ptr": "*i32", "value": "i32"})
        kernel = triton.compile(source, target=GPUTarget("hip", architecture, 64), options={"num_warps": 1})
        (folder / f"mark.{architecture}.hsaco").write_bytes(kernel.asm["hsaco"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Placement probe: on which SMs a stream's work really runs. A label is not a placement; this is.

Triton; NVIDIA only (%smid). Not part of any graph: run it between batches.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS_A_UNIT = 16
"""So many short programs a unit, of which several run at a time: every unit of the stream gets some."""
SPIN = 20_000
"""Iterations that keep a program resident until all units were offered work."""


@triton.jit
def _unit_id_kernel(out_ptr, spin):
    """out [programs] int32: the SM each program ran on."""
    pid = tl.program_id(0)
    lanes = tl.arange(0, 32)
    unit = tl.inline_asm_elementwise("mov.u32 $0, %smid;", "=r,r", [lanes * 0], dtype=tl.int32, is_pure=False, pack=1)
    total = lanes * 0
    for i in range(spin):
        total += i * lanes
    tl.store(out_ptr + pid + lanes * 0, unit + (total & 0), mask=lanes == 0)


def unit_ids(stream: torch.cuda.Stream, device_units: int) -> list[int]:
    """SM ids that a full grid on ``stream`` ran on, ascending. Synchronises the stream; a few milliseconds."""
    programs = PROGRAMS_A_UNIT * device_units
    with torch.cuda.stream(stream):
        out: Tensor = torch.full((programs,), -1, dtype=torch.int32, device="cuda")
        _unit_id_kernel[(programs,)](out, SPIN, num_warps=1)
    stream.synchronize()
    return sorted(set(out.tolist()))

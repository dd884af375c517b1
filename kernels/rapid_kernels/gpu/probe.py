"""Placement probe: on which SMs a stream's work really runs. A label is not a placement; this is.

Triton; NVIDIA only (%smid). Not part of any graph: run it between batches.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS_A_UNIT = 64
"""More than an SM holds at a time (32 at most), so that none is left out."""
STAY_CYCLES = 65_536
"""33 us at 2 GHz: a program stays until all units were offered work."""
_READ_UNIT = f"""{{
    .reg .u64 begin, now;
    .reg .pred early;
    mov.u32 $0, %smid;
    mov.u64 begin, %clock64;
again:
    mov.u64 now, %clock64;
    sub.u64 now, now, begin;
    setp.lt.u64 early, now, {STAY_CYCLES};
    @early bra again;
}}"""
"""It stays where it looks: a wait of its own, whose result nobody needs, is left out by the compiler."""
READ_UNIT = tl.constexpr(_READ_UNIT)


@triton.jit
def unit_id_kernel(
    out,  # [programs] int32
):
    """The SM that each program ran on. One warp a program."""
    lanes = tl.arange(0, 32)
    unit = tl.inline_asm_elementwise(READ_UNIT, "=r,r", [lanes], dtype=tl.int32, is_pure=False, pack=1)
    tl.store(out + tl.program_id(0) + lanes * 0, unit, mask=lanes == 0)


def unit_ids(stream: torch.cuda.Stream, device_units: int) -> list[int]:
    """SM ids that a full grid on ``stream`` ran on, ascending. Synchronises the stream; a few milliseconds."""
    programs = PROGRAMS_A_UNIT * device_units
    with torch.cuda.stream(stream):
        out: Tensor = torch.full((programs,), -1, dtype=torch.int32, device="cuda")
        unit_id_kernel[(programs,)](out, num_warps=1)
    stream.synchronize()
    return sorted(set(out.tolist()))

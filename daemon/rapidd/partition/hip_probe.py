"""Placement probe on an AMD GPU: on which units of the CU mask a stream's work really runs. Never run on hardware.

A mask that was asked for is no placement, and what HIP tells of it is none either. Triton; CDNA only, whose registers
`places` reads. Not part of any graph: it is run between batches.
"""

import torch
import triton
import triton.language as tl

from rapidd.partition.places import MaskNumbers, Place, read_place

PROGRAMS_A_UNIT = 64
"""More than fit on a unit at a time, so that none is left out."""
_NAP = "\n\ts_sleep 127" * 8
"""64 * 127 cycles each: a program stays until all units were offered work."""
_READ_HW_ID = f"s_getreg_b32 s20, hwreg(HW_REG_HW_ID)\n\tv_mov_b32 $0, s20{_NAP}"
_READ_XCC_ID = "s_getreg_b32 s20, hwreg(HW_REG_XCC_ID)\n\tv_mov_b32 $0, s20"
READ_HW_ID, READ_XCC_ID = tl.constexpr(_READ_HW_ID), tl.constexpr(_READ_XCC_ID)


@triton.jit
def place_kernel(
    out,  # [programs, 2] int32: HW_ID, XCC_ID
    HAS_XCC_ID: tl.constexpr,  # noqa: N803
):
    """Where each program ran. One wave a program; gfx90a has no XCC_ID, and gets zeros."""
    lanes = tl.arange(0, 64)
    zeros = lanes * 0
    at = out + 2 * tl.program_id(0) + zeros
    hw_id = tl.inline_asm_elementwise(READ_HW_ID, "=v,v,~{s20}", [zeros], dtype=tl.int32, is_pure=False, pack=1)
    tl.store(at, hw_id, mask=lanes == 0)
    if HAS_XCC_ID:
        xcc = tl.inline_asm_elementwise(READ_XCC_ID, "=v,v,~{s20}", [zeros], dtype=tl.int32, is_pure=False, pack=1)
        tl.store(at + 1, xcc, mask=lanes == 0)


class HipProbe:
    """``whole``: a stream on all ``units``. Raises `DeviceError` when it is not seen on as many.

    Called with a stream: the bits of the CU mask of the units that it runs on. Synchronises it; a few milliseconds.
    """

    def __init__(self, whole: torch.cuda.Stream, units: int, architecture: str) -> None:
        self._programs = PROGRAMS_A_UNIT * units
        self._architecture = architecture
        self._numbers = MaskNumbers(self._places(whole), units)

    def __call__(self, stream: torch.cuda.Stream) -> list[int]:
        """Ascending."""
        return self._numbers.of(self._places(stream))

    def _places(self, stream: torch.cuda.Stream) -> set[Place]:
        with torch.cuda.stream(stream):
            out = torch.zeros((self._programs, 2), dtype=torch.int32, device="cuda")
            place_kernel[(self._programs,)](out, HAS_XCC_ID=self._architecture != "gfx90a", num_warps=1)
            registers = out.tolist()  # on this stream: a thread's own is the NULL stream, which would join the lanes
        return {read_place(hw_id, xcc_id, self._architecture) for hw_id, xcc_id in registers}

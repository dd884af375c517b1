"""CU masks: which compute units each lane gets. Pure arithmetic on numbers that the driver gives.

Bit i of a mask is a unit of XCC ``i % num_xccs``; inside an XCC consecutive bits take the shader engines in turn
(Linux amdkfd, ``mqd_symmetrically_map_cu_mask``); fused-off units have no bit. So a contiguous range is spread
already: decode takes [0, n), prefill [n, units). Workgroups are dealt to the XCCs in turn, whatever the mask: an
XCC where a lane has no unit keeps its share for ever, one with fewer units than the others sets the pace.

Knows no runtime, no stream and no chip.
"""

from typing import Final

from msgspec import Struct

from rapidctl.wire import UnitGroup
from rapidd.errors import DeviceError
from rapidd.partition.table import share

WORD_BITS: Final = 32


class CuLayout(Struct, frozen=True, kw_only=True):
    """How the units of one HIP device are wired. ``engines_per_xcc``: shader engines; 1 where nobody tells."""

    units: int
    num_xccs: int
    engines_per_xcc: int = 1

    @property
    def step(self) -> int:
        """The smallest change of a split that all XCCs (and engines, where units suffice) share evenly."""
        fine = self.num_xccs * self.engines_per_xcc
        return fine if 2 * fine <= self.units else self.num_xccs


class LaneMasks(Struct, frozen=True, kw_only=True):
    """Mask words of one split, lowest bits first: disjoint, and together all units."""

    decode: tuple[int, ...]
    prefill: tuple[int, ...]


def legal_splits(layout: CuLayout) -> tuple[int, ...]:
    """Decode units of a few splits, ascending. What is left of units / step is prefill's. Empty: too few units."""
    return share(layout.units, layout.step, layout.step)


def lane_masks(layout: CuLayout, decode_units: int) -> LaneMasks:
    """The two masks of a split. Raises DeviceError unless it gives each lane the same number of units on every XCC.

    Where the units are no multiple of the XCCs, prefill's numbers differ by one.
    """
    largest = (layout.units - layout.num_xccs) // layout.num_xccs * layout.num_xccs
    if decode_units % layout.num_xccs or not layout.num_xccs <= decode_units <= largest:
        raise DeviceError(
            f"a split of {decode_units} decode units cannot be even over the {layout.num_xccs} XCCs of {layout.units}",
            f"use a multiple of {layout.num_xccs} from {layout.num_xccs} to {largest}",
        )
    return LaneMasks(
        decode=mask_words(range(decode_units), layout.units),
        prefill=mask_words(range(decode_units, layout.units), layout.units),
    )


def unit_groups(layout: CuLayout) -> tuple[UnitGroup, ...]:
    """The units of each shader engine by the rule above, XCC after XCC; of each XCC where nobody tells the engines.

    Where the engines of an XCC have unlike numbers of units, its last few are with the wrong engine: which ones
    are fused off is not told.
    """
    xccs, engines = layout.num_xccs, layout.engines_per_xcc
    units = range(layout.units)
    if engines == 1:
        return tuple(UnitGroup(name=f"XCC {xcc}", units=tuple(units[xcc::xccs])) for xcc in range(xccs))
    return tuple(
        UnitGroup(name=f"SE {engine}", within=f"XCC {xcc}", units=tuple(units[xcc::xccs][engine::engines]))
        for xcc in range(xccs)
        for engine in range(engines)
    )


def mask_words(bits: range, units: int) -> tuple[int, ...]:
    """``ceil(units / 32)`` uint32 words with ``bits`` set, as hipExtStreamCreateWithCUMask takes them.

    Raises DeviceError for no bits at all (HIP takes such a mask without a word, and the queue hangs) and for bits
    that the device does not have.
    """
    if not bits:
        raise DeviceError("a CU mask of zero would hang its queue", "give every lane at least one unit on every XCC")
    if min(bits) < 0 or max(bits) >= units:
        raise DeviceError(f"the CU mask names units {min(bits)} to {max(bits)}, and the device has {units}")
    whole = sum(1 << bit for bit in bits)
    return tuple(whole >> shift & 0xFFFF_FFFF for shift in range(0, units, WORD_BITS))

"""Physical places of compute units on CDNA, and the bit of a CU mask that each of them is. Pure; knows no kernel.

A program can read where it runs: HW_ID has the unit, shader array and shader engine, XCC_ID the XCC (AMD's CDNA ISA
guides, "Hardware ID Registers"). These numbers have holes where units are fused off; bits of a mask have none. amdkfd's
``mqd_symmetrically_map_cu_mask`` deals bits to the XCCs in turn, and inside an XCC to the engines, then to the arrays,
then to the units that are there. So whoever has seen every unit knows the bit of each.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from rapidd.errors import DeviceError

ENGINE_BITS: Final = {"gfx90a": 3}
"""Of SE_ID in HW_ID; 2 on gfx942 and gfx950."""


class Place(NamedTuple):
    """One compute unit, by the hardware's own numbers."""

    xcc: int
    unit: int
    array: int
    engine: int


def read_place(hw_id: int, xcc_id: int, architecture: str) -> Place:
    """From the two registers; ``xcc_id`` is 0 where there is no such register."""
    return Place(
        xcc=xcc_id & 0xF,
        unit=hw_id >> 8 & 0xF,
        array=hw_id >> 12 & 1,
        engine=hw_id >> 13 & (1 << ENGINE_BITS.get(architecture, 2)) - 1,
    )


def mask_bits(places: Iterable[Place]) -> dict[Place, int]:
    """The bit of each unit, from the places of all units, or of all that the first bits of a mask name.

    These are then 0 to the number of places, if every XCC has as many.
    """
    by_xcc: dict[int, dict[tuple[int, int], list[Place]]] = {}
    for place in sorted(set(places)):
        by_xcc.setdefault(place.xcc, {}).setdefault((place.array, place.engine), []).append(place)
    bits: dict[Place, int] = {}
    for first, engines in enumerate(by_xcc.values()):
        rounds = max(map(len, engines.values()))
        dealt = [engines[at][rank] for rank in range(rounds) for at in sorted(engines) if rank < len(engines[at])]
        bits |= {place: first + index * len(by_xcc) for index, place in enumerate(dealt)}
    return bits


class MaskNumbers:
    """Numbers units as a mask does. ``places``: of all ``units``. Raises `DeviceError` when they are not as many."""

    def __init__(self, places: Iterable[Place], units: int) -> None:
        self._bits = mask_bits(places)
        if len(self._bits) != units:
            raise DeviceError(f"the placement probe saw {len(self._bits)} compute units of {units}")

    def of(self, places: Iterable[Place]) -> list[int]:
        """Their bits, ascending. A place that is none of the units, if it comes to that, is numbered behind them."""
        places = set(places)
        for place in sorted(places - self._bits.keys()):
            self._bits[place] = len(self._bits)
        return sorted(self._bits[place] for place in places)

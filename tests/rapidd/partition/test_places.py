"""Units by the hardware's numbers against units by bits of a CU mask, under a model of the kernel's rule."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidd.errors import DeviceError
from rapidd.partition.places import MaskNumbers, Place, mask_bits, read_place

Harvest = dict[tuple[int, int], frozenset[int]]
"""Of each (XCC, engine) the units that are not fused off, by the hardware's numbers."""


def wiring(harvest: Harvest) -> dict[int, Place]:
    """The unit of each bit: the loops of amdkfd's mqd_symmetrically_map_cu_mask, one XCC after another."""
    xccs = sorted({xcc for xcc, _ in harvest})
    engines = sorted({engine for _, engine in harvest})
    where = {}
    for inst, xcc in enumerate(xccs):
        bit = inst
        for rank in range(16):
            for engine in engines:
                active = sorted(harvest[xcc, engine])
                if len(active) > rank:
                    where[bit] = Place(xcc, active[rank], 0, engine)
                    bit += len(xccs)
    return where


@st.composite
def harvests(draw: st.DrawFn) -> Harvest:
    """Every XCC keeps as many units, of 16 an engine, wherever they are."""
    xccs, engines = draw(st.sampled_from([(1, 4), (1, 8), (2, 4), (8, 4), (6, 4)]))
    kept = draw(st.integers(1, 10 * engines))
    harvest: dict[tuple[int, int], set[int]] = {at: set() for at in itertools.product(range(xccs), range(engines))}
    for xcc in range(xccs):
        everywhere = [(engine, unit) for engine in range(engines) for unit in range(16)]
        for engine, unit in draw(st.permutations(everywhere))[:kept]:
            harvest[xcc, engine].add(unit)
    return {at: frozenset(units) for at, units in harvest.items()}


@given(harvests())
def test_whoever_has_seen_every_unit_knows_the_bit_of_each(harvest: Harvest) -> None:
    where = wiring(harvest)
    assert mask_bits(where.values()) == {place: bit for bit, place in where.items()}
    assert sorted(where) == list(range(len(where)))


@given(harvests(), st.data())
def test_fewer_units_are_numbered_as_they_are_among_all(harvest: Harvest, data: st.DataObject) -> None:
    """A device limited to its first units is seen through a mask of these alone."""
    where = wiring(harvest)
    xccs = len({xcc for xcc, _ in harvest})
    units = xccs * data.draw(st.integers(1, len(where) // xccs))
    seen = [where[bit] for bit in range(units)]
    assert mask_bits(seen) == {place: bit for bit, place in enumerate(seen)}


@pytest.mark.parametrize(
    ("hw_id", "xcc_id", "architecture", "place"),
    [
        (0b1111_1010_0000_0000_0110_1011_0111_1111, 5, "gfx942", Place(xcc=5, unit=11, array=0, engine=3)),
        (0b0000_0000_0000_0000_1110_0010_0000_0000, 0, "gfx90a", Place(xcc=0, unit=2, array=0, engine=7)),
        (0b0000_0000_0000_0000_1101_0000_0000_0000, 0x7, "gfx950", Place(xcc=7, unit=0, array=1, engine=2)),
    ],
)
def test_registers_have_more_than_the_place(hw_id: int, xcc_id: int, architecture: str, place: Place) -> None:
    """The wave's slot, its SIMD and its queue stand beside it; the third bit of an engine counts on gfx90a only."""
    assert read_place(hw_id, xcc_id, architecture) == place


def test_units_that_nobody_should_have_are_seen_too() -> None:
    """A lane that escaped its mask must not look as if it had not."""
    units = [Place(0, unit, 0, 0) for unit in range(4)]
    numbers = MaskNumbers(units, 4)
    assert numbers.of(units[2:]) == [2, 3]
    astray = Place(0, 9, 0, 0)
    assert numbers.of([units[0], astray]) == [0, 4]
    assert numbers.of([astray]) == [4]


def test_numbers_from_some_of_the_units_would_be_wrong() -> None:
    with pytest.raises(DeviceError, match="saw 3 compute units of 4"):
        MaskNumbers([Place(0, unit, 0, 0) for unit in (0, 1, 3)], 4)

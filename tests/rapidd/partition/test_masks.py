"""CU masks against a model of the kernel's rule, on the real chips' shapes and on random harvests."""

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rapidd.errors import DeviceError
from rapidd.partition.masks import CuLayout, lane_masks, legal_splits, mask_words, unit_groups
from rapidd.partition.table import MAX_SPLITS

Chip = list[list[int]]
"""``chip[xcc][engine]``: active units of a shader engine with one array, as on every CDNA chip."""

CHIPS: dict[str, Chip] = {
    "MI300X": [[10, 10, 9, 9]] * 8,
    "MI355X": [[8, 8, 8, 8]] * 8,
    "MI250X GCD": [[14] * 6 + [13] * 2],
    "MI300X in DPX": [[10, 10, 9, 9]] * 4,
    "MI300X in CPX": [[10, 10, 9, 9]],
}
"""Which engines are short varies from part to part."""


def wiring(chip: Chip) -> list[tuple[int, int]]:
    """(XCC, engine) of bit 0, 1, ...: the loops of amdkfd's mqd_symmetrically_map_cu_mask, turned inside out."""
    where: dict[int, tuple[int, int]] = {}
    for xcc, engines in enumerate(chip):
        bit = xcc
        for unit in range(16):
            for engine, active in enumerate(engines):
                if active > unit:
                    where[bit] = (xcc, engine)
                    bit += len(chip)
    return [where[bit] for bit in sorted(where)]


def layout_of(chip: Chip) -> CuLayout:
    return CuLayout(units=sum(map(sum, chip)), num_xccs=len(chip), engines_per_xcc=len(chip[0]))


def bits_of(words: tuple[int, ...]) -> set[int]:
    assert all(0 <= word <= 0xFFFF_FFFF for word in words)
    return {32 * index + bit for index, word in enumerate(words) for bit in range(32) if word >> bit & 1}


def per_xcc(words: tuple[int, ...], chip: Chip) -> list[int]:
    places = wiring(chip)
    count = Counter(places[bit][0] for bit in bits_of(words))
    return [count[xcc] for xcc in range(len(chip))]


def per_engine(words: tuple[int, ...], chip: Chip) -> set[int]:
    places = wiring(chip)
    count = Counter(places[bit] for bit in bits_of(words))
    return {count[xcc, engine] for xcc, engines in enumerate(chip) for engine in range(len(engines))}


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    """Every XCC has as many units, spread over its engines in its own way."""
    xccs, engines = draw(st.sampled_from([(1, 4), (1, 8), (2, 4), (4, 4), (8, 4), (6, 4)]))
    units = draw(st.integers(2 * engines, 14 * engines))
    chip = []
    for _ in range(xccs):
        fused = draw(st.permutations(range(engines)))
        counts = [units // engines] * engines
        for engine in fused[: units % engines]:
            counts[engine] += 1
        chip.append(counts)
    return chip


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("MI300X", (32, 64, 96, 128, 160)),
        ("MI355X", (32, 64, 96, 128)),
        ("MI250X GCD", (16, 24, 32, 40, 56)),
        ("MI300X in DPX", (16, 32, 48, 64, 80)),
        ("MI300X in CPX", (4, 8, 12, 16, 20)),
    ],
)
def test_the_splits_of_known_chips(name: str, splits: tuple[int, ...]) -> None:
    assert legal_splits(layout_of(CHIPS[name])) == splits


@pytest.mark.parametrize("name", CHIPS)
def test_decode_is_even_over_xccs_and_engines_of_known_chips(name: str) -> None:
    chip = CHIPS[name]
    for split in legal_splits(layout_of(chip)):
        masks = lane_masks(layout_of(chip), split)
        assert set(per_xcc(masks.decode, chip)) == {split // len(chip)}
        assert len(per_engine(masks.decode, chip)) == 1
        assert len(set(per_xcc(masks.prefill, chip))) == 1


def test_the_remainder_of_an_mi300x_is_two_units_an_xcc_for_prefill() -> None:
    """304 = 9 x 32 + 16."""
    chip = CHIPS["MI300X"]
    masks = lane_masks(layout_of(chip), 256)
    assert per_xcc(masks.decode, chip) == [32] * 8
    assert per_xcc(masks.prefill, chip) == [6] * 8
    assert per_engine(masks.decode, chip) == {8}
    assert per_engine(masks.prefill, chip) == {1, 2}


def test_the_words_of_an_mi300x() -> None:
    masks = lane_masks(layout_of(CHIPS["MI300X"]), 64)
    assert masks.decode == (0xFFFFFFFF,) * 2 + (0,) * 8
    assert masks.prefill == (0,) * 2 + (0xFFFFFFFF,) * 7 + (0xFFFF,)


@pytest.mark.parametrize(("units", "words"), [(304, 10), (256, 8), (110, 4), (32, 1), (33, 2)])
def test_there_are_as_many_words_as_32_bits_of_units(units: int, words: int) -> None:
    assert len(mask_words(range(1), units)) == words


@given(chips())
def test_every_legal_split_gives_both_lanes_the_same_on_every_xcc(chip: Chip) -> None:
    layout = layout_of(chip)
    splits = legal_splits(layout)
    assert list(splits) == sorted(set(splits))
    assert len(splits) <= MAX_SPLITS
    for split in splits:
        masks = lane_masks(layout, split)
        decode, prefill = bits_of(masks.decode), bits_of(masks.prefill)
        assert decode == set(range(split))
        assert decode | prefill == set(range(layout.units))
        assert not decode & prefill
        assert len(masks.decode) == len(masks.prefill) == -(-layout.units // 32)
        for words in masks.decode, masks.prefill:
            (share,) = set(per_xcc(words, chip))
            assert share >= 1


@given(chips())
def test_a_device_whose_engines_nobody_tells_is_split_by_xccs(chip: Chip) -> None:
    layout = CuLayout(units=layout_of(chip).units, num_xccs=len(chip))
    splits = legal_splits(layout)
    assert splits
    assert all(split % len(chip) == 0 for split in splits)


@given(chips(), st.data())
def test_a_split_that_leaves_an_xcc_short_is_refused(chip: Chip, data: st.DataObject) -> None:
    layout = layout_of(chip)
    split = data.draw(st.integers(-1, layout.units + 1))
    assume(split % len(chip) or not len(chip) <= split <= layout.units - len(chip))
    with pytest.raises(DeviceError, match="even over"):
        lane_masks(layout, split)


@given(st.integers(1, 400), st.integers(1, 8))
def test_units_that_are_no_multiple_of_the_xccs_still_reach_every_xcc(units: int, xccs: int) -> None:
    layout = CuLayout(units=units, num_xccs=xccs)
    for split in legal_splits(layout):
        masks = lane_masks(layout, split)
        for words in masks.decode, masks.prefill:
            share = Counter(bit % xccs for bit in bits_of(words))
            assert len(share) == xccs
            assert max(share.values()) - min(share.values()) <= 1


@pytest.mark.parametrize("bits", [range(0), range(5, 5), range(304, 305), range(300, 400), range(-1, 4)])
def test_a_mask_of_zero_and_units_that_do_not_exist_are_refused(bits: range) -> None:
    with pytest.raises(DeviceError):
        mask_words(bits, 304)


def test_a_device_too_small_to_split_has_no_splits() -> None:
    assert legal_splits(CuLayout(units=8, num_xccs=8)) == ()
    assert legal_splits(CuLayout(units=1, num_xccs=1)) == ()


@given(chips())
def test_groups_are_the_engines_of_the_kernels_rule_but_for_an_xccs_last_uneven_units(chip: Chip) -> None:
    layout = layout_of(chip)
    engines = layout.engines_per_xcc
    claimed = {
        unit: (int(group.within.removeprefix("XCC ")), int(group.name.removeprefix("SE ")))
        for group in unit_groups(layout)
        for unit in group.units
    }
    assert sorted(claimed) == list(range(layout.units)), "every unit is in one group"
    even = sum(chip[0]) // engines * engines * len(chip)
    for unit, (xcc, engine) in enumerate(wiring(chip)):
        assert claimed[unit][0] == xcc
        assert claimed[unit][1] == engine or unit >= even


def test_where_nobody_tells_the_engines_units_are_grouped_by_xcc() -> None:
    groups = unit_groups(CuLayout(units=6, num_xccs=2))
    assert [(group.name, group.within, group.units) for group in groups] == [
        ("XCC 0", "", (0, 2, 4)),
        ("XCC 1", "", (1, 3, 5)),
    ]

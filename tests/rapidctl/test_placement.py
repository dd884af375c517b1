"""Maps of units: letters by measured placement, by number and by what holds the units together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl.placement import areas, squeeze, unit_ids, unit_phases
from rapidctl.wire import LanePlacement, PartitionInfo, Placement, UnitGroup
from support.snapshots import partition, placement


def measured_on(info: PartitionInfo, decode: set[int], prefill: set[int]) -> PartitionInfo:
    lanes = [
        LanePlacement(lane="decode", units=sorted(decode), measured=True),
        LanePlacement(lane="prefill", units=sorted(prefill), measured=True),
    ]
    return replace(info, measured=Placement(lanes=lanes, overlap=0, transition=False, probed_unix_s=None))


@settings(deadline=None)  # drawing hundreds of units takes a while on a busy machine
@given(st.integers(1, 400), st.data())
def test_units_are_lettered_by_where_lanes_were_measured(total: int, data: st.DataObject) -> None:
    numbers = st.sets(st.integers(0, total + 3))
    decode, prefill = data.draw(numbers), data.draw(numbers)
    letters = unit_phases(measured_on(partition(units=total, decode=0), decode, prefill))
    expected = {(True, True): "B", (True, False): "D", (False, True): "P", (False, False): "·"}
    assert letters == "".join(expected[unit in decode, unit in prefill] for unit in range(total))


def test_what_was_only_asked_for_is_no_placement() -> None:
    info = partition(units=4, decode=2)
    found = placement(4, 2)
    asked = replace(found, lanes=[replace(lane, measured=False) for lane in found.lanes])
    assert unit_phases(replace(info, measured=None)) is None
    assert unit_phases(replace(info, measured=asked)) is None


@given(st.text("DPB·", max_size=400), st.integers(1, 120))
def test_a_squeezed_map_fits_and_invents_no_phase(phases: str, width: int) -> None:
    squeezed = squeeze(phases, width)
    assert len(squeezed) == min(len(phases), width)
    assert set(squeezed) <= set(phases)


def test_a_squeezed_map_shows_what_most_of_each_part_does() -> None:
    assert squeeze("D" * 160 + "P" * 144, 19) == "D" * 10 + "P" * 9


THREADS = [
    UnitGroup(name="core 0", within="socket 0", units=(4, 12)),
    UnitGroup(name="core 1", within="socket 0", units=(5, 13)),
    UnitGroup(name="core 0", within="socket 1", units=(6, 14)),
]
"""Two sockets of a machine, of which this process may use six threads; numbers are the kernel's."""


def test_where_groups_are_told_units_have_the_numbers_in_them() -> None:
    info = replace(measured_on(partition(units=6), {4, 5, 6}, {6, 14}), groups=THREADS)
    assert list(unit_ids(info)) == [4, 5, 6, 12, 13, 14]
    assert unit_phases(info) == "DDB··P"


def test_a_unit_that_two_groups_name_is_one_unit() -> None:
    """The console ended in a traceback: it had more numbers of units than letters."""
    groups = [UnitGroup(name="core 0", units=(0, 1)), UnitGroup(name="core 1", units=(1, 2))]
    info = replace(measured_on(partition(units=3), {0, 1}, {2}), groups=groups)
    assert (list(unit_ids(info)), unit_phases(info)) == ([0, 1, 2], "DDP")


def test_areas_hold_their_groups_letters_in_the_order_told() -> None:
    info = replace(measured_on(partition(units=6), {4, 5}, {12, 6, 14}), groups=THREADS)
    assert areas(info) == [("socket 0", ["DP", "D·"], "DDP·"), ("socket 1", ["PP"], "PP")]


def test_groups_that_nothing_holds_are_areas_by_themselves() -> None:
    groups = [UnitGroup(name="XCC 0", units=(0, 2)), UnitGroup(name="XCC 1", units=(1, 3))]
    info = replace(measured_on(partition(units=4), {0, 1}, {2, 3}), groups=groups)
    assert areas(info) == [("XCC 0", ["DP"], "DP"), ("XCC 1", ["DP"], "DP")]


def test_what_nobody_measured_is_grouped_but_not_lettered() -> None:
    info = replace(partition(units=6), measured=None, groups=THREADS)
    assert unit_phases(info) is None
    assert areas(info) == [("socket 0", ["??", "??"], "????"), ("socket 1", ["??"], "??")]


@pytest.mark.parametrize("groups", [None, [], THREADS[:1]], ids=["untold", "none", "one"])
def test_without_two_groups_there_are_no_areas(groups: list[UnitGroup] | None) -> None:
    assert areas(replace(partition(units=2), groups=groups)) is None


@given(st.lists(st.integers(1, 5), min_size=2, max_size=9), st.data())
def test_grouping_loses_no_unit_and_changes_no_letter(sizes: list[int], data: st.DataObject) -> None:
    ids = iter(data.draw(st.permutations(range(sum(sizes)))))
    groups = [UnitGroup(name=f"XCC {i}", units=tuple(next(ids) for _ in range(n))) for i, n in enumerate(sizes)]
    units = st.sets(st.integers(0, sum(sizes) - 1))
    info = replace(measured_on(partition(units=sum(sizes)), data.draw(units), data.draw(units)), groups=groups)
    by_number, by_area = unit_phases(info), areas(info)
    assert by_number is not None
    assert by_area is not None
    assert [area.parts for area in by_area] == [["".join(by_number[unit] for unit in group.units)] for group in groups]
    assert all(sorted(area.letters) == sorted("".join(area.parts)) for area in by_area)

"""Maps of a device's units by *measured* placement: one letter a unit, by the groups in which units sit together.

D decode, P prefill, B both, ``·`` neither. What was only asked for is no placement and is never lettered. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from typing import Final, NamedTuple

from rapidctl.wire import PartitionInfo

LETTERS: Final = "DPB·"
UNMEASURED: Final = "?"


class Area(NamedTuple):
    """What holds neighbouring groups, an XCC or a socket; ``parts``: the letters of each of its groups.

    ``letters``: of all its units by their numbers, in which a lane's units mostly follow one another.
    """

    name: str
    parts: list[str]
    letters: str


def unit_ids(partition: PartitionInfo) -> Sequence[int]:
    """Numbers of the units, ascending, as `LanePlacement` has them: on a CPU the kernel's, else from 0."""
    if partition.groups is None:
        return range(partition.units_total)
    return sorted({unit for group in partition.groups for unit in group.units})


def unit_phases(partition: PartitionInfo) -> str | None:
    """One letter for each of `unit_ids`. Null when nothing was probed, or the system does not tell where a lane ran."""
    found = _letters(partition)
    return None if found is None else "".join(found.values())


def areas(partition: PartitionInfo) -> list[Area] | None:
    """The same letters by group; units that nobody measured are ``?``. Null where groups are not told or only one."""
    found, groups = _letters(partition) or {}, partition.groups
    if groups is None or len(groups) < 2:
        return None

    def lettered(units: Iterable[int]) -> str:
        return "".join(found.get(unit, UNMEASURED) for unit in units)

    result = []
    for name, inside in groupby(groups, key=lambda group: group.within or group.name):
        held = [group.units for group in inside]
        result.append(Area(name, list(map(lettered, held)), lettered(sorted(chain(*held)))))
    return result


def squeeze(phases: str, width: int) -> str:
    """A map of many units in ``width`` letters: each stands for an equal run and shows what most of it does."""
    if len(phases) <= width:
        return phases
    cells = (phases[len(phases) * i // width : len(phases) * (i + 1) // width] for i in range(width))
    return "".join(max(LETTERS, key=cell.count) for cell in cells)


def _letters(partition: PartitionInfo) -> dict[int, str] | None:
    placement = partition.measured
    if placement is None or not placement.lanes or not all(lane.measured for lane in placement.lanes):
        return None
    letters = dict.fromkeys(unit_ids(partition), "·")
    for lane in placement.lanes:
        mark = "D" if lane.lane == "decode" else "P"
        for unit in lane.units:
            if unit in letters:
                letters[unit] = mark if letters[unit] in ("·", mark) else "B"
    return letters

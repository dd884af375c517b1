"""The map of measured placement in one line: unit by unit where they are few, else by what holds them together."""

from __future__ import annotations

from textual.content import Content

from rapidctl.console.text import clip, fit, line, unit_map
from rapidctl.placement import Area, areas, squeeze, unit_ids, unit_phases
from rapidctl.wire import PartitionInfo

_LABEL = 8
_FEW_UNITS = 16
"""Up to this many units are drawn one by one with their numbers."""
_LEAST = 3
"""Letters an area needs to say something; with fewer, the units are drawn in their numbers' order."""
_BAR = line(("│", "$label"))


def map_line(info: PartitionInfo, width: int) -> Content:
    """With a label in front and, where the line is of numbers and not of areas, the first and the last number."""
    phases = unit_phases(info)
    if phases is None:
        return line((clip("units   placement not measured", width), "$muted"))
    ids = unit_ids(info)
    if len(ids) <= _FEW_UNITS and len(ids) * (len(str(ids[-1])) + 4) + _LABEL <= width:
        named = ((f"{unit}:", unit_map(phase), "  ") for unit, phase in zip(ids, phases, strict=True))
        return line(fit("units", _LABEL), *(part for parts in named for part in parts))
    found = areas(info)
    if found is not None:
        label = fit(span(found), max(_LABEL, len(span(found)) + 1))
        drawn = _side_by_side(found, width - len(label) - 2)
        if drawn is not None:
            return line((label, "$label")) + _BAR + drawn + _BAR
    head, tail = f"{fit('units', _LABEL)}{ids[0]}│", f"│{ids[-1]}"
    return line(head, unit_map(squeeze(phases, max(8, width - len(head) - len(tail)))), tail)


def map_letters(info: PartitionInfo, width: int) -> Content:
    """The letters alone, by area where each gets enough of them; nothing where nobody measured."""
    phases, found = unit_phases(info), areas(info)
    if phases is None:
        return Content("")
    drawn = None if found is None else _side_by_side(found, width)
    return unit_map(squeeze(phases, width)) if drawn is None else drawn


def span(found: list[Area]) -> str:
    """ "XCC 0–7": the first area's name and the last one's number."""
    first, last = found[0].name, found[-1].name
    return first if len(found) == 1 else f"{first}–{last.rpartition(' ')[2]}"


def _side_by_side(found: list[Area], width: int) -> Content | None:
    """Areas, each as wide as the others can be, between bars; null where they would get too few letters."""
    each = (width - len(found) + 1) // len(found)
    if len(found) < 2 or each < min(_LEAST, max(len(area.letters) for area in found)):
        return None
    return _BAR.join([unit_map(squeeze(area.letters, each)) for area in found])

"""Every unit of the device by the phase that was measured to run on it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from rapidctl.console.text import clip, fit, line, unit_map
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.units import placement_line, pressing_line
from rapidctl.placement import Area, areas, squeeze, unit_ids, unit_phases
from rapidctl.wire import PartitionInfo

_LABEL = 5
_GROUP = 8
"""Units between two gaps where nobody tells of groups: eyes count in small ones."""
_BETWEEN = 3
"""Cells between two areas in a line."""
_LEAST = 8
"""Letters an area needs at least."""


class Floor(Panel):
    """The map, and below it what presses."""

    def title(self, view: View) -> str:  # noqa: D102
        info = view.partition
        if info is None:
            return "PLACEMENT"
        return f"PLACEMENT  {info.plan.mode.upper()}  {info.source} {info.policy}  epoch {info.epoch}"

    def keys(self, view: View) -> str:  # noqa: D102
        return "D decode  P prefill  B both  · idle"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        info = view.partition
        if info is None:
            return [line(("no engine: nothing to show", "$muted"))]
        pressing = pressing_line(view, info, width)
        below = [placement_line(view, info, width), *([] if pressing is None else [pressing])]
        return [*floor(info, width, height - len(below)), *below]


def floor(info: PartitionInfo, width: int, height: int) -> list[Content]:
    """By what holds the units together where the device tells, else in the order of their numbers.

    A letter a unit, as long as there is room; areas that are too many are squeezed, and of numbers the rest is counted.
    """
    phases = unit_phases(info)
    if phases is None:
        return [line(("not measured: " + (info.unsupported or "this device tells no placement"), "$muted"))]
    found = areas(info)
    if found is not None:
        for drawn in (_by_area(found, width, gap=" "), _by_area(found, width, gap=""), _squeezed(found, width, height)):
            if 0 < len(drawn) <= height:
                return drawn
    drawn, row = _by_number(unit_ids(info), phases, width)
    if len(drawn) > height:
        left = len(phases) - (height - 1) * row
        drawn = [*drawn[: height - 1], line((clip(f"and {left} units more", width), "$muted"))]
    return drawn


def _by_area(found: list[Area], width: int, *, gap: str) -> list[Content]:
    """Areas with ``gap`` between groups, unless these are single units (cores without threads of their own)."""
    between = Content(gap if any(len(part) > 1 for area in found for part in area.parts) else "")
    return _columns(found, [between.join([unit_map(part) for part in area.parts]) for area in found], width)


def _squeezed(found: list[Area], width: int, height: int) -> list[Content]:
    """Areas in fewer letters than units, so many in a line that all fit; nothing where that says too little."""
    columns = -(-len(found) // max(1, height))
    each = (width + _BETWEEN) // columns - _BETWEEN - _label(found)
    return [] if each < _LEAST else _columns(found, [unit_map(squeeze(area.letters, each)) for area in found], width)


def _columns(found: list[Area], letters: list[Content], width: int) -> list[Content]:
    """As many areas in a line as fit, each under its name; nothing where not even one fits."""
    label = _label(found)
    drawn = [line((fit(area.name, label), "$label")) + map_ for area, map_ in zip(found, letters, strict=True)]
    longest = max(content.cell_length for content in drawn)
    columns = (width + _BETWEEN) // (longest + _BETWEEN)
    if not columns:
        return []
    cells = [content.pad_right(longest - content.cell_length) for content in drawn]
    return [Content(" " * _BETWEEN).join(cells[at : at + columns]) for at in range(0, len(cells), columns)]


def _label(found: list[Area]) -> int:
    return max(len(area.name) for area in found) + 1


def _by_number(ids: Sequence[int], phases: str, width: int) -> tuple[list[Content], int]:
    """As many runs of `_GROUP` in a line as fit, and the units of such a line."""
    row = max(1, (width - _LABEL + 1) // (_GROUP + 1)) * _GROUP
    drawn = []
    for first in range(0, len(phases), row):
        cells = phases[first : first + row]
        parts = [unit_map(cells[at : at + _GROUP]) for at in range(0, len(cells), _GROUP)]
        drawn.append(line((f"{ids[first]:>4} ", "$label")) + Content(" ").join(parts))
    return drawn, row

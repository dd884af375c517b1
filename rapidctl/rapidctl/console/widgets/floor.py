"""Every unit of the device by the phase that was measured to run on it: a letter a unit, none left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from textual.content import Content

from rapidctl.console.text import clip, fit, line, unit_map
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.units import placement_line, pressing_line
from rapidctl.placement import Area, areas, unit_ids, unit_phases
from rapidctl.wire import PartitionInfo

_LABEL = 5
_GROUP = 8
"""Units between two gaps where nobody tells of groups: eyes count in small ones."""
_BETWEEN = 3
"""Cells between two areas in a line."""


class Floor(Panel):
    """The map, and below it what presses."""

    def title(self, view: View) -> str:  # noqa: D102
        info = view.partition
        if info is None:
            return "PLACEMENT"
        return (
            f"PLACEMENT  {info.plan.mode.upper()}  {info.source} {info.policy}  epoch {info.epoch}, one letter a unit"
        )

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
    """By what holds the units together where the device tells, else in the order of their numbers."""
    phases = unit_phases(info)
    if phases is None:
        return [line(("not measured: " + (info.unsupported or "this device tells no placement"), "$muted"))]
    found = areas(info)
    rows = [] if found is None else _by_area(found, width, gap=" ") or _by_area(found, width, gap="")
    rows = rows or _by_number(unit_ids(info), phases, width)
    drawn = [row.content for row in rows]
    if len(drawn) > height:
        left = sum(row.units for row in rows[height - 1 :])
        drawn = [*drawn[: height - 1], line((clip(f"and {left} units more", width), "$muted"))]
    return drawn


class _Row(NamedTuple):
    units: int
    content: Content


def _by_area(found: list[Area], width: int, *, gap: str) -> list[_Row]:
    """Whole areas, as many in a line as fit, with ``gap`` between groups unless these are single units (cores without
    threads of their own). Empty where not even one fits."""
    between = Content(gap if any(len(part) > 1 for area in found for part in area.parts) else "")
    label = max(len(area.name) for area in found) + 1
    drawn = [
        line((fit(area.name, label), "$label")) + between.join([unit_map(part) for part in area.parts])
        for area in found
    ]
    longest = max(content.cell_length for content in drawn)
    columns = (width + _BETWEEN) // (longest + _BETWEEN)
    if not columns:
        return []
    rows = []
    for first in range(0, len(found), columns):
        cells = [content.pad_right(longest - content.cell_length) for content in drawn[first:][:columns]]
        units = sum(len(area.letters) for area in found[first:][:columns])
        rows.append(_Row(units, Content(" " * _BETWEEN).join(cells)))
    return rows


def _by_number(ids: Sequence[int], phases: str, width: int) -> list[_Row]:
    """As many runs of `_GROUP` in a line as fit."""
    row = max(1, (width - _LABEL + 1) // (_GROUP + 1)) * _GROUP
    rows = []
    for first in range(0, len(phases), row):
        cells = phases[first : first + row]
        parts = [unit_map(cells[at : at + _GROUP]) for at in range(0, len(cells), _GROUP)]
        content = line((f"{ids[first]:>4} ", "$label")) + Content(" ").join(parts)
        rows.append(_Row(len(cells), content))
    return rows

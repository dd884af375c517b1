"""Every unit of the device by the phase that was measured to run on it: a letter a unit, none left out."""

from __future__ import annotations

from textual.content import Content

from rapidctl.book import unit_phases
from rapidctl.console.text import clip, line, unit_map
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.units import placement_line, pressing_line
from rapidctl.wire import PartitionInfo

_LABEL = 5
_GROUP = 8
"""Units between two gaps: eyes count in small groups."""


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
    """Lines of as many whole groups of units as fit; what does not fit is said."""
    phases = unit_phases(info)
    if phases is None:
        return [line(("not measured: " + (info.unsupported or "this device tells no placement"), "$muted"))]
    groups = max(1, (width - _LABEL + 1) // (_GROUP + 1))
    row = groups * _GROUP
    drawn = []
    for first in range(0, len(phases), row):
        cells = phases[first : first + row]
        parts = [unit_map(cells[at : at + _GROUP]) for at in range(0, len(cells), _GROUP)]
        drawn.append(line((f"{first:>4} ", "$label")) + Content(" ").join(parts))
    if len(drawn) > height:
        left = len(phases) - (height - 1) * row
        drawn = [*drawn[: height - 1], line((clip(f"and {left} units more", width), "$muted"))]
    return drawn

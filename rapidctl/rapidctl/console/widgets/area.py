"""Who held the units over the last half hour: a stacked area, and the mode under every column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from textual.content import Content

from rapidctl.book import HISTORY_S, MODES
from rapidctl.console.text import Part, clock, line
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.out import unit_count

LETTERS: Final = {"serial": "s", "hybrid": "h", "shared": "b", "split": "/"}
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_AXIS: Final = 6
"""Cells of the axis on the left."""


class Area(Panel):
    """It is made again only when a column has passed or a second, whichever is first: thousands of samples go in."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._made: tuple[object, list[Content]] = (None, [])

    def title(self, view: View) -> str:  # noqa: D102
        total = (
            "" if view.partition is None else f"  {unit_count(view.partition.units_total, view.partition.unit_name)}"
        )
        return f"UNITS OVER 30 MIN{total}  decode below, prefill above, ▒ both on all"

    def keys(self, view: View) -> str:  # noqa: D102
        return "mode: / split  b shared  h hybrid  s serial"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        key = (int(view.now_s), width, height, view.host, view.snapshot is None)
        if self._made[0] != key:
            self._made = (key, area(view, width, height))
        return self._made[1]


def area(view: View, width: int, height: int) -> list[Content]:
    """``height`` lines: the area, the modes, the times."""
    if view.partition is None or height < 4:
        return [line(("no engine: nothing to show", "$muted"))]
    total, columns, rows = view.partition.units_total, max(1, width - _AXIS), height - 2
    decode = view.book.series("decode_units", view.now_s, HISTORY_S, columns)
    modes = view.book.series("mode", view.now_s, HISTORY_S, columns)
    drawn = []
    for row in reversed(range(rows)):
        label = f"{total:>4} ┤" if row == rows - 1 else f"{0:>4} ┤" if row == 0 else "     │"
        cells = [_cell(units, mode, total, row, rows) for units, mode in zip(decode, modes, strict=True)]
        drawn.append(line((label, "$label"), *_merge(cells)))
    letters = "".join(" " if mode is None else LETTERS[MODES[round(mode)]] for mode in modes)
    drawn.append(line(("mode  ", "$label"), letters))
    return [*drawn, _times(view, columns)]


def _cell(decode: float | None, mode: float | None, total: int, row: int, rows: int) -> tuple[str, str]:
    """One cell and its style. Split: decode's units fill from below, prefill's the rest; else both are on all."""
    if decode is None or mode is None:
        return " ", ""
    if MODES[round(mode)] != "split":
        return "▒", "$shared"
    eighths = min(8, max(0, math.floor(decode / total * rows * 8 + 0.5) - row * 8))
    return _EIGHTHS[eighths], "$decode on $prefill"


def _merge(cells: Sequence[tuple[str, str]]) -> list[Part]:
    parts: list[Part] = []
    for text, style in cells:
        if parts and parts[-1][1] == style:
            parts[-1] = (parts[-1][0] + text, style)
        else:
            parts.append((text, style))
    return parts


def _times(view: View, columns: int) -> Content:
    if view.at_unix_s is None:
        return Content("")
    first, last = clock(view.at_unix_s - HISTORY_S), clock(view.at_unix_s)
    return line((" " * _AXIS + first + last.rjust(max(0, columns - len(first))), "$label"))

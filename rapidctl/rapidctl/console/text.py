"""How values become cells: numbers with units, bars, charts and safe text. No widgets, no clock.

Unknown is an em dash, never 0. Widths are exact: every glyph used is one cell wide.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from rapidctl.out import UNKNOWN, printable

_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_PARTS: Final = " ▏▎▍▌▋▊▉█"

Part = str | tuple[str, str]
PHASE_STYLE: Final = {"D": "$decode", "P": "$prefill", "B": "$shared", "·": "$muted"}


def clip(text: str, width: int) -> str:
    """Safe text of at most ``width`` cells, with an ellipsis where some is missing."""
    text = printable(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def fit(text: str, width: int) -> str:
    """Safe text of exactly ``width`` cells: clipped, or padded on the right."""
    return set_cell_size(clip(text, width), width)


def line(*parts: Part | Content) -> Content:
    """One line of parts: plain text, (text, style), or content."""
    return Content.assemble(*parts)


def milliseconds(seconds: float | None) -> str:
    """Whole milliseconds; one decimal below 10."""
    if seconds is None:
        return UNKNOWN
    value = seconds * 1000
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def decimal(value: float | None, digits: int = 1) -> str:
    """A number with a fixed number of decimals."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """A whole number with thin groups of three."""
    return UNKNOWN if value is None else f"{value:,.0f}".replace(",", " ")


def kilo(value: int) -> str:
    """A whole number; thousands with one decimal from 10 000."""
    return str(value) if value < 10_000 else f"{value / 1000:.1f}k"


def gibibytes(size: int | None) -> str:
    """Bytes as GiB with one decimal, without the unit."""
    return UNKNOWN if size is None else f"{size / 2**30:.1f}"


def clock(at_unix_s: float) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at_unix_s))


def bar(share: float | None, width: int) -> str:
    """A bar of exactly ``width`` cells for a share of 0-1; dots when unknown."""
    if share is None:
        return "·" * width
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_PARTS[part] if part else "")).ljust(width, "░")[:width]


def nice_ceiling(peak: float) -> int:
    """The smallest of 8, 16, 32, ... that holds ``peak``: an axis that seldom changes."""
    ceiling = 8
    while ceiling < peak:
        ceiling *= 2
    return ceiling


def sparks(values: Sequence[float | None], top: float) -> str:
    """One row of bars on the axis 0..``top``; blank where unknown, a low line where 0."""
    return "".join(" " if value is None else _EIGHTHS[max(1, min(8, round(value / top * 8)))] for value in values)


def chart(values: Sequence[float | None], top: float, rows: int) -> list[str]:
    """``rows`` rows of bars on the axis 0..``top``, highest first; ``!`` on top of a bar that left the axis."""
    result = []
    for row in reversed(range(rows)):
        cells = []
        for value in values:
            if value is None:
                cells.append(" ")
                continue
            if value > top and row == rows - 1:
                cells.append("!")
                continue
            eighths = round(min(value, top) / top * rows * 8) - row * 8
            cells.append(_EIGHTHS[max(1 if row == 0 else 0, min(8, eighths))])
        result.append("".join(cells))
    return result


def unit_map(phases: str) -> Content:
    """Letters of `placement.unit_phases`, coloured; neighbours of one phase share a span."""
    parts: list[Part] = []
    start = 0
    for end in range(1, len(phases) + 1):
        if end == len(phases) or phases[end] != phases[start]:
            parts.append((phases[start:end], PHASE_STYLE[phases[start]]))
            start = end
    return line(*parts)

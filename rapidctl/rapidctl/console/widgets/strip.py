"""A chart over time on a fixed axis, with the SLO drawn as a line."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from rapidctl.book import Series
from rapidctl.console.text import Part, chart, decimal, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel


class Strip(Panel):
    """One series of the book: a share on 0-100 %, or the ITL p95 on 0-1.5 x its SLO."""

    def __init__(self, name: str, series: Series, style: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._label = name
        self._series: Series = series
        self._style = style

    def title(self, view: View) -> str:  # noqa: D102
        if self._series == "itl_p95_s":
            return f"{self._label} ms  SLO {milliseconds(_itl_slo(view))}  {view.window_s:.0f} s"
        return f"{self._label}  0–100%, {view.window_s:.0f} s"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        values = view.book.series(self._series, view.now_s, view.window_s, max(1, width - 5))
        if self._series == "itl_p95_s":
            slo = _itl_slo(view)
            return strip(values, (slo or 1.0) * 1.5, height, self._style, limit=slo)
        return strip(values, 1.0, height, self._style, limit=None)


def strip(
    values: Sequence[float | None],
    top: float,
    rows: int,
    style: str,
    *,
    limit: float | None,
    marks: Sequence[int] = (),
) -> list[Content]:
    """``rows`` lines with an axis of five cells. With a ``limit`` (seconds) the axis is in milliseconds.

    At columns in ``marks`` something changed: a dotted line where no bar stands.
    """
    drawn = chart(values, top, rows)
    limit_row = None if limit is None else rows - 1 - min(rows - 1, int(limit / top * rows))
    result = []
    for row, cells in enumerate(drawn):
        cells = "".join("┊" if column in marks and cell == " " else cell for column, cell in enumerate(cells))
        if row == limit_row:
            label, cells = " SLO┼", cells.replace(" ", "╌")
        elif row == 0:
            label = f"{top * 100:4.0f}┤" if limit is None else f"{decimal(top * 1000, 0):>4}┤"
        else:
            label = "   0┤" if row == rows - 1 else "    │"
        result.append(line((label, "$label"), *_coloured(cells, values, style, limit)))
    return result


def _coloured(cells: str, values: Sequence[float | None], style: str, limit: float | None) -> list[Part]:
    """Bars beyond the limit are ``$bad``, the limit's own line is a label."""
    parts: list[Part] = []
    for cell, value in zip(cells, values, strict=True):
        over = limit is not None and value is not None and value > limit
        colour = "$label" if cell in "╌┊" else "$bad" if over or cell == "!" else style
        if parts and parts[-1][1] == colour:
            parts[-1] = (parts[-1][0] + cell, colour)
        else:
            parts.append((cell, colour))
    return parts


def _itl_slo(view: View) -> float | None:
    return None if view.snapshot is None else view.snapshot.slo.itl_s

"""A sensor over the last minutes on a fixed axis from 0 to what the device can do."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content

from rapidctl.book import Series
from rapidctl.console.text import chart, line
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel

WINDOW_S = 300.0


class Trend(Panel):
    """``top``: of the axis; ``text``: how a value reads."""

    def __init__(
        self,
        name: str,
        series: Series,
        style: str,
        *,
        top: Callable[[View], float],
        text: Callable[[float | None], str],
        id: str,  # noqa: A002 - Textual's own name
    ) -> None:
        super().__init__(id=id)
        self._name = name
        self._series: Series = series
        self._style = style
        self._top = top
        self._text = text

    def title(self, view: View) -> str:  # noqa: D102
        newest = view.book.series(self._series, view.now_s, 1.0, 1)[-1]
        return f"{self._name}  {self._text(newest)}  5 min"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        top = self._top(view)
        label = self._text(top)
        room = max(1, width - len(label) - 1)
        values = view.book.series(self._series, view.now_s, WINDOW_S, room)
        if all(value is None for value in values):
            return [line(("this system has no such sensor", "$muted"))]
        drawn = chart(values, top, height)
        labels = [label, *[""] * (height - 2), "0"] if height > 1 else [label]
        return [
            line((f"{name:>{len(label)}}┤", "$label"), (cells, self._style))
            for name, cells in zip(labels, drawn, strict=True)
        ]

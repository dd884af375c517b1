"""Nothing that is shown drives the terminal, whoever wrote it: one filter over everything that is drawn."""

from __future__ import annotations

from typing import Final

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from rapidctl.out import printable


class Safe(LineFilter):
    """Applied to every line on its way to the terminal. What it takes away has no width."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments without control, escape and direction codes."""
        return [
            segment if segment.text.isprintable() else Segment(printable(segment.text), segment.style, segment.control)
            for segment in segments
        ]


SAFE: Final = Safe()
"""The one there is: Textual caches what a filter made by the filter."""

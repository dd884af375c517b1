"""For terminals and fonts without box and block characters: one filter over everything that is drawn."""

from __future__ import annotations

import unicodedata
from typing import Final

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_ALIKE: Final = {
    "─": "-", "│": "|", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "|", "┬": "+", "┴": "+", "┼": "+",
    "╭": "+", "╮": "+", "╰": "+", "╯": "+", "━": "=", "┃": "|", "╌": "-", "┊": ":",
    "▁": "_", "▂": "_", "▃": "_", "▄": "=", "▅": "=", "▆": "=", "▇": "#", "█": "#",
    "▏": ".", "▎": ".", "▍": "-", "▌": "-", "▋": "=", "▊": "=", "▉": "#", "░": ".", "▒": ":", "▓": "#", "▔": "-",
    "●": "*", "◌": "o", "○": "o", "•": "*", "·": ".", "◂": "<", "▸": ">", "▶": ">", "‖": "=", "✓": "v", "✗": "x",
    "×": "x", "—": "-", "–": "-", "…": "~", "≈": "~", "≤": "<", "≥": ">", "→": ">", "←": "<", "↓": "v", "↑": "^",
    "°": "'", "−": "-", "▀": "=", "▐": "|", "\u2009": " ", "\u202f": " ", "\xa0": " ", "‹": "<", "›": ">",
}  # fmt: skip
_TABLE: Final = str.maketrans(_ALIKE)


def plain(text: str) -> str:
    """The same number of cells in ASCII: the nearest sign, a letter without its accent, or ``?``."""
    text = text.translate(_TABLE)
    return text if text.isascii() else "".join(map(_plain, text))


def _plain(char: str) -> str:
    if char.isascii():
        return char
    base = unicodedata.normalize("NFKD", char)[0]
    if base.isascii():
        return base
    if unicodedata.combining(char):
        return ""
    return "??" if unicodedata.east_asian_width(char) in "WF" else "?"


class Plain(LineFilter):
    """Applied to every line on its way to the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments in ASCII."""
        return [Segment(plain(segment.text), segment.style, segment.control) for segment in segments]


ASCII: Final = Plain()
"""The one there is: Textual caches what a filter made by the filter."""

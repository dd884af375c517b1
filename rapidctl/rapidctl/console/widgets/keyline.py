"""The bottom line: the keys of the screen, as many as fit."""

from __future__ import annotations

from textual.content import Content

from rapidctl.console.text import Part, line
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel


class Keyline(Panel):
    """Pairs of key and meaning, most important first."""

    def __init__(self, *keys: tuple[str, str], id: str = "keyline") -> None:  # noqa: A002
        super().__init__(id=id)
        self._keys = keys

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return [keyline(self._keys, width)]


def keyline(keys: tuple[tuple[str, str], ...], width: int) -> Content:
    """One line: whole pairs alone; where not all fit, the least important are left out."""
    parts: list[Part] = []
    left = width
    for key, meaning in keys:
        needed = len(f" {key} {meaning} ")
        if needed - 1 <= left:  # the last space may be missing
            left -= needed
            parts += [(f" {key}", "bold $accent"), f" {meaning} "]
    return line(*parts)

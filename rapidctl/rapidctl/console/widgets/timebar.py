"""The line under the banner while the view stands in the past: where, how far it reaches, and what happened when."""

from __future__ import annotations

from typing import Final

from textual.content import Content

from rapidctl.console.text import Part, clock, line
from rapidctl.console.view import Past, View
from rapidctl.console.widgets.panel import Panel
from rapidctl.tape import MarkKind

SIGNS: Final[dict[MarkKind, str]] = {"operator": "o", "guard": "g", "problem": "!", "recovery": "r"}
_RANK: Final = "!gor"
"""Where several fall into one cell, the first of these is shown."""
_STYLES: Final = {"o": "bold $warning", "g": "$warning", "!": "bold $bad", "r": "$good"}
_KEYS: Final = "space play  [ ] frame  { } event  < > speed  T goto  L live"


class Timebar(Panel):
    """One line; hidden while live."""

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return [timebar(view, width)]


def timebar(view: View, width: int) -> Content:
    """The line."""
    past = view.past
    if past is None or view.at_unix_s is None:
        return Content("")
    first = clock(view.at_unix_s - (past.position_s - past.start_s))
    last = clock(view.at_unix_s + (past.end_s - past.position_s))
    keys = f"  {_KEYS}" if width >= 110 else ""
    room = max(8, width - len(first) - len(last) - len(keys) - 6)
    return line(f" {first} ├", *_track(past, room), f"┤ {last} ", (keys, "$label"))


def _track(past: Past, room: int) -> list[Part]:
    span = max(1e-9, past.end_s - past.start_s)

    def cell(at_s: float) -> int:
        return min(room - 1, max(0, int((at_s - past.start_s) / span * room)))

    cells = ["─"] * room
    for mark in past.marks:
        sign, at = SIGNS[mark.kind], cell(mark.at_s)
        if cells[at] == "─" or _RANK.index(sign) < _RANK.index(cells[at]):
            cells[at] = sign
    here = cell(past.position_s)
    parts: list[Part] = [(sign, _STYLES.get(sign, "$muted")) for sign in cells]
    parts[here] = ("●", "bold $accent")
    return parts

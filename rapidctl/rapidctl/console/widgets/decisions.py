"""What the policy and the operators decided lately, newest first."""

from __future__ import annotations

from typing import Final

from textual.content import Content

from rapidctl.console.text import clip, clock, line
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel

_SOURCE_STYLE = {
    "policy": "$label", "operator": "bold $warning", "guard": "bold $bad", "ttl": "$warning", "engine": "$muted",
}  # fmt: skip


class Decisions(Panel):
    """As many as fit."""

    def title(self, view: View) -> str:  # noqa: D102
        return "DECISIONS"

    def keys(self, view: View) -> str:  # noqa: D102
        return "5 log"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return decisions(view, width, height)


def decisions(view: View, width: int, height: int) -> list[Content]:
    """The newest ``height`` decisions."""
    if view.snapshot is None:
        return [line(("unknown", "$muted"))]
    newest = view.snapshot.decisions[::-1][:height]
    if not newest:
        return [line(("none yet", "$muted"))]
    return [
        line(
            f"{clock(made.at_unix_s)} ", (f"{made.source:<9}", _SOURCE_STYLE[made.source]), clip(made.text, width - 18)
        )
        for made in newest
    ]


_WHERE: Final = "  (5 log)"


class LastEvent(Panel):
    """The newest warning or error, else the newest event; one line for screens without a decisions panel."""

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return [last_event(view, width)]


def last_event(view: View, width: int) -> Content:
    """One line."""
    log = view.log
    if not log:
        return line((" no events yet  (5 log)", "$muted"))
    shown = log[-1]
    mark, style = (" ! ", "$bad") if shown.level != "info" else (" · ", "$label")
    text = clip(f"{clock(shown.at_unix_s)} {shown.kind} {shown.text}", width - len(mark) - len(_WHERE))
    return line((mark, style), text, _WHERE)

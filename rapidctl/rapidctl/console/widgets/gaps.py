"""Inter-token latency of one request: one bar a token on a fixed axis with the SLO line and changes of the plan."""

from __future__ import annotations

from textual.content import Content

from rapidctl.console.run import Run
from rapidctl.console.text import milliseconds
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.strip import strip

_AXIS_S = 0.15
"""Top of the axis while no SLO is known."""


class Gaps(Panel):
    """The newest tokens that fit. ``index``: of the answer, among those of a comparison."""

    def __init__(self, *, id: str, index: int) -> None:  # noqa: A002
        super().__init__(id=id)
        self._index = index

    def title(self, view: View) -> str:  # noqa: D102
        slo = None if view.snapshot is None else view.snapshot.slo.itl_s
        return f"ITL ms  one bar a token, SLO {milliseconds(slo)}, ┊ another plan"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        slo = None if view.snapshot is None else view.snapshot.slo.itl_s
        return gap_strip(nth_run(view, self._index), slo, width, height)


def nth_run(view: View, index: int) -> Run | None:
    """That answer, if there is one."""
    runs = view.prompts.runs
    return runs[index] if index < len(runs) else None


def gap_strip(run: Run | None, slo_s: float | None, width: int, rows: int) -> list[Content]:
    """The chart's lines."""
    room = max(1, width - 5)
    first = 0 if run is None else max(0, len(run.gaps_s) - room)
    newest: list[float | None] = [] if run is None else list(run.gaps_s[first:])
    values = newest + [None] * (room - len(newest))
    changes = [] if run is None else [at - first for at in run.changes if first <= at < first + room]
    return strip(values, _AXIS_S if slo_s is None else slo_s * 1.5, rows, "$decode", limit=slo_s, marks=changes)

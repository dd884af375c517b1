"""Requests by phase with their recent course, and what went wrong with some."""

from __future__ import annotations

from textual.content import Content

from rapidctl.book import Series
from rapidctl.console.text import clip, count, decimal, kilo, line, nice_ceiling, sparks
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel

_PHASES: tuple[tuple[Series, str], ...] = (
    ("waiting", "$label"), ("prefilling", "$prefill"), ("decoding", "$decode"),
)  # fmt: skip


class Queues(Panel):
    """Six lines where there is room, else two."""

    def title(self, view: View) -> str:  # noqa: D102
        return "QUEUES"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return queues(view, width, height)


def queues(view: View, width: int, height: int) -> list[Content]:
    """The panel's lines."""
    if view.snapshot is None:
        return [line(("unknown", "$muted"))]
    counts = view.snapshot.requests
    preempted = count(view.book.increase("preempted", view.now_s, 60.0))
    if height < 6:
        return [
            line(f"wait {counts.waiting}  ", (f"prefill {counts.prefilling}", "$prefill")),
            line((f"decode {counts.decoding}", "$decode"), f"  preempt/min {preempted}"),
        ]
    found = view.latency
    arrived, finished = (None, None) if found is None else (found.arrived_per_s, found.finished_per_s)
    return [
        line(clip(f"arrived {decimal(arrived)}/s  finished {decimal(finished)}/s", width)),
        *(_phase(view, name, style, width) for name, style in _PHASES),
        line(clip(f"preempt/min {preempted}  queued {kilo(counts.waiting_tokens)} tok", width)),
        line(clip(f"refused {counts.refused_total}  failed {counts.failed_total}  "
                  f"cancelled {counts.cancelled_total}", width)),
    ]  # fmt: skip


def _phase(view: View, name: Series, style: str, width: int) -> Content:
    assert view.snapshot is not None
    head = f"{name:<10}{getattr(view.snapshot.requests, name):>5} "
    room = max(4, width - len(head) - 6)
    values = view.book.series(name, view.now_s, view.window_s, room)
    top = nice_ceiling(max((value for value in values if value is not None), default=0))
    return line(head, (sparks(values, top), style), (f" 0–{top}", "$muted"))

"""The overview in a few plain lines, for terminals too small for boxes."""

from __future__ import annotations

from typing import Literal

from textual.content import Content

from rapidctl.book import kv_used, lane
from rapidctl.console.text import bar, clip, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.widgets.decisions import last_event
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.unitmap import map_letters
from rapidctl.out import UNKNOWN, percent
from rapidctl.wire import Quantiles, Snapshot


class Brief(Panel):
    """Seven lines."""

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return brief(view, width)


def brief(view: View, width: int) -> list[Content]:
    """The lines, each at most ``width`` cells."""
    snapshot = view.snapshot
    if snapshot is None:
        return [line((clip(f" nothing from {view.connection.endpoint} yet", width), "$muted"))]
    requests, found = snapshot.requests, view.latency
    none = Quantiles(n=0)
    queue = f" {requests.waiting} waiting {requests.prefilling} prefilling {requests.decoding} decoding"
    return [
        _control(view, width),
        _lane(snapshot, "prefill", width),
        _lane(snapshot, "decode", width),
        _quantiles("TTFT", none if found is None else found.ttft_s, None if found is None else found.ttft_met, width),
        _quantiles("ITL", none if found is None else found.itl_s, None if found is None else found.itl_met, width),
        line(clip(f"{queue}  KV {percent(kv_used(snapshot))}", width)),
        last_event(view, width),
    ]


def _control(view: View, width: int) -> Content:
    info = view.partition
    if info is None:
        return line((" no engine", "$muted"))
    if view.change is not None:
        return line((clip(f" {view.change.state.upper()} {view.change.text}", width), "bold $warning"))
    head = line(clip(f" {info.plan.mode.upper()} {info.policy} epoch {info.epoch}  ", width))
    return head + map_letters(info, max(1, width - head.cell_length - 1))


def _lane(snapshot: Snapshot, name: Literal["decode", "prefill"], width: int) -> Content:
    stats = lane(snapshot, name)
    busy = None if stats is None else stats.busy
    held = UNKNOWN if stats is None else str(stats.units)
    return line(f" {name:<8}{percent(busy):>4} ", (bar(busy, max(4, width - 22)), f"${name}"), f" {held}")


def _quantiles(name: str, found: Quantiles, met: float | None, width: int) -> Content:
    numbers = "/".join(milliseconds(value) for value in (found.p50, found.p95, found.p99))
    return line(clip(f" {name:<5}p50/95/99 {numbers} ms  n={found.n}  {percent(met)} met", width))

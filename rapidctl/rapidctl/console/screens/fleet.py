"""All daemons of the settings, each with its own liveness; enter looks at one."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message

from rapidctl.book import kv_used, latency_window
from rapidctl.console.screens.base import Page
from rapidctl.console.text import Part, clip, decimal, fit, line, milliseconds
from rapidctl.console.view import Fleet, View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.lines import Line, Lines
from rapidctl.console.widgets.panel import label_border
from rapidctl.out import UNKNOWN, percent

KEYS = (("?", "help"), ("esc", "back"), ("j k", "select"), ("enter", "look at it"), ("N", "next"), ("q", "quit"))
HEAD = (
    f"  {'NAME':<16} {'FEED':<14} {'MODEL':<24} {'MODE':<12} {'BUSY D/P':>9} {'WAIT':>5} {'DEC':>5} {'KV':>5} "
    f"{'TTFT95':>7} {'ITL95':>6} {'MET':>5}  ENDPOINT"
)


class FleetScreen(Page):
    """One line a daemon."""

    AUTO_FOCUS = "#fleet"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "look at the selected daemon", id="hosts.choose"),
    ]

    class Chosen(Message):
        """Look at this daemon."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Lines(id="fleet")
        yield Keyline(*KEYS)

    def show(self, view: View) -> None:  # noqa: D102
        super().show(view)
        table = self.query_one(Lines)
        width = table.scrollable_content_region.width
        table.put(
            [Line(found.name, fleet_line(found, view.window_s, width)) for found in view.fleet],
            line((clip(HEAD, width), "$label")),
        )
        label_border(table, f"HOSTS {len(view.fleet)}  latency of the last {view.window_s:.0f} s")

    def action_choose(self) -> None:
        """Enter."""
        if (name := self.query_one(Lines).selected) is not None:
            self.post_message(self.Chosen(name))


def fleet_line(found: Fleet, window_s: float, width: int) -> Content:
    """One daemon; what is old is marked and its figures are those of then."""
    snapshot = found.snapshot
    head = f"{'▸' if found.current else ' '} {fit(found.name, 16)} "
    if snapshot is None:
        return line(head, (fit("◌ no data", 14), "$bad"), clip(f" {found.endpoint}", max(1, width - 33)))
    if found.stale:
        feed: Part = (fit(f"◌ STALE {decimal(found.age_s, 0)} s", 14), "bold $bad")
    elif snapshot.state != "serving":
        feed = (fit(f"! {snapshot.state}", 14), "bold $warning")
    else:
        feed = (fit("● live" if found.age_s is not None else "▶ recording", 14), "$good")
    partition, requests = snapshot.partition, snapshot.requests
    busy = "/".join(percent(stats.busy) for stats in snapshot.lanes) or UNKNOWN
    mode = UNKNOWN
    if partition is not None:
        plan = partition.plan
        mode = f"{plan.mode} {plan.decode_units}/{plan.prefill_units}" if plan.mode == "split" else plan.mode
    window = latency_window(snapshot, window_s)
    ttft, itl, met = (None, None, None) if window is None else (window.ttft_s.p95, window.itl_s.p95, window.both_met)
    model = UNKNOWN if snapshot.model is None else snapshot.model.name
    rest = (
        f" {fit(model, 24)} {fit(mode, 12)} {busy:>9} {requests.waiting:>5} {requests.decoding:>5} "
        f"{percent(kv_used(snapshot)):>5} {milliseconds(ttft):>7} {milliseconds(itl):>6} {percent(met):>5}  "
    )
    left = max(1, width - len(head) - 14 - len(rest))
    return line(head, feed, (rest + clip(found.endpoint, left), "$muted" if found.stale else ""))

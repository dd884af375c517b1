"""All daemons of the settings, each with its own liveness; enter looks at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

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

KEYS = (("?", "help"), ("esc", "back"), ("q", "quit"), ("j k", "select"), ("enter", "look at it"), ("N", "next"))


class Column(NamedTuple):
    """A column. The higher its ``rank``, the earlier it gives way where the terminal is narrow."""

    title: str
    width: int
    rank: int
    right: bool = True


COLUMNS: Final = (
    Column("NAME", 14, 0, right=False), Column("FEED", 14, 1, right=False), Column("MODEL", 24, 10, right=False),
    Column("MODE", 13, 3, right=False), Column("BUSY D/P", 9, 5), Column("WAIT", 5, 7), Column("DEC", 5, 8),
    Column("KV", 5, 9), Column("TTFT95", 7, 6), Column("ITL95", 6, 4), Column("MET", 5, 2),
    Column("ENDPOINT", 24, 11, right=False),
)  # fmt: skip
_MARK_WIDTH: Final = 2
"""Before the name: which daemon is shown."""


class FleetScreen(Page):
    """One line a daemon."""

    AUTO_FOCUS = "#fleet"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "look at the selected daemon", id="hosts.choose"),
    ]

    class Chosen(Message):
        """Look at this daemon."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Lines(id="fleet")
        yield Keyline(*KEYS)

    def show(self, view: View) -> None:  # noqa: D102
        super().show(view)
        table = self.query_one(Lines)
        width = table.scrollable_content_region.width
        columns = fitting(width)
        head = " ".join(cell(column, column.title) for column in columns)
        table.put(
            [Line(str(index), fleet_line(found, view.window_s, columns)) for index, found in enumerate(view.fleet)],
            line((" " * _MARK_WIDTH + head, "$label")),
        )
        label_border(table, f"HOSTS {len(view.fleet)}  latency of the last {view.window_s:.0f} s")

    def action_choose(self) -> None:
        """Enter."""
        if (index := self.query_one(Lines).selected) is not None:
            self.post_message(self.Chosen(int(index)))


def fitting(width: int) -> list[Column]:
    """The columns that a table so wide has room for."""
    columns = list(COLUMNS)
    while _MARK_WIDTH + sum(column.width + 1 for column in columns) - 1 > width and len(columns) > 1:
        columns.remove(max(columns, key=lambda column: column.rank))
    return columns


def cell(column: Column, text: str) -> str:
    """The text, cut or filled up to the column's width."""
    return clip(text, column.width).rjust(column.width) if column.right else fit(text, column.width)


def fleet_line(found: Fleet, window_s: float, columns: Sequence[Column]) -> Content:
    """One daemon; what is old is marked and its figures are those of then."""
    texts = figures(found, window_s)
    parts: list[Part] = [f"{'▸' if found.current else ' '} "]
    for column in columns:
        text = cell(column, texts.get(column.title, UNKNOWN)) + " "
        parts.append((text, feed(found)[1] if column.title == "FEED" else "$muted" if found.stale else ""))
    return line(*parts)


def feed(found: Fleet) -> tuple[str, str]:
    """How fresh its figures are, or what it does instead of serving; and the style of that."""
    if found.snapshot is None:
        return "◌ no data", "$bad"
    if found.stale:
        return f"◌ STALE {decimal(found.age_s, 0)} s", "bold $bad"
    if found.snapshot.state != "serving":
        return f"! {found.snapshot.state}", "bold $warning"
    return ("● live" if found.age_s is not None else "▶ recording"), "$good"


def figures(found: Fleet, window_s: float) -> dict[str, str]:
    """What is known of it, by column."""
    snapshot = found.snapshot
    known = {"NAME": found.name, "FEED": feed(found)[0], "ENDPOINT": found.endpoint}
    if snapshot is None:
        return known
    if snapshot.partition is not None:
        plan = snapshot.partition.plan
        known["MODE"] = f"{plan.mode} {plan.decode_units}/{plan.prefill_units}" if plan.mode == "split" else plan.mode
    if snapshot.model is not None:
        known["MODEL"] = snapshot.model.name
    if (window := latency_window(snapshot, window_s)) is not None:
        known |= {
            "TTFT95": milliseconds(window.ttft_s.p95),
            "ITL95": milliseconds(window.itl_s.p95),
            "MET": percent(window.both_met),
        }
    return known | {
        "BUSY D/P": "/".join(percent(stats.busy) for stats in snapshot.lanes) or UNKNOWN,
        "WAIT": str(snapshot.requests.waiting),
        "DEC": str(snapshot.requests.decoding),
        "KV": percent(kv_used(snapshot)),
    }

"""Every event of the daemon that is still kept, and what the console noticed itself; newest at the bottom."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content

from rapidctl.book import LogLine
from rapidctl.console.screens.base import Page
from rapidctl.console.text import clip, clock, line
from rapidctl.console.view import View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.lines import Line, Lines
from rapidctl.console.widgets.panel import label_border

_MARKS = {"info": ("  ", ""), "warn": ("! ", "$warning"), "error": ("✗ ", "bold $bad")}


class Log(Page):
    """The log of events."""

    AUTO_FOCUS = "#log"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.overview", "back", id="log.back")]

    def __init__(self) -> None:
        super().__init__()
        self._drawn: tuple[int, LogLine | None, int] | None = None

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Lines(id="log", selectable=False)
        yield Keyline(("esc", "back"), ("j k g G", "scroll"), ("?", "help"), ("q", "quit"))

    def show(self, view: View) -> None:
        """New lines keep the end in sight unless the reader scrolled up."""
        super().show(view)
        log, entries = self.query_one(Lines), view.book.log
        width = log.scrollable_content_region.width
        drawn = (len(entries), entries[-1] if entries else None, width)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        at_end = log.is_vertical_scroll_end
        log.put([Line("", log_line(entry, width)) for entry in entries])
        lost = f"  {view.book.lost_events} lost" if view.book.lost_events else ""
        label_border(log, f"LOG {len(entries)} events{lost}")
        if at_end:
            log.to_end()


def log_line(entry: LogLine, width: int) -> Content:
    """One event, at most ``width`` cells."""
    mark, style = _MARKS[entry.level]
    event = entry.event
    numbers = "" if event is None or event.epoch is None else f" [epoch {event.epoch}]"
    head = f"{clock(entry.at_unix_s)} "
    text = clip(f"{entry.kind:<13} {entry.text}{numbers}", max(1, width - len(head) - len(mark)))
    return line((head, "$label"), (mark, style), (text, style))

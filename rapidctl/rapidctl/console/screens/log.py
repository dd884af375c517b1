"""Every event of the daemon that is still kept, and what the console noticed itself; newest at the bottom."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from textwrap import wrap
from typing import ClassVar, Final

from rich.cells import cell_len, chop_cells
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input

from rapidctl.book import LOG_LINES, LogLine
from rapidctl.console.screens.base import Page
from rapidctl.console.text import clock, line
from rapidctl.console.view import View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.lines import Line, Lines
from rapidctl.console.widgets.panel import label_border
from rapidctl.console.widgets.timebar import Timebar
from rapidctl.out import printable

_MARKS = {"info": ("  ", ""), "warn": ("! ", "$warning"), "error": ("✗ ", "bold $bad")}
_LEAST: Final = 16
"""Cells of text: in less no word has room."""
KEYS = (("?", "help"), ("esc", "back"), ("q", "quit"), ("/", "filter"), ("f", "warnings only"), ("j k g G", "scroll"))


class Log(Page):
    """The log of events."""

    AUTO_FOCUS = "#log"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter: words that must all appear, -word must not", id="log.filter"),
        Binding("f", "grave", "only warnings and errors, or all", id="log.grave"),
        Binding("escape", "back", "drop the filter, then back", id="log.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._drawn: tuple[object, ...] = ()
        self._words: list[str] = []
        self._grave = False
        self._view: View | None = None

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Timebar(id="timebar")
        yield Lines(id="log", selectable=False)
        yield Input(placeholder="override -decision", id="filter", compact=True, classes="-hidden")
        yield Keyline(*KEYS)

    def show(self, view: View) -> None:
        """New lines keep the end in sight unless the reader scrolled up."""
        super().show(view)
        self._view = view
        log, entries = self.query_one(Lines), view.log
        width = log.scrollable_content_region.width
        drawn = (len(entries), entries[-1] if entries else None, width, tuple(self._words), self._grave, view.host)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        at_end = log.scroll_offset.y >= log.max_scroll_y - 1  # the filter's field takes a line while it is there
        kept = list(choose(entries, self._words, grave=self._grave))
        log.put([Line("", part) for entry in kept for part in log_lines(entry, width)])
        lost = f"  {view.book.lost_events} lost" if view.book.lost_events else ""
        shown = f"  shown {len(kept)}" if len(kept) != len(entries) else ""
        label_border(log, f"LOG {len(entries)} events{lost}{shown}")
        if at_end:
            log.to_end()

    def action_filter(self) -> None:
        """Type a filter."""
        field = self.query_one("#filter", Input)
        field.remove_class("-hidden")
        field.focus()

    def action_grave(self) -> None:
        """Only what is wrong, or all."""
        self._grave = not self._grave
        self._again()

    async def action_back(self) -> None:
        """Drop the filter; without one, to the overview."""
        field = self.query_one("#filter", Input)
        if field.value or field.has_focus:
            field.value = ""
            self._leave()
        else:
            await self.app.run_action("go('overview')")

    def on_input_changed(self, event: Input.Changed) -> None:
        """The log follows the typing."""
        self._words = event.value.lower().split()
        self._again()

    def on_input_submitted(self) -> None:
        """Enter keeps the filter."""
        self._leave()

    def _leave(self) -> None:
        self.query_one("#filter", Input).add_class("-hidden")
        self.query_one(Lines).focus()

    def _again(self) -> None:
        if self._view is not None:
            self.show(self._view)


def choose(entries: Iterable[LogLine], words: list[str], *, grave: bool) -> Iterable[LogLine]:
    """The lines that have every word in kind or text, and none of the words with a minus before them."""
    for entry in entries:
        text = f"{entry.kind} {entry.level} {entry.text}".lower()
        fits = all(word[1:] not in text if len(word) > 1 and word[0] == "-" else word in text for word in words)
        if fits and not (grave and entry.level == "info"):
            yield entry


def log_lines(entry: LogLine, width: int) -> list[Content]:
    """One event, at most ``width`` cells; a long text goes on below, so that no reason is cut."""
    mark, style = _MARKS[entry.level]
    event = entry.event
    numbers = "" if event is None or event.epoch is None else f" [epoch {event.epoch}]"
    head = f"{clock(entry.at_unix_s)} "
    indent = " " * (len(head) + len(mark))
    first, *more = _wrapped(f"{entry.kind:<13} {entry.text}{numbers}", max(_LEAST, width - len(indent)))
    return [
        line((head, "$label"), (mark, style), (first, style)),
        *(line(indent, (rest, style)) for rest in more),
    ]


@lru_cache(maxsize=LOG_LINES)
def _wrapped(text: str, width: int) -> tuple[str, ...]:
    """Safe text in parts of at most ``width`` cells, broken between words, and in words that are longer."""
    text = printable(text)
    if cell_len(text) <= width:
        return (text,)
    parts = wrap(text, width, subsequent_indent="  ")
    return tuple(piece for part in parts for piece in chop_cells(part, width))  # wide glyphs: more cells than letters

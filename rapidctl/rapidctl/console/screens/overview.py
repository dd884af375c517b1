"""Everything about the daemon on one screen, at any size: boxes where they fit, lines where they do not."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.widgets import Input

from rapidctl.console.screens.base import Page
from rapidctl.console.view import View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.brief import Brief
from rapidctl.console.widgets.decisions import Decisions, LastEvent
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.kv import Kv
from rapidctl.console.widgets.quantiles import Latency
from rapidctl.console.widgets.queues import Queues
from rapidctl.console.widgets.rows import Rows
from rapidctl.console.widgets.strip import Strip
from rapidctl.console.widgets.units import Units

KEYS = (
    ("?", "help"), ("q", "quit"), ("n", "prompt"), ("o", "override"), ("^o", "unlock"), ("5", "log"),
    ("w", "window"), ("p", "freeze"), ("/", "filter"), ("x", "cancel"), ("t", "theme"), ("^p", "palette"),
)  # fmt: skip
SMALL_KEYS = (("?", "help"), ("q", "quit"), ("n", "prompt"), ("o", "override"), ("5", "log"))


class Overview(Page):
    """The first screen."""

    AUTO_FOCUS = "#rows"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter requests", id="rows.filter"),
        Binding("comma", "column(-1)", "sort by the column before", id="rows.sort_left"),
        Binding("full_stop", "column(1)", "sort by the next column", id="rows.sort_right"),
        Binding("s", "reverse", "reverse the order", id="rows.reverse"),
        Binding("x", "cancel", "cancel the selected request (control)", id="rows.cancel"),
        Binding("escape", "clear", "leave the filter", id="rows.clear", show=False),
    ]

    class CancelAsked(Message):
        """The operator wants this request to end."""

        def __init__(self, request_id: str) -> None:
            super().__init__()
            self.request_id = request_id

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Brief(id="brief")
        with Container(id="top"):
            yield Units(id="units")
            yield Latency(id="latency")
        with Container(id="strips"):
            yield Strip("decode busy", "decode_busy", "$decode", id="strip-decode")
            yield Strip("prefill busy", "prefill_busy", "$prefill", id="strip-prefill")
            yield Strip("ITL p95", "itl_p95_s", "$decode", id="strip-itl")
        with Container(id="middle"):
            yield Queues(id="queues")
            yield Kv(id="kv")
            yield Decisions(id="decisions")
        yield Rows(id="rows")
        yield Input(placeholder="phase:decoding age>5 client~ana", id="filter", compact=True, classes="-hidden")
        yield LastEvent(id="last-event")
        yield Keyline(*KEYS)
        yield Keyline(*SMALL_KEYS, id="keyline-small")

    def show(self, view: View) -> None:  # noqa: D102
        super().show(view)
        self.query_one(Rows).show(view)

    def action_column(self, by: int) -> None:
        """Sort by a neighbouring column."""
        rows = self.query_one(Rows)
        rows.sort(rows.order.step(by))

    def action_reverse(self) -> None:
        """Reverse the order."""
        rows = self.query_one(Rows)
        rows.sort(rows.order._replace(reverse=not rows.order.reverse))

    def action_filter(self) -> None:
        """Type a filter."""
        field = self.query_one("#filter", Input)
        field.remove_class("-hidden")
        field.focus()

    def action_clear(self) -> None:
        """Leave the filter's field and drop the filter."""
        field = self.query_one("#filter", Input)
        field.value = ""
        self._leave_filter()

    def action_cancel(self) -> None:
        """Ask for the end of the selected request, by id: the table may re-sort meanwhile."""
        selected = self.query_one(Rows).selected
        if selected is None:
            self.notify("select a request first: j and k, or the arrows", severity="warning")
        else:
            self.post_message(self.CancelAsked(selected.split("#")[0]))

    def on_input_changed(self, event: Input.Changed) -> None:
        """The table follows the typing."""
        self.query_one(Rows).set_filter(event.value)

    def on_input_submitted(self) -> None:
        """Enter keeps the filter."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).add_class("-hidden")
        self.query_one(Rows).focus()

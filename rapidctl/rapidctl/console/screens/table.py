"""A page with the table of requests: filter, order, cancel."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from rapidctl.console.screens.base import Page
from rapidctl.console.view import View
from rapidctl.console.widgets.rows import CancelAsked, Rows


def filter_field() -> Input:
    """Where a filter is typed; hidden until asked for."""
    return Input(placeholder="phase:decoding age>5 client~ana", id="filter", compact=True, classes="-hidden")


class TablePage(Page):
    """Compose a `Rows` and a `filter_field` in it."""

    AUTO_FOCUS = "#rows"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter requests", id="rows.filter"),
        Binding("comma", "column(-1)", "sort by the column before", id="rows.sort_left"),
        Binding("full_stop", "column(1)", "sort by the next column", id="rows.sort_right"),
        Binding("s", "reverse", "reverse the order", id="rows.reverse"),
        Binding("x", "cancel", "cancel the selected request (control)", id="rows.cancel"),
        Binding("enter", "details", "every figure of the selected request", id="rows.details"),
        Binding("escape", "clear", "leave the filter, then back", id="rows.clear", show=False),
    ]

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

    async def action_clear(self) -> None:
        """Drop the filter and leave its field; without one, back to the overview."""
        field = self.query_one("#filter", Input)
        if field.value or field.has_focus:
            field.value = ""
            self._leave_filter()
        else:
            await self.app.run_action("go('overview')")

    async def action_details(self) -> None:
        """Where all of it is shown."""
        await self.app.run_action("go('requests')")

    def action_cancel(self) -> None:
        """Ask for the end of the selected request, by id: the table may re-sort meanwhile."""
        selected = self.query_one(Rows).selected
        if selected is None:
            self.notify("select a request first: j and k, or the arrows", severity="warning")
        else:
            self.post_message(CancelAsked(selected.split("#")[0]))

    def on_input_changed(self, event: Input.Changed) -> None:
        """The table follows the typing."""
        self.query_one(Rows).set_filter(event.value)

    def on_input_submitted(self) -> None:
        """Enter keeps the filter."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).add_class("-hidden")
        self.query_one(Rows).focus()

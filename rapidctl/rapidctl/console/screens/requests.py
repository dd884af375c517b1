"""Every live request, and every figure of the one that is selected."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from rapidctl.console.screens.table import TablePage, filter_field
from rapidctl.console.view import View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.details import Details
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.rows import AllRows
from rapidctl.console.widgets.timebar import Timebar

KEYS = (
    ("?", "help"), ("esc", "back"), ("q", "quit"), ("j k", "select"), ("x", "cancel"), ("^o", "unlock"),
    ("/", "filter"), (", .", "sort"), ("y", "copy id"), ("s", "reverse"),
)  # fmt: skip


class Requests(TablePage):
    """The table over the details."""

    wants_requests: ClassVar[bool] = True

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Timebar(id="timebar")
        yield AllRows(id="rows")
        yield filter_field()
        yield Details(id="details")
        yield Keyline(*KEYS)

    def show(self, view: View) -> None:  # noqa: D102
        rows = self.query_one(AllRows)
        self.query_one(Details).choose(rows.find(rows.selected), rows.rows(view))
        super().show(view)

    def on_lines_moved(self) -> None:
        """Another one is selected."""
        rows, details = self.query_one(AllRows), self.query_one(Details)
        if details.view is not None:
            details.choose(rows.find(rows.selected), rows.rows(details.view))
            details.show(details.view)

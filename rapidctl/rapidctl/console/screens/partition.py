"""Who held the units, what other plans would do, and how well the prediction holds."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message

from rapidctl.console.screens.base import Page
from rapidctl.console.view import View
from rapidctl.console.whatif import WhatIf
from rapidctl.console.widgets.area import Area
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.floor import Floor
from rapidctl.console.widgets.guesses import Guesses, Measured
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.timebar import Timebar
from rapidctl.source import Answer

KEYS = (
    ("?", "help"), ("esc", "back"), ("q", "quit"), ("o", "override"), ("^o", "unlock"), ("A", "release"),
    ("u", "undo"), ("P", "what if"), ("w", "window"),
)  # fmt: skip


class Partition(Page):
    """The partition's own screen."""

    AUTO_FOCUS = "#guesses"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("P", "predict", "ask what each plan would do; changes nothing", id="part.predict"),
    ]

    class PredictAsked(Message):
        """Ask the daemon about every plan."""

        def __init__(self, whatif: WhatIf) -> None:
            super().__init__()
            self.whatif = whatif

    def __init__(self) -> None:
        super().__init__()
        self.whatif = WhatIf()
        self._asked = ("", "")
        """Host and engine that the dry runs were asked of: what another one said holds no more."""

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Timebar(id="timebar")
        yield Area(id="area")
        yield Floor(id="floor")
        with Container(id="guessing"):
            yield Guesses(self.whatif, id="guesses")
            yield Measured(self.whatif, id="measured")
        yield Keyline(*KEYS)

    def show(self, view: View) -> None:  # noqa: D102
        if view.snapshot is not None and view.partition is not None and view.past is None and not view.stale:
            asked = view.host, view.snapshot.boot_id
            if asked != self._asked:
                self._asked = asked
                self.action_predict()
        super().show(view)
        self.query_one(Guesses).show(view)

    def answered(self, answer: Answer) -> None:
        """A dry run's result."""
        self.whatif.answered(answer)

    def action_predict(self) -> None:
        """Ask."""
        self.post_message(self.PredictAsked(self.whatif))

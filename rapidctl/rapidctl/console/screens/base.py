"""What the app expects of every screen: take a frame, take an answer."""

from __future__ import annotations

from typing import ClassVar

from textual.screen import ModalScreen, Screen
from textual.widget import Widget

from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.source import Answer


class Shows(Widget):
    """Mixin of screens that show views."""

    wants_requests: ClassVar[bool] = False
    """Whether it shows every live request and not only those of the snapshot."""

    def show(self, view: View) -> None:
        """Take a new frame; the base hands it to every panel."""
        self.set_class(view.stale, "-stale")
        self.set_class(view.past is not None, "-past")
        for panel in self.query(Panel):
            panel.show(view)

    def answered(self, answer: Answer) -> None:
        """An answer that some screen asked for; those who did not ask ignore it."""


class Page(Shows, Screen[None]):
    """A full screen."""


class Dialog(Shows, ModalScreen[None]):
    """A box over a page; the app's one-letter keys are off beneath it."""

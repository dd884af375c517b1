"""One line to type."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from rapidctl.console.widgets.panel import label_border


class Ask(ModalScreen[str]):
    """Returns what was typed, or null after esc."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave", id="ask.leave", priority=True)]

    def __init__(self, title: str, question: str, value: str = "") -> None:
        super().__init__()
        self._title = title
        self._question = question
        self._value = value

    def compose(self) -> ComposeResult:  # noqa: D102
        with Vertical(classes="dialog") as box:
            label_border(box, self._title, "enter takes it, esc leaves")
            yield Label(self._question, markup=False)
            yield Input(self._value, id="asked", compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        """Esc."""
        self.dismiss(None)

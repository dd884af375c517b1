"""One of a few words, on one line. What is chosen is a mark, never only a colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from rapidctl.console.text import Part, line


class Choice(Widget, can_focus=True):
    """``(•) one  ( ) two``; as a ``stepper`` only the chosen one: ``◂ 160 ▸``. Options that are ``off`` are skipped."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", "the option before", id="choice.left", show=False),
        Binding("right,l,space", "step(1)", "the next option", id="choice.right", show=False),
    ]

    class Changed(Message):
        """Another option was chosen."""

    def __init__(
        self,
        options: Sequence[str],
        value: str,
        *,
        id: str,  # noqa: A002 - Textual's own name
        off: Sequence[str] = (),
        stepper: bool = False,
    ) -> None:
        super().__init__(id=id)
        self.value = value
        self._options = tuple(options)
        self._off = frozenset(off)
        self._stepper = stepper

    def render(self) -> Content:
        """The line."""
        if self._stepper:
            return line(("◂ ", "$muted"), (self.value or "—", self._mark), (" ▸", "$muted"))
        parts: list[Part] = []
        for option in self._options:
            chosen = option == self.value
            style = "$muted strike" if option in self._off else self._mark if chosen else ""
            parts += [(f"({'•' if chosen else ' '}) {option}", style), "  "]
        return line(*parts)

    def on_focus(self) -> None:
        """The mark shows where the keys go."""
        self.refresh()

    def on_blur(self) -> None:
        """And where they do not."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """The option under the pointer, or the next one of a stepper."""
        if self._stepper:
            self.action_step(-1 if event.x < 2 else 1)
            return
        left = 0
        for option in self._options:
            left += len(option) + 6
            if event.x < left:
                self._choose(option)
                return

    def action_step(self, by: int) -> None:
        """The next option that is not off; the ends hold."""
        allowed = [option for option in self._options if option not in self._off]
        if not allowed:
            return
        index = allowed.index(self.value) + by if self.value in allowed else 0
        self._choose(allowed[min(len(allowed) - 1, max(0, index))])

    @property
    def _mark(self) -> str:
        return "bold reverse" if self.has_focus else "bold"

    def _choose(self, option: str) -> None:
        if option != self.value and option not in self._off:
            self.value = option
            self.refresh()
            self.post_message(self.Changed())

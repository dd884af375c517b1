"""Send a test prompt and watch it stream. Typing owns the letters: only enter, esc and ctrl keys act here."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from rapidctl.console.run import Run
from rapidctl.console.screens.base import Page
from rapidctl.console.view import View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.gaps import Gaps
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.panel import label_border
from rapidctl.console.widgets.timeline import Timeline

MAX_TOKENS = 256


class Prompt(Page):
    """Input, output, timeline and one bar a token."""

    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "stop the stream, then back", id="prompt.stop", priority=True),
        Binding("ctrl+r", "resend", "send the prompt again", id="prompt.resend", priority=True),
    ]

    class Asked(Message):
        """Send this prompt."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Stopped(Message):
        """End the running stream, or leave when there is none."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn: tuple[Run | None, int, str] = (None, 0, "")

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        field = Input(placeholder="a prompt for the model", id="prompt")
        field.border_title = f"PROMPT  temperature 0  max {MAX_TOKENS} tokens"
        yield field
        with Container(id="answer"):
            with VerticalScroll(id="output", can_focus=False) as output:
                label_border(output, "OUTPUT")
                yield Static(id="text", markup=False)
            yield Timeline(id="timeline")
        yield Gaps(id="gaps")
        yield Keyline(("enter", "send"), ("esc", "stop, back"), ("^r", "resend"), ("^p", "palette"), ("^q", "quit"))

    def show(self, view: View) -> None:  # noqa: D102
        super().show(view)
        run = view.run
        output = self.query_one("#output", VerticalScroll)
        drawn = (run, 0 if run is None else run.tokens, "" if run is None else run.state)
        if drawn != self._drawn:
            self._drawn = drawn
            label_border(output, "OUTPUT" + ("" if run is None else f" {run.request.id}  {run.state}"))
            self._write(output, _output(run))

    def _write(self, output: VerticalScroll, content: Content) -> None:
        """The newest text stays in sight unless the reader scrolled up."""
        at_end = output.is_vertical_scroll_end
        self.query_one("#text", Static).update(content)
        if at_end:
            self.call_after_refresh(output.scroll_end, animate=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter sends."""
        if event.value.strip():
            self.post_message(self.Asked(event.value))

    def action_stop(self) -> None:
        """Esc."""
        self.post_message(self.Stopped())

    def action_resend(self) -> None:
        """Send what is in the field again."""
        text = self.query_one("#prompt", Input).value
        if text.strip():
            self.post_message(self.Asked(text))


def _output(run: Run | None) -> Content:
    if run is None:
        return Content("")
    if run.problem:
        return Content.assemble(run.text, "\n" if run.text else "", (f"✗ {run.problem}", "bold $bad"))
    return Content(run.text)

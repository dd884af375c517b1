"""Send a test prompt and watch it stream, alone or under two plans side by side.

Typing owns the letters: only enter, esc, ctrl and function keys act here.
"""

from __future__ import annotations

from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Label, Static

from rapidctl.console.form import FormError, PromptSettings, prompt_settings
from rapidctl.console.run import Run, asked
from rapidctl.console.screens.base import Page
from rapidctl.console.view import View
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.gaps import Gaps, nth_run
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.panel import label_border
from rapidctl.console.widgets.timeline import Timeline
from rapidctl.out import printable
from rapidctl.wire import ModelInfo

NEW_LINE: Final = "¶"
"""Stands for a line break in the field, which has one line."""
MAX_TOKENS: Final = 256
"""Asked for at first, where the context has room for twice as many; elsewhere what it leaves."""
FIELDS: Final = (
    ("temperature", "0", "temp", ""), ("top_p", "1", "top-p", ""), ("max_tokens", str(MAX_TOKENS), "max tokens", "all"),
    ("seed", "", "seed", "none"), ("system", "", "system", "none"),
)  # fmt: skip
KEYS = (
    ("enter", "send"), ("esc", "stop, back"), ("^q", "quit"), ("^r", "resend"), ("^t", "compare two modes"),
    ("tab", "settings"), ("f4", "$EDITOR"), ("^p", "palette"),
)  # fmt: skip


class Prompt(Page):
    """Input and settings, then for each answer: output, timeline and one bar a token."""

    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "stop the stream, then back", id="prompt.stop", priority=True),
        Binding("ctrl+r", "resend", "send the prompt again", id="prompt.resend", priority=True),
        Binding("ctrl+t", "compare", "the same prompt under two plans (control)", id="prompt.compare", priority=True),
        Binding("f4", "editor", "write the prompt in $EDITOR", id="prompt.editor", priority=True),
    ]

    class Asked(Message):
        """Send this prompt."""

        def __init__(self, text: str, settings: PromptSettings) -> None:
            super().__init__()
            self.text = text
            self.settings = settings

    class CompareAsked(Asked):
        """Send it under two plans."""

    class Stopped(Message):
        """End the running stream, or leave when there is none."""

    class EditorAsked(Message):
        """Edit the prompt elsewhere."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__()
        self._drawn: list[tuple[object, ...]] = [(), ()]
        self._title = "PROMPT"
        self._fitted_to: tuple[str, int] | None = None

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        field = Input(placeholder="a prompt for the model", id="prompt")
        label_border(field, self._title)
        yield field
        with Horizontal(id="settings"):
            for name, value, label, if_empty in FIELDS:
                yield Label(label)
                yield Input(value, id=f"set-{name}", compact=True, placeholder=if_empty)
        yield Static(id="verdict", markup=False)
        with Container(id="answers"):
            for index in range(2):
                with Container(id=f"answer-{index}", classes="answer"):
                    with Container(classes="stream"):
                        with VerticalScroll(id=f"output-{index}", classes="output", can_focus=False):
                            yield Static(id=f"text-{index}", markup=False)
                        yield Timeline(id=f"timeline-{index}", index=index)
                    yield Gaps(id=f"gaps-{index}", index=index)
        yield Keyline(*KEYS)

    def show(self, view: View) -> None:  # noqa: D102
        super().show(view)
        self.set_class(view.prompts.side_by_side, "-comparing")
        model = None if view.snapshot is None else view.snapshot.model
        plain = "  no chat template: sent as it is" if model is not None and model.has_chat_template is False else ""
        title = f"PROMPT  {'—' if model is None else model.name}{plain}"
        if title != self._title:
            self._title = title
            label_border(self.query_one("#prompt", Input), title)
        if model is not None:
            self._fit_to(model)
        if view.kind == "replay" and view.prompts.run is not None:
            self.put_text(printable(asked(view.prompts.run.request), lines=True))
        verdict = view.prompts.verdict()
        self.query_one("#verdict", Static).set_class(not verdict, "-hidden")
        self.query_one("#verdict", Static).update(verdict)
        for index in range(2):
            self._show_run(index, nth_run(view, index))

    def _fit_to(self, model: ModelInfo) -> None:
        """Once a model: let the daemon say how much a short context leaves, unless the operator did."""
        known = model.path, model.max_model_len
        if known == self._fitted_to:
            return
        self._fitted_to = known
        field = self.query_one("#set-max_tokens", Input)
        if field.value == str(MAX_TOKENS) and model.max_model_len < 2 * MAX_TOKENS:
            field.value = ""

    def _show_run(self, index: int, run: Run | None) -> None:
        output = self.query_one(f"#output-{index}", VerticalScroll)
        drawn = (run, 0 if run is None else run.tokens, "" if run is None else run.state)
        if drawn == self._drawn[index]:
            return
        self._drawn[index] = drawn
        plan = "" if run is None or run.partition is None else f"  {run.partition.plan.mode}"
        label_border(output, "OUTPUT" if run is None else f"OUTPUT {run.request.id}  {run.state}{plan}")
        at_end = output.is_vertical_scroll_end
        self.query_one(f"#text-{index}", Static).update(_output(run))
        if at_end:  # the newest text stays in sight unless the reader scrolled up
            self.call_after_refresh(output.scroll_end, animate=False)

    def put_text(self, text: str) -> None:
        """Put a prompt into the field; line breaks become signs."""
        self.query_one("#prompt", Input).value = text.replace("\n", NEW_LINE)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter sends, wherever it is pressed."""
        self._ask(self.Asked)

    def action_stop(self) -> None:
        """Esc."""
        self.post_message(self.Stopped())

    def action_resend(self) -> None:
        """Send what is in the field again."""
        self._ask(self.Asked)

    def action_compare(self) -> None:
        """Send it under two plans."""
        self._ask(self.CompareAsked)

    def action_editor(self) -> None:
        """Edit it elsewhere."""
        self.post_message(self.EditorAsked(self._text()))

    def _text(self) -> str:
        return self.query_one("#prompt", Input).value.replace(NEW_LINE, "\n")

    def _ask(self, kind: type[Asked]) -> None:
        text = self._text()
        if not text.strip():
            return
        values = {name: self.query_one(f"#set-{name}", Input).value for name, *_ in FIELDS}
        try:
            self.post_message(kind(text, prompt_settings(values)))
        except FormError as error:
            self.notify(str(error), severity="error")


def _output(run: Run | None) -> Content:
    if run is None:
        return Content("")
    if run.problem:
        return Content.assemble(run.text, "\n" if run.text else "", (f"✗ {run.problem}", "bold $bad"))
    return Content(run.text)

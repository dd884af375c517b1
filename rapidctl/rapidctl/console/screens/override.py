"""The override dialog: a plan, the daemon's dry run of it, the same as a command line, and what became of it.

The focus starts on Cancel and enter in a field never applies. A plan that is predicted to breach the SLO wants the
word APPLY typed. Nothing is called applied before the daemon's event says so.
"""

from __future__ import annotations

from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Input, Label, Static

from rapidctl.console.change import Change
from rapidctl.console.form import Form, FormError, command_line, describe, initial
from rapidctl.console.operator import Operator
from rapidctl.console.screens.base import Dialog
from rapidctl.console.text import Part, count, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.widgets.choice import Choice
from rapidctl.out import duration, printable
from rapidctl.source import Answer
from rapidctl.wire import (
    LatencyWindow,
    Mode,
    OverrideBounds,
    PartitionInfo,
    PlanRequest,
    Prediction,
    PredictPartition,
)

MODES: tuple[Mode, ...] = ("serial", "hybrid", "shared", "split")
CONFIRM_WORD = "APPLY"


class Override(Dialog):
    """Opened only while control is unlocked."""

    AUTO_FOCUS = "#cancel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="override.close"),
        Binding("y", "apply", "apply", id="override.apply"),
        Binding("c", "copy", "copy the command line that does the same", id="override.copy"),
    ]

    def __init__(self, operator: Operator, info: PartitionInfo) -> None:
        super().__init__()
        self._operator = operator
        self._info = info
        """State the operator decides on; its epoch goes with the command."""
        self._start = initial(info)
        self._asked: tuple[PlanRequest, int] | None = None
        self._prediction: Prediction | None = None
        self._prediction_text = ""
        self._change: Change | None = None
        self._measured: LatencyWindow | None = None
        self._boot = ""
        """Of the engine that was asked."""

    def compose(self) -> ComposeResult:  # noqa: D102
        info, start = self._info, self._start
        with VerticalScroll(classes="dialog", id="override", can_focus=False) as box:
            box.border_title = f"OVERRIDE {info.unit_name} PARTITION"
            yield Static(id="now")
            with Horizontal(classes="fields"):
                yield Label("mode")
                yield Choice(MODES, start.mode, off=() if info.splits else ("split",), id="mode")
            if info.unsupported is not None:
                yield Static(f"no split here: {info.unsupported}", id="unsupported", markup=False)
            with Horizontal(classes="fields wrapping"):
                yield Label("decode units")
                units = "" if start.decode_units is None else str(start.decode_units)
                yield Choice([str(split) for split in info.splits], units, id="split", stepper=True)
                yield Static(id="rest")
            with Horizontal(classes="fields"):
                yield Label("chunk")
                yield Input(start.chunk, placeholder="by time", id="chunk", compact=True)
                most = "" if info.bounds is None else f" (at most {duration(info.bounds.ttl_max_s)})"
                yield Label(f"expires after{most}")
                yield Input(start.ttl, placeholder="0: never", id="ttl", compact=True)
            with Horizontal(classes="fields wrapping"):
                yield Label("guard")
                yield Choice(("on", "off"), "on", id="guard")
                yield Static(_guard(info.bounds), id="guard-text")
            with Horizontal(classes="fields"):
                yield Label("reason")
                yield Input(placeholder="for the log of changes", max_length=200, id="reason", compact=True)
            yield Static(id="plan")
            yield Static(id="line", markup=False)
            yield Static(id="status")
            yield Input(placeholder=f"type {CONFIRM_WORD}", id="word", compact=True, classes="-hidden")
            with Horizontal(classes="buttons"):
                yield Button("Copy (c)", id="copy", compact=True)
                yield Button("Cancel (esc)", id="cancel", compact=True)
                yield Button("Apply (y)", id="apply", variant="warning", compact=True)

    def on_mount(self) -> None:
        """First dry run."""
        self._refresh()

    def show(self, view: View) -> None:
        """Follow the epoch, the lock and the command under way."""
        super().show(view)
        boot = "" if view.snapshot is None else view.snapshot.boot_id
        if boot and self._boot and boot != self._boot:  # another engine may say something else
            self._asked = None
            self._refresh()
        self._boot = boot or self._boot
        if view.latency != self._measured:
            self._measured = view.latency
            self._draw_plan()
        if view.partition is not None and self._change is None:
            self.query_one("#now", Static).update(_now(self._info, view.partition))
        if view.unlocked_s is None and (self._change is None or self._change.over):
            self._say("control locked again: esc, then ^o", "bold $bad")
        if self._change is not None:
            self._follow(self._change, view.partition)

    def answered(self, answer: Answer) -> None:
        """The dry run's result."""
        if self._asked is None or answer.ticket != self._asked[1]:
            return
        if isinstance(answer.result, Prediction):
            self._prediction = answer.result
            self._prediction_text = ""
        else:
            self._prediction_text = f"no dry run: {printable(str(answer.result))}"
        self._draw_plan()

    def on_choice_changed(self) -> None:
        """Another mode, split or guard."""
        self._refresh()

    def on_input_changed(self) -> None:
        """Another number, or the word."""
        self._refresh()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in a field never applies; after the word it leads to the button that does."""
        if event.input.id == "word" and not self.query_one("#apply", Button).disabled:
            self.query_one("#apply", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Cancel, Copy or Apply."""
        if event.button.id == "apply":
            self.action_apply()
        elif event.button.id == "copy":
            self.action_copy()
        else:
            self.dismiss()

    def action_close(self) -> None:
        """Esc; a command that was sent goes on without the dialog."""
        self.dismiss()

    def action_apply(self) -> None:
        """Send, once, if the form is right and confirmed; else lead to where the word is typed, if one is wanted."""
        if self.query_one("#apply", Button).disabled:
            word = self.query_one("#word", Input)
            if not word.has_class("-hidden") and self._change is None:
                word.focus()
            return
        command = self._form().command(self._info.epoch, self._operator.by)
        self._change = self._operator.send(command, describe(command.plan))
        if self._change is None:
            self._say("control is locked: esc, then ^o", "bold $bad")
        self._allow()

    def action_copy(self) -> None:
        """The same for a shell, to the terminal's clipboard."""
        try:
            command = self._form().command(self._info.epoch, self._operator.by)
        except FormError as error:
            self._say(f"! {error}", "bold $bad")
        else:
            self.app.copy_to_clipboard(command_line(command))
            self.notify("copied the command line")

    # --- inside -----------------------------------------------------------------------------------------------

    def _form(self) -> Form:
        units = self.query_one("#split", Choice).value
        return Form(
            mode=cast(Mode, self.query_one("#mode", Choice).value),
            decode_units=int(units) if units else None,
            chunk=self.query_one("#chunk", Input).value,
            ttl=self.query_one("#ttl", Input).value,
            guard=self.query_one("#guard", Choice).value == "on",
            reason=self.query_one("#reason", Input).value,
            bounds=self._info.bounds,
        )

    def _refresh(self) -> None:
        """After any edit: check, ask for a new dry run if the plan changed, draw."""
        form = self._form()
        self.query_one("#split", Choice).disabled = form.mode != "split"
        self.query_one("#rest", Static).update(_rest(form, self._info))
        try:
            command = form.command(self._info.epoch, self._operator.by)
        except FormError as error:
            self._say(f"! {error}", "bold $bad")
            self._allow(valid=False)
            return
        if self._asked is None or self._asked[0] != command.plan:
            self._prediction, self._prediction_text = None, "asking for a dry run"
            self._asked = (command.plan, self._operator.predict(PredictPartition(call=0, plan=command.plan)))
        self.query_one("#line", Static).update(f"$ {command_line(command)}")
        if self._change is None:
            self._say(
                f"applies at the next step boundary, only if the epoch is still {self._info.epoch}; "
                "it stays when the console ends",
                "$label",
            )
        self._draw_plan()

    def _draw_plan(self) -> None:
        found = self._prediction
        content = (
            line((self._prediction_text, "$muted"))
            if found is None
            else prediction_line(found, self._info, self._measured)
        )
        self.query_one("#plan", Static).update(content)
        self._allow()

    def _allow(self, *, valid: bool = True) -> None:
        """Apply is possible once: with a right form, a legal plan and, if it breaches the SLO, the word."""
        found = self._prediction
        breach = found is not None and found.breaches_slo is True
        word = self.query_one("#word", Input)
        word.set_class(not breach, "-hidden")
        legal = found is None or found.legal
        sent = self._change is not None
        confirmed = not breach or word.value == CONFIRM_WORD
        self.query_one("#apply", Button).disabled = not (valid and legal and confirmed) or sent

    def _follow(self, change: Change, partition: PartitionInfo | None) -> None:
        bad = change.state in ("refused", "unknown")
        mark = "! " if bad else "✓ " if change.state == "applied" else ""
        style = "bold $bad" if bad else "bold $good" if change.state == "applied" else "bold $warning"
        self._say(f"{mark}{change.state.upper()}: {change.text}", style)
        if change.over and change.state != "applied":
            self._change = None
            self._info = partition or self._info
            self.query_one("#now", Static).update(_now(self._info, self._info))
        self._allow()

    def _say(self, text: str, style: str) -> None:
        self.query_one("#status", Static).update(line((printable(text), style)))


def _guard(bounds: OverrideBounds | None) -> str:
    if bounds is None:
        return "ends it on an SLO breach"
    itl, ttft = f"{bounds.guard_itl:g}×", f"{bounds.guard_ttft:g}×"
    return f"ends it at {itl} the ITL or {ttft} the TTFT SLO for {bounds.guard_after_s:g} s"


def _rest(form: Form, info: PartitionInfo) -> str:
    if form.mode != "split" or form.decode_units is None:
        return "only in split mode"
    prefill = info.units_total - form.decode_units
    return f"prefill gets {prefill} of {info.units_total}; legal {info.splits[0]}–{info.splits[-1]}"


def _now(decided: PartitionInfo, latest: PartitionInfo) -> Content:
    plan = latest.plan
    text = f"now {plan.mode.upper()} prefill {plan.prefill_units} / decode {plan.decode_units}"
    override = latest.override
    pinned = (
        "" if override is None else f"\noverride by {printable(override.by) or '—'}, {duration(override.ttl_s)} left"
    )
    parts: list[Part] = [f"{text}  {latest.source} {latest.policy}  epoch {latest.epoch}{pinned}"]
    if latest.epoch != decided.epoch:
        parts.append((f"\n! it was epoch {decided.epoch} when this was opened: esc, look again", "bold $bad"))
    return line(*parts)


def prediction_line(found: Prediction, info: PartitionInfo, measured: LatencyWindow | None) -> Content:
    """The dry run in one line, from what was measured lately to what is predicted; nulls stay unknown."""
    if not found.legal:
        return line((f"! not legal: {printable(found.note)}", "bold $bad"))
    if found.itl_p95_s is None and found.ttft_p95_s is None:
        return line((f"dry run: {printable(found.note) or 'no prediction'}", "$muted"))
    itl, ttft = (None, None) if measured is None else (measured.itl_s.p95, measured.ttft_s.p95)
    parts: list[Part] = [
        f"dry run ({printable(info.profile or 'no profile')}): ITL p95 {milliseconds(itl)} → "
        f"{milliseconds(found.itl_p95_s)} ms, TTFT p95 {milliseconds(ttft)} → {milliseconds(found.ttft_p95_s)} ms, "
        f"prefill {count(found.prefill_tokens_per_s)} tok/s"
    ]
    if found.breaches_slo:
        parts.append(("  ! breaches the SLO", "bold $bad"))
    return line(*parts)

"""Which two plans to send one prompt under. The focus starts on Cancel."""

from __future__ import annotations

from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Label, Static

from rapidctl.console.form import describe
from rapidctl.console.prompts import PIN_TTL_S
from rapidctl.console.widgets.choice import Choice
from rapidctl.out import duration
from rapidctl.wire import Mode, PartitionInfo, PlanRequest

MODES: tuple[Mode, ...] = ("serial", "hybrid", "shared", "split")
Plans = tuple[PlanRequest, PlanRequest]


class Compare(ModalScreen[Plans]):
    """Returns the two plans, or null."""

    AUTO_FOCUS = "#cancel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "begin", "begin the comparison", id="compare.begin"),
        Binding("escape", "leave", "leave", id="compare.leave"),
    ]

    def __init__(self, info: PartitionInfo) -> None:
        super().__init__()
        self._info = info

    def compose(self) -> ComposeResult:  # noqa: D102
        info = self._info
        off = () if info.splits else ("split",)
        second: Mode = "split" if info.splits else "shared"
        nearest = info.splits[len(info.splits) // 2] if info.splits else 0
        with Vertical(classes="dialog") as box:
            box.border_title = "COMPARE  the same prompt under two plans"
            for index, mode in enumerate(("hybrid", second)):
                with Horizontal(classes="fields"):
                    yield Label(("first", "second")[index])
                    yield Choice(MODES, mode, off=off, id=f"mode-{index}")
            with Horizontal(classes="fields"):
                yield Label("decode units of a split")
                yield Choice([str(split) for split in info.splits], str(nearest), id="split", stepper=True)
            yield Static(
                f"Each plan is pinned for at most {duration(PIN_TTL_S)} while its answer streams; then what was before "
                "comes back. The second prompt finds the first one's keys and values in the cache.",
                markup=False,
            )
            yield Static(id="same", classes="-hidden", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel (esc)", id="cancel", compact=True)
                yield Button("Begin (y)", id="begin", variant="warning", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A click, or enter on the focused button."""
        if event.button.id == "begin":
            self.action_begin()
        else:
            self.dismiss(None)

    def action_begin(self) -> None:
        """Take the plans."""
        first, second = self._plan(0), self._plan(1)
        if describe(first) == describe(second):
            note = self.query_one("#same", Static)
            note.remove_class("-hidden")
            note.update("! both are the same plan: choose another")
        else:
            self.dismiss((first, second))

    def action_leave(self) -> None:
        """Esc."""
        self.dismiss(None)

    def _plan(self, index: int) -> PlanRequest:
        mode = cast(Mode, self.query_one(f"#mode-{index}", Choice).value)
        units = int(self.query_one("#split", Choice).value) if mode == "split" else None
        return PlanRequest(mode=mode, decode_units=units)

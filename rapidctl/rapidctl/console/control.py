"""What changes a daemon: unlock first, then override, release, undo, cancel. Nothing is sent while locked or stale."""

from __future__ import annotations

import shlex
from typing import ClassVar

from textual.binding import Binding, BindingType

from rapidctl.console import form
from rapidctl.console.core import Core
from rapidctl.console.screens.confirm import Confirm
from rapidctl.console.screens.override import Override
from rapidctl.console.screens.partition import Partition
from rapidctl.console.widgets.rows import CancelAsked
from rapidctl.wire import Cancel, PartitionInfo


class Controls(Core):
    """Part of the console: the operator's verbs."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+o", "unlock", "unlock control for 5 min, or lock it", id="app.unlock"),
        Binding("o", "override", "override the partition (control)", id="part.override"),
        Binding("A", "release", "release the override (control)", id="part.release"),
        Binding("u", "undo", "bring the previous control state back (control)", id="part.undo"),
    ]

    def controlled(self) -> PartitionInfo | None:
        """The state a command may change now; null: it may not, and the operator was told why."""
        latest = self.host.latest()
        if self.host.kind == "replay":
            self.notify("this is a recording: there is nothing to control", severity="warning")
        elif not self.host.live:
            self.notify("this is the past: L comes back to now", severity="warning")
        elif not self.operator.unlocked:
            self.notify("read-only: ^o unlocks control for 5 minutes", severity="warning")
        elif latest is None or latest.partition is None:
            self.notify("no live daemon: control is off until snapshots come again", severity="error")
        else:
            return latest.partition
        return None

    def action_unlock(self) -> None:
        """Unlock for a while, or lock at once."""
        if self.host.kind == "replay":
            self.notify("this is a recording: there is nothing to control", severity="warning")
        elif self.operator.unlocked:
            self.operator.lock()
        else:
            self.operator.unlock()
        self.draw(force=True)

    def action_override(self) -> None:
        """Open the dialog on the partition as it is now."""
        if (partition := self.controlled()) is not None:
            self.push_screen(Override(self.operator, partition), lambda _: self.draw(force=True))
            self.draw_soon()

    def action_release(self) -> None:
        """End the override."""
        if (partition := self.controlled()) is None:
            return
        if partition.override is None:
            self.notify("there is no override to release")
        else:
            self.operator.send(form.release(partition, self.operator.by), "release")

    def action_undo(self) -> None:
        """Offer to bring the previous control state back as a new change."""
        if (partition := self.controlled()) is None:
            return
        found = form.undo(partition, self.book.previous, self.operator.by)
        if found is None:
            self.notify("nothing to undo: the control state is what it was before the last change")
            return
        command, title = found

        def answered(yes: bool | None) -> None:
            if yes:
                self.operator.send(command, title)

        self.push_screen(Confirm(f"UNDO: {title}?", f"$ {form.command_line(command)}"), answered)

    def on_cancel_asked(self, message: CancelAsked) -> None:
        """Cancel a request of anybody's, after a yes."""
        if self.controlled() is None:
            return
        host = self.host

        def answered(yes: bool | None) -> None:
            if yes:
                host.source.ask(Cancel(call=0, id=message.request_id), control=True)

        line = shlex.join(["rapidctl", "requests", "cancel", message.request_id])
        self.push_screen(Confirm(f"CANCEL {message.request_id}?", f"$ {line}"), answered)

    def on_partition_predict_asked(self, message: Partition.PredictAsked) -> None:
        """Dry runs of every plan; they need no rights and change nothing."""
        latest = self.host.latest()
        if latest is not None and latest.partition is not None and self.host.live:
            message.whatif.ask(latest.partition, self.host.source.ask, self._clock())
        else:
            self.notify("dry runs are asked of a live daemon: there is none to ask now", severity="warning")

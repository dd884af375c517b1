"""An operator's command from sending to its end, as a state machine without sockets or clock.

``sent`` -> ``pending`` (accepted as an epoch) -> ``applied``; or ``refused`` with the daemon's words; or ``unknown``
when the time is up. Nothing is called applied before the daemon said so.
"""

from __future__ import annotations

from typing import Final, Literal

from rapidctl.errors import Refused
from rapidctl.source import Answer
from rapidctl.wire import (
    ControlReply,
    Event,
    Placement,
    ReleasePartition,
    SetPartition,
    SetPolicy,
    Snapshot,
    UndoPartition,
)

UNKNOWN_AFTER_S: Final = 10.0
"""Longer than a call may take plus the longest prefill chunk that lanes finish before they adopt a plan."""

State = Literal["sent", "pending", "applied", "refused", "unknown"]
Command = SetPartition | ReleasePartition | SetPolicy | UndoPartition


class Change:
    """One command. ``text`` explains the state in one line."""

    def __init__(self, ticket: int, command: Command, title: str, now: float) -> None:
        self.ticket = ticket
        self.title = title
        self.state: State = "sent"
        self.text = "sent, no answer yet"
        self.epoch: int | None = None
        self.retry_after_s: float | None = None
        """Of a refusal that holds only for the moment."""
        self._waits_for_event = isinstance(command, SetPartition)
        self._deadline_s = now + UNKNOWN_AFTER_S
        self._applied: dict[int, str] = {}
        """What is known of each epoch that was applied."""

    @property
    def over(self) -> bool:
        """Whether the end is known, or known to be unknown."""
        return self.state in ("applied", "refused", "unknown")

    def answered(self, answer: Answer) -> None:
        """The daemon's reply, or why there is none."""
        if answer.ticket != self.ticket or self.over:
            return
        if isinstance(answer.result, ControlReply):
            self.epoch = answer.result.epoch
            self.state, self.text = "pending", f"accepted as epoch {self.epoch}, not applied yet"
            self._settle()
        elif isinstance(answer.result, Refused):
            hint = f" ({answer.result.hint})" if answer.result.hint else ""
            self.state, self.text = "refused", answer.result.message + hint
            self.retry_after_s = answer.result.retry_after_s
        else:
            self.state, self.text = "unknown", f"{answer.result}: it may or may not have been applied"

    def happened(self, event: Event) -> None:
        """An event of the daemon; it may overtake the reply."""
        if event.kind == "applied" and event.epoch is not None:
            self._applied[event.epoch] = placed(event.placement)
            self._settle()

    def observed(self, snapshot: Snapshot) -> None:
        """A snapshot proves commands that move no lane: its epoch is theirs or later."""
        if not self._waits_for_event and self.epoch is not None and snapshot.partition is not None:
            if snapshot.partition.epoch >= self.epoch:
                self._applied.setdefault(self.epoch, "")
            self._settle()

    def tick(self, now: float) -> None:
        """Time passes."""
        if not self.over and now >= self._deadline_s:
            said = "no answer" if self.epoch is None else f"epoch {self.epoch} was accepted but never reported applied"
            self.state, self.text = "unknown", f"{said}: look at the epoch before you try again"

    def _settle(self) -> None:
        if self.state == "pending" and self.epoch in self._applied:
            self.state, self.text = "applied", f"applied as epoch {self.epoch}{self._applied[self.epoch]}"


def placed(placement: Placement | None) -> str:
    """Where the lanes were measured to run then, in a few words; nothing where nobody measured."""
    if placement is None or not placement.lanes or not all(lane.measured for lane in placement.lanes):
        return ""
    lanes = ", ".join(f"{lane.lane} on {len(lane.units)}" for lane in placement.lanes)
    return f"; measured: {lanes} units, overlap {placement.overlap}"

"""Operator rights for a while, and the last command sent with them. It knows no widgets and no wire but its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rapidctl.client import operator_name
from rapidctl.console.change import Change, Command
from rapidctl.source import Answer, Received, Source, Update
from rapidctl.wire import Event, PredictPartition

UNLOCK_S: Final = 300.0
"""Rights end by themselves: a console left open on a wall stays a window."""
APPLIED_S: Final = 5.0
FAILED_S: Final = 60.0
"""How long the end of a command is shown: success is seen in the state itself, the rest has to be read."""


class Operator:
    """Locked, nothing is sent. ``by`` names the operator in the daemon's log."""

    def __init__(self, source: Source, clock: Callable[[], float], *, unlocked: bool) -> None:
        self.by = operator_name()
        self.change: Change | None = None
        """The last command."""
        self._ended_s: float | None = None
        self._source = source
        self._clock = clock
        self._until_s = clock() + UNLOCK_S if unlocked else None

    @property
    def unlocked(self) -> bool:
        """Whether commands may be sent."""
        return self._until_s is not None

    @property
    def left_s(self) -> float | None:
        """Seconds until it locks by itself; null: locked."""
        return None if self._until_s is None else max(0.0, self._until_s - self._clock())

    def unlock(self) -> None:
        """For `UNLOCK_S` from now."""
        self._until_s = self._clock() + UNLOCK_S

    def lock(self) -> None:
        """At once; the connection with operator rights is given back."""
        self._until_s = None
        self._source.lock()

    def predict(self, request: PredictPartition) -> int:
        """Ask for a dry run, which needs no rights; returns the ticket of its answer."""
        return self._source.ask(request)

    def send(self, command: Command, title: str) -> Change | None:
        """Send a command; null when locked."""
        if not self.unlocked:
            return None
        self._ended_s = None
        self.change = Change(self._source.ask(command, control=True), command, title, self._clock())
        return self.change

    def take(self, update: Update) -> None:
        """What the daemon says may concern the command under way."""
        if self.change is None:
            return
        match update:
            case Received():
                self.change.observed(update.snapshot)
            case Event():
                self.change.happened(update)
            case Answer():
                self.change.answered(update)

    def tick(self) -> None:
        """Time passes: commands become unknown, rights end."""
        if self.change is not None:
            self.change.tick(self._clock())
            self._forget(self.change)
        if self._until_s is not None and self._clock() >= self._until_s:
            self.lock()

    def _forget(self, change: Change) -> None:
        if change.over and self._ended_s is None:
            self._ended_s = self._clock()
        shown_s = APPLIED_S if change.state == "applied" else FAILED_S
        if self._ended_s is not None and self._clock() >= self._ended_s + shown_s:
            self.change = None

"""Time: stand still, step, jump, play, come back to now; and write what comes to a file."""

from __future__ import annotations

import time
from typing import ClassVar, Literal

from textual.binding import Binding, BindingType

from rapidctl.console.core import Core
from rapidctl.console.screens.ask import Ask
from rapidctl.errors import RapidctlError
from rapidctl.player import Player
from rapidctl.settings import expand
from rapidctl.tape import TapeError


class Travels(Core):
    """Part of the console: the last half hour, and recordings."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "freeze", "freeze the view, or follow again; taping goes on", id="time.freeze"),
        Binding("left_square_bracket", "frame(-1)", "one snapshot back (freezes)", id="time.back"),
        Binding("right_square_bracket", "frame(1)", "one snapshot on", id="time.on"),
        Binding("left_curly_bracket", "jump(-1)", "to the event before", id="time.event_before"),
        Binding("right_curly_bracket", "jump(1)", "to the next event", id="time.event_after"),
        Binding("less_than_sign", "speed(-1)", "play slower", id="time.slower"),
        Binding("greater_than_sign", "speed(1)", "play faster", id="time.faster"),
        Binding("space", "play", "play or stand, in the past", id="time.play"),
        Binding("T", "goto", "go to a time of day, or so long back", id="time.goto"),
        Binding("L", "live", "back to now; of a recording, its end", id="time.live"),
        Binding("R", "record", "record to a file, or end it", id="time.record"),
    ]

    def action_freeze(self) -> None:
        """Stand still, or follow again."""
        if self.host.kind == "replay":
            self._past().toggle()
        elif self.host.player is None:
            self._past()
        else:
            self.host.release()
        self.draw(force=True)

    def action_frame(self, by: Literal[-1, 1]) -> None:
        """A snapshot back or on."""
        self._past().step(by)
        self.draw()

    def action_jump(self, by: Literal[-1, 1]) -> None:
        """An event back or on."""
        if not self._past().jump(by):
            self.notify("no event there" if by > 0 else "no earlier event on the tape")
        self.draw()

    def action_speed(self, by: Literal[-1, 1]) -> None:
        """Slower or faster."""
        if self.host.player is not None:
            self.host.player.faster(by)
            self.draw()

    def action_play(self) -> None:
        """Play or stand."""
        if self.host.player is not None:
            self.host.player.toggle()
            self.draw(force=True)

    def action_live(self) -> None:
        """Follow again."""
        self.host.release()
        self.draw(force=True)

    def action_goto(self) -> None:
        """Ask where to."""

        def answered(text: str | None) -> None:
            if text:
                self._goto(text)

        self.push_screen(Ask("GO TO", "a time of day such as 14:05:30, or a duration back such as 5m"), answered)

    def action_record(self) -> None:
        """Ask where to write, or end it."""
        host = self.host
        if host.kind == "replay":
            self.notify("this is a recording already")
        elif host.recorder is not None:
            self._end_recording()
        else:
            name = time.strftime("rapid-%Y%m%d-%H%M%S.tape", time.localtime(self._wall()))
            text = "prompts sent from here, and answers, too" if host.with_text else "it holds no prompt and no answer"
            self.push_screen(Ask("RECORD TO", f"a new file; {text}", name), self._record)
        self.draw(force=True)

    def _end_recording(self) -> None:
        try:
            recorder = self.host.end_recording()
        except TapeError as error:
            self.notify(error.message, severity="error")
        else:
            assert recorder is not None
            self.notify(f"recorded {recorder.snapshots} snapshots to {recorder.path}")

    def _record(self, text: str | None) -> None:
        if not text:
            return
        try:
            self.host.record(expand(text))
        except RapidctlError as error:
            self.notify(f"{error.message}: {error.hint}", severity="error")
        self.draw(force=True)

    def _past(self) -> Player:
        return self.host.hold()

    def _goto(self, text: str) -> None:
        view = self.view()
        try:
            at_s = moment(text, view.now_s, view.at_unix_s)
        except ValueError as error:
            self.notify(str(error), severity="warning")
            return
        self._past().seek(at_s)
        self.draw(force=True)


def moment(text: str, now_s: float, at_unix_s: float | None) -> float:
    """The moment meant, on the clock of ``now_s``. Raises `ValueError` saying what can be said."""
    from argparse import ArgumentTypeError

    from rapidctl.commands.common import duration_s

    if ":" not in text:
        try:
            return now_s - duration_s(text.removeprefix("-"))
        except ArgumentTypeError:
            raise ValueError(f"{text!r} is neither a time such as 14:05:30 nor a duration such as 5m") from None
    if at_unix_s is None:
        raise ValueError("no snapshot has come: there is no time to go to")
    for pattern in ("%H:%M:%S", "%H:%M"):
        try:
            wanted = time.strptime(text, pattern)
        except ValueError:
            continue
        here = time.localtime(at_unix_s)
        of_day = (wanted.tm_hour - here.tm_hour) * 3600 + (wanted.tm_min - here.tm_min) * 60
        back_s = -(of_day + wanted.tm_sec - here.tm_sec - at_unix_s % 1)
        if back_s < -43_200:  # yesterday evening, seen after midnight
            back_s += 86_400
        return now_s - back_s
    raise ValueError(f"{text!r} is no time of day: write 14:05 or 14:05:30")

"""Moves through a tape: stand, play at a speed, step by frames, jump from event to event. Pure; it reads no clock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, Literal

from rapidctl.tape import Tape

SPEEDS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 60.0)


class Player:
    """A position on a tape, in the tape's own seconds. The caller tells it how time passes."""

    def __init__(self, tape: Tape, position_s: float, now: float, *, playing: bool = False) -> None:
        self.tape = tape
        self.position_s = position_s
        self.playing = playing
        self.speed = 1.0
        self._told_s = now
        self.seek(position_s)

    def tick(self, now: float) -> None:
        """Time passes; playing stops at the end of the tape."""
        passed, self._told_s = max(0.0, now - self._told_s), now
        if not self.playing:
            return
        self.seek(self.position_s + passed * self.speed)
        self.playing = self.position_s < (self.tape.end_s or 0.0)

    def seek(self, to_s: float) -> None:
        """Go there, or to the nearest end."""
        start, end = self.tape.start_s, self.tape.end_s
        if start is not None and end is not None:
            self.position_s = min(end, max(start, to_s))

    def toggle(self) -> None:
        """Play or stand; at the end, play from the start."""
        self.playing = not self.playing
        if self.playing and self.position_s == self.tape.end_s:
            self.seek(self.tape.start_s or 0.0)

    def step(self, by: Literal[-1, 1]) -> None:
        """The snapshot before or after; stands there."""
        self.playing = False
        beside = self.tape.frame_beside(self.position_s, by)
        if beside is not None:
            self.seek(beside)

    def jump(self, by: Literal[-1, 1]) -> bool:
        """The event before or after; false when there is none."""
        marks = [mark.at_s for mark in self.tape.marks()]
        place = bisect_left(marks, self.position_s) - 1 if by < 0 else bisect_right(marks, self.position_s)
        if not 0 <= place < len(marks):
            return False
        self.seek(marks[place])
        return True

    def faster(self, by: Literal[-1, 1]) -> None:
        """The next speed up or down."""
        self.speed = SPEEDS[min(len(SPEEDS) - 1, max(0, SPEEDS.index(self.speed) + by))]

"""Both lanes on all units: they take turns, nearly, on each of the devices that were measured (docs/policy.md).

    step beside chunks   = factor * step alone + added(rows)
    chunk beside steps   = chunk alone * beside / (beside - share * alone)        of a step, beside chunks and alone

A step beside chunks waits for their kernels. How long depends on its rows, for they decide which kernels it is made of:
those that fill every unit and let the next one start early leave few gaps. Chunks get on in what is left of each step:
with a share of 1 nothing ever runs at the same time. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from rapidd.policy.curve import Curve
from rapidd.policy.fit import solve_nonnegative

LEAST_LEFT: Final = 0.02
"""Of a step's time, that chunks have at least: they are never at a standstill."""
SHARES: Final = tuple(index / 200 for index in range(201))
"""Tried; what fits best stays."""
TURNS_FACTOR: Final = 2.0
"""Of a step, or a chunk, where nothing was measured: each lane has half of the time."""
VARIED: Final = 1.1
"""Between the least and the most of what a coefficient depends on; samples closer together do not tell it."""


Steps = tuple[float, Curve | None]
"""Factor, and what is added."""


class StepBeside(NamedTuple):
    """A step of so many rows: its seconds alone, and beside chunks."""

    rows: int
    alone: float
    beside: float


class ChunkBeside(NamedTuple):
    """How many times as long a chunk takes beside steps of so many rows and seconds alone; 0 rows: nobody knows."""

    rows: int
    alone: float
    ratio: float


class Turns:
    """The law's coefficients."""

    __slots__ = ("added", "factor", "share")

    def __init__(self, factor: float = TURNS_FACTOR, added: Curve | None = None, share: float = 1.0) -> None:
        self.factor = factor
        self.added = added
        """Seconds by rows."""
        self.share = share

    def step_s(self, rows: int, alone: float) -> float:
        """Of a step beside chunks."""
        added = self.added.at(rows) if self.added is not None else 0.0
        return self.factor * alone + added

    def slowdown(self, rows: int, alone: float) -> float:
        """Times that a chunk takes as long beside such steps."""
        return _slowdown(alone / self.step_s(rows, alone), self.share)


def fit_turns(steps: Sequence[StepBeside], chunks: Sequence[ChunkBeside]) -> Turns:
    """By relative errors. What is added never falls with rows. Unknown steps are taken for the middle one of all."""
    turns = Turns()
    if steps:
        turns = Turns(*_fit_steps(steps))
    middle = sorted(steps, key=lambda step: step.alone)[len(steps) // 2] if steps else StepBeside(1, 1.0, TURNS_FACTOR)
    known = [chunk if chunk.rows else ChunkBeside(middle.rows, middle.alone, chunk.ratio) for chunk in chunks]
    if known:
        pairs = [(chunk.alone / turns.step_s(chunk.rows, chunk.alone), chunk.ratio) for chunk in known]
        turns.share = min(
            SHARES, key=lambda share: sum((_slowdown(own, share) / ratio - 1) ** 2 for own, ratio in pairs)
        )
    return turns


def _slowdown(own: float, share: float) -> float:
    """``own``: of a step's time beside chunks, what it takes alone."""
    return 1 / max(1 - share * own, LEAST_LEFT)


def _fit_steps(steps: Sequence[StepBeside]) -> Steps:
    """With what is added or by a factor alone, whichever foretells each sample better from the others.

    On a processor, whose lanes the operating system takes by turns, what single noisy samples would add is worse than
    nothing.
    """
    laws = (_with_added, _by_factor)
    return min(laws, key=lambda law: _foretold_error(law, steps))(steps) if len(steps) > 1 else _by_factor(steps)


def _foretold_error(law: Callable[[Sequence[StepBeside]], Steps], steps: Sequence[StepBeside]) -> float:
    """Sum of |log(foretold / measured)|: one sample that others cannot foretell, at a jump, does not decide alone."""
    errors = []
    for index, step in enumerate(steps):
        turns = Turns(*law([*steps[:index], *steps[index + 1 :]]))
        errors.append(abs(math.log(turns.step_s(step.rows, step.alone) / step.beside)))
    return sum(errors)


def _by_factor(steps: Sequence[StepBeside]) -> Steps:
    (factor,) = solve_nonnegative([[step.alone / step.beside] for step in steps], [1.0] * len(steps))
    return max(factor, 1.0), None


def _with_added(steps: Sequence[StepBeside]) -> Steps:
    """Steps of one number of rows, behind contexts of several lengths, tell the factor from what is added.

    Where all have one number of rows, nobody knows what is added with others: a factor is the safer guess.
    """
    knots = sorted({step.rows for step in steps})
    if len(knots) == 1:
        return _by_factor(steps)
    spans = [[step.alone for step in steps if step.rows == rows] for rows in knots]
    told = any(max(span) > VARIED * min(span) for span in spans)
    rows = [
        [(step.alone if told else 0.0) / step.beside, *((step.rows == knot) / step.beside for knot in knots)]
        for step in steps
    ]
    longer, *added = solve_nonnegative(rows, [1 - step.alone / step.beside for step in steps])
    return 1 + longer, Curve(knots, list(accumulate(added, max)))

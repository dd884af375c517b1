"""How far a cost model is off while serving: what batches took over what was predicted. Pure: no clock, no device."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from rapidctl.wire import Mode
from rapidd.policy.plan import WorkKind

WEIGHT: Final = 0.05
"""Of a new batch once there are many: the last twenty or so count."""
TRUST: Final = 5
"""Batches that the profile counts for in a mean."""
FADES: Final = 1_000
"""Batches of other kinds after which half of what was learnt about one is left: some ten seconds."""
LEAST: Final = 0.5
MOST: Final = 2.0
"""Beyond a factor of two the profile is wrong, not out of date; and one hiccup must not look like a slow device."""


class Corrected(Struct, frozen=True):
    """One mean. ``error``: of corrected predictions, |predicted / measured - 1|, as a moving mean.

    What took less than half of its prediction counts as half: a device that is faster than ever is not erratic.
    """

    mode: Mode
    kind: WorkKind
    factor: float
    error: float
    n: int


class Correction:
    """What batches took over what was predicted, as a moving mean for each mode and kind; 1 until something was seen.

    A device gets hotter, a neighbour appears, a load is of a kind that calibration did not see: this follows. It starts
    as a plain mean in which the profile counts as `TRUST` batches: a policy that two slow ones put off would not come
    back to see more. And what was learnt fades while other kinds of batches run, for the same reason.
    """

    def __init__(self) -> None:
        self._means: dict[tuple[Mode, WorkKind], tuple[float, float, int, int]] = {}
        """Factor, error, batches seen, and `_seen` when the last of them was."""
        self._seen = 0

    def observe(self, mode: Mode, kind: WorkKind, predicted_s: float, measured_s: float) -> None:
        """Take a finished batch's time. Times that are not positive say nothing."""
        if predicted_s <= 0.0 or measured_s <= 0.0:
            return
        factor, error, n = self._now(mode, kind)
        ratio = min(max(measured_s / predicted_s, LEAST), MOST)
        miss = abs(predicted_s * factor / max(measured_s, LEAST * predicted_s) - 1.0)
        weight = max(WEIGHT, 1.0 / (n + 1 + TRUST))
        self._seen += 1
        self._means[mode, kind] = factor + weight * (ratio - factor), error + weight * (miss - error), n + 1, self._seen

    def factor(self, mode: Mode, kind: WorkKind) -> float:
        """By which a prediction is to be multiplied."""
        return self._now(mode, kind)[0]

    def error(self, mode: Mode, kind: WorkKind) -> float:
        """Mean relative error of corrected predictions; 0 until something was seen."""
        return self._now(mode, kind)[1]

    def _now(self, mode: Mode, kind: WorkKind) -> tuple[float, float, int]:
        """Factor, error and batches seen, faded by how many of other kinds were seen since."""
        mean = self._means.get((mode, kind))
        if mean is None:
            return 1.0, 0.0, 0
        factor, error, n, last = mean
        left = 0.5 ** ((self._seen - last) / FADES)
        return 1.0 + left * (factor - 1.0), left * error, n

    def all(self) -> list[Corrected]:
        """For people, the most often seen first."""
        found = [Corrected(mode, kind, *self._now(mode, kind)) for mode, kind in self._means]
        return sorted(found, key=lambda one: (-one.n, one.mode, one.kind))

"""One lane on one number of units: what its batches take alone, and how much longer beside the other lane's."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from rapidd.policy.curve import Curve, Line, Point, attended, fit, fit_like, told_apart
from rapidd.policy.fit import solve_nonnegative
from rapidd.policy.profile import DecodeSample, PrefillSample
from rapidd.policy.turns import TURNS_FACTOR, VARIED
from rapidd.policy.waves import FULL, Filling

LEAST_SIZES: Final = 3
"""Chunks measured behind several contexts from which on fewer units have a filling of their own."""
SAME: Final = 1e-9
"""Of summed squared relative errors: no better fit."""
MIN_AFFINE: Final = 3
"""Samples below which a slowdown is one factor, without a second coefficient."""

S = TypeVar("S", DecodeSample, PrefillSample)


class LaneTimes:
    """One lane on one number of units: ``curve(n) + line(work)`` alone, and what running beside costs."""

    __slots__ = ("curve", "factor", "filling", "line", "offset", "short", "slope")

    def __init__(self, curve: Curve, line: Line, filling: Filling = FULL, short: bool = False) -> None:
        self.curve = curve
        self.line = line
        self.filling = filling
        """Of prefill: see `attended`."""
        self.short = short
        """Whether no long context was measured on it."""
        self.slope = line.slope
        """Of prefill's line, which does not bend."""
        self.factor = TURNS_FACTOR
        self.offset = 0.0
        """Decode: seconds added beside. Prefill: added to the factor, for each second of the other lane's step."""

    def times(self, factor: float) -> LaneTimes:
        """A lane on which everything takes so many times as long alone."""
        curve = Curve(self.curve.knots, [factor * value for value in self.curve.values])
        return LaneTimes(curve, self.line.times(factor), self.filling, self.short)


def fit_lanes(
    samples: Iterable[S],
    points: Callable[[Sequence[S], Filling], list[Point]],
    filling_of: Callable[[int], Sequence[Filling]],
    *,
    bends: bool,
) -> dict[int, LaneTimes]:
    """By units, ascending, each with the filling of those units that fits its samples alone best.

    The lane with the most units was measured with the most sizes: the others have its shape, and where a calibration
    ran out of time before any long context, attention is no gift. If that one knows no long context either, each is
    fitted by itself.
    """
    alone: dict[int, list[S]] = defaultdict(list)
    for sample in samples:
        if not sample.beside:
            alone[sample.units].append(sample)
    lanes: dict[int, LaneTimes] = {}
    whole: LaneTimes | None = None
    for units in sorted(alone, reverse=True):
        best = math.inf
        tried = filling_of(units)
        if whole is not None and told_apart(points(alone[units], tried[0])) < LEAST_SIZES:
            usual = whole.filling.least, whole.filling.more
            tried = [filling for filling in tried if (filling.least, filling.more) == usual]
        for filling in tried:
            own = points(alone[units], filling)
            curve, line = fit(own, bends=bends) if whole is None else fit_like(whole.curve, whole.line, own)
            error = sum(((curve.at(n) + line.at(work)) / seconds - 1) ** 2 for n, work, seconds in own)
            if error < best - SAME:
                best, lanes[units] = error, LaneTimes(curve, line, filling, short=not told_apart(own))
        if len(lanes) == 1 and not lanes[units].short:
            whole = lanes[units]
    return dict(sorted(lanes.items()))


def chunk_points(samples: Sequence[PrefillSample], filling: Filling) -> list[Point]:
    """What the prefill lane is fitted to."""
    return [(s.tokens, attended(s.tokens, s.context, filling), s.seconds) for s in samples]


def with_fewer(lanes: dict[int, LaneTimes], legal: Iterable[int]) -> dict[int, LaneTimes]:
    """With ``legal`` numbers of units below all that were measured: times are in inverse proportion to units."""
    least = min(lanes)
    return {units: lanes[least].times(least / units) for units in legal if units < least} | lanes


def set_slowdowns(lanes: Mapping[int, LaneTimes], ratios: Mapping[int, list[tuple[float, float]]]) -> None:
    """Fit ratio = factor + offset * x by relative errors; lanes without ratios take the nearest lane's."""
    fitted = {}
    for units, pairs in ratios.items():
        xs = [x for x, _ in pairs]
        affine = len(pairs) >= MIN_AFFINE and max(xs) > VARIED * min(xs)
        rows = [[1 / ratio, x / ratio if affine else 0.0] for x, ratio in pairs]
        factor, offset = solve_nonnegative(rows, [1.0] * len(rows))
        fitted[units] = (factor, offset)
    for units, lane in lanes.items():
        if fitted:
            closest = min(fitted, key=lambda measured: abs(measured - units))
            lane.factor, lane.offset = fitted[closest]


def nearest(lanes: Mapping[int, LaneTimes], units: int) -> LaneTimes:
    """Of the known unit counts the next smaller one, so that predictions are rather too long than too short."""
    return lanes[max((measured for measured in lanes if measured <= units), default=min(lanes))]

"""Times of the form ``curve(n) + line(work)``: a piecewise linear, never falling curve and a line, fitted together.

``n`` is what a matrix product's rows are (rows of a decode step, tokens of a chunk), ``work`` what attention reads.
"""

from __future__ import annotations

import math
import statistics
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from rapidd.policy.fit import solve_nonnegative
from rapidd.policy.waves import FULL, Filling

MAX_TABLE: Final = 1 << 14
"""Entries: beyond, a value is interpolated when asked for."""
BEND: Final = 0.25
"""Of the most work measured: where a line may get steeper."""
MAX_CHUNK: Final = 1 << 20
"""Tokens: the longest chunk that is ever the answer."""

FLOOR_S: Final = 1e-9
"""Nothing takes no time, so that whoever divides by a prediction may."""
SPARE: Final = 3
"""Samples that a fit has beyond one for each knot."""
MOST_WORK: Final = 0.3
"""Of a sample's time, what its work may take for the sample to tell its knot."""
LEAST_SHARE: Final = 0.05
"""Of a curve's greatest value: what is less there is no measure of what fewer units take."""
MOST_RISE: Final = 2.0
"""Behind the largest size that was measured on fewer units, of how many times as long they took there."""
USUAL: Final = 0.2
"""Weight, beside 1 of a sample, of a line that is as much steeper than another as batches take longer."""


class Curve:
    """Piecewise linear through (knots, values), flat before the first knot, going on straight behind the last one."""

    __slots__ = ("_table", "knots", "slopes", "values")

    def __init__(self, knots: Sequence[int], values: Sequence[float]) -> None:
        self.knots = tuple(knots)
        self.values = tuple(values)
        pairs = list(zip(knots, values, strict=True))
        rises = [(high - low) / (b - a) for (a, low), (b, high) in pairwise(pairs)]
        # The last piece may be flat by accident: what lies far behind it is no cheaper than all before it, on average.
        average = (values[-1] - values[0]) / (knots[-1] - knots[0]) if len(knots) > 1 else values[0] / knots[0]
        self.slopes = (*rises, max(average, rises[-1] if rises else 0.0))
        self._table = array("d", [self._interpolate(n) for n in range(min(knots[-1], MAX_TABLE) + 1)])

    def at(self, n: int) -> float:
        """Seconds, for n >= 0."""
        table = self._table
        return table[n] if n < len(table) else self._interpolate(n)

    def _interpolate(self, n: int) -> float:
        piece = bisect_right(self.knots, n) - 1
        return self.values[0] if piece < 0 else self.values[piece] + self.slopes[piece] * (n - self.knots[piece])

    def longest(self, offset: int, context: float, slope: float, budget: float, filling: Filling = FULL) -> int:
        """The most tokens with ``at(offset + tokens) + slope * attended(tokens, context, filling) <= budget``, or 0."""
        if context > 0:
            budget -= slope * context * filling.more
        found = self._longest(offset, context, slope, budget)  # more than that take longer still
        if context <= 0:
            return found
        for level in filling.below(found):  # where the context costs the same for any number of tokens
            fits = self._longest(offset, 0.0, slope, budget - slope * context * level.tokens)
            if fits > level.above:
                return min(fits, found)
            found = level.above
        return found

    def _longest(self, offset: int, context: float, slope: float, budget: float) -> int:
        """Where each token takes its own time."""
        starts = [knot - offset for knot in self.knots]
        piece = -1
        for index, (start, value) in enumerate(zip(starts, self.values, strict=True)):
            if start > 0 and value + slope * attended(start, context) > budget:
                break
            piece = index
        begin, value, rise = (
            (0, self.values[0], 0.0) if piece < 0 else (starts[piece], self.values[piece], self.slopes[piece])
        )
        # value + rise (n - begin) + slope n (context + n / 2) = budget, in the form a n^2 + b n = c
        root = _root(slope / 2, rise + slope * context, budget - value + rise * begin)
        limit = starts[piece + 1] if piece + 1 < len(starts) else MAX_CHUNK
        return max(0, int(min(root, limit, MAX_CHUNK)))


def attended(tokens: float, context: float, filling: Filling = FULL) -> float:
    """Pairs of a query and a key for which a chunk's attention takes time.

    A negative context is that of several prompts in one chunk, of which none attends to another.
    """
    return (filling.tokens(tokens) if context > 0 else tokens) * context + tokens * tokens / 2


def _root(a: float, b: float, c: float) -> float:
    """The n > 0 with a n^2 + b n = c; 0 where there is none."""
    if c <= 0.0:
        return 0.0
    return 2 * c / (b + math.sqrt(b * b + 4 * a * c)) if a or b else math.inf


class Line(NamedTuple):
    """Seconds of work, through 0: ``slope`` a unit, and ``steeper`` more for each one beyond ``bend``."""

    slope: float
    steeper: float = 0.0
    bend: float = 0.0

    def at(self, work: float) -> float:
        """Seconds."""
        seconds = work * self.slope
        return seconds + (work - self.bend) * self.steeper if work > self.bend else seconds

    def times(self, factor: float) -> Line:
        """So many times as steep."""
        return Line(factor * self.slope, factor * self.steeper, self.bend)


Point = tuple[int, float, float]
"""n, work, seconds."""


def told_apart(points: Sequence[Point]) -> int:
    """How many n were measured with more than one work: without any, nobody knows what belongs to the curve."""
    works: dict[int, set[float]] = {}
    for n, work, _ in points:
        works.setdefault(n, set()).add(work)
    return sum(len(different) > 1 for different in works.values())


def fit_like(curve: Curve, line: Line, points: Sequence[Point]) -> tuple[Curve, Line]:
    """Of at least one point, a curve and a line that have the shape of others, as where fewer units run the same.

    The curve times a factor that is piecewise linear in n, with a knot at every n of the points; the line times a
    constant one. With the least squares of *relative* errors; as far as the points do not tell the line's factor, it
    is that of whole batches. No part is negative, and the curve never falls.
    """
    knots = sorted({n for n, _, _ in points})
    least = LEAST_SHARE * curve.at(max(knots[-1], curve.knots[-1]))
    shape = {n: max(curve.at(n), least) for n in (*knots, *curve.knots)}
    usual = statistics.median(seconds / (shape[n] + line.at(work)) for n, work, seconds in points)
    line = line.times(usual)
    rows = []
    for n, work, seconds in points:
        rows.append([*(shape[n] / seconds if n == knot else 0.0 for knot in knots), line.at(work) / seconds])
    rows.append([*(0.0 for _ in knots), USUAL])
    *factors, steepness = solve_nonnegative(rows, [*(1.0 for _ in points), USUAL])
    ends = sorted(shape)
    values = [max(shape[n] * _between(n, knots, factors), FLOOR_S) for n in ends]
    return Curve(ends, list(accumulate(values, max))), line.times(steepness)


def _between(n: int, knots: Sequence[int], factors: Sequence[float]) -> float:
    """Piecewise linear; before the first knot as there, behind the last one rising on, to `MOST_RISE` times as much."""
    piece = bisect_right(knots, n) - 1
    if piece < 0 or len(knots) == 1:
        return factors[0]
    low = min(piece, len(knots) - 2)
    rise = (factors[low + 1] - factors[low]) / (knots[low + 1] - knots[low])
    if piece == low:
        return factors[low] + rise * (n - knots[low])
    return min(factors[-1] + max(rise, 0.0) * (n - knots[-1]), MOST_RISE * factors[-1])


def _ramps(n: int, knots: Sequence[int]) -> list[float]:
    return [min(max((n - low) / (high - low), 0.0), 1.0) for low, high in pairwise(knots)]


def _rising(knots: Sequence[int], base: float, *rises: float) -> Curve:
    return Curve(knots, list(accumulate(rises, initial=max(base, FLOOR_S))))


def fit(points: Sequence[Point], *, bends: bool = False) -> tuple[Curve, Line]:
    """The curve and the line with the least squares of *relative* errors.

    Of at least one point. Every n is a knot while there are `SPARE` more samples than that; else
    the smallest, the largest, and those measured at least twice, and no line bends: few samples cannot tell these from
    each other. Where works are told apart, one between that was measured with much only is none: all that is not
    quite a line in these samples would be put down to it. No part is negative, so times rise with n and work.
    """
    counts = Counter(n for n, _, _ in points)
    knots = sorted(counts)
    if len(points) < len(knots) + SPARE:
        knots = sorted({knots[0], knots[-1], *(n for n, count in counts.items() if count > 1)})
        bends = False
    curve, line = _fit(points, knots, bends)
    if not told_apart(points):
        return curve, line
    told = {n for n, work, seconds in points if line.at(work) <= MOST_WORK * seconds}
    kept = [n for n in knots if n in told or n in (knots[0], knots[-1])]
    return (curve, line) if kept == knots else _fit(points, kept, bends)


def _fit(points: Sequence[Point], knots: Sequence[int], bends: bool) -> tuple[Curve, Line]:
    scale = max(work for _, work, _ in points) or 1.0
    rows = []
    for n, work, seconds in points:
        beyond = max(work / scale - BEND, 0.0) if bends else 0.0
        rows.append([part / seconds for part in (1.0, *_ramps(n, knots), work / scale, beyond)])
    base, *rises, slope, steeper = solve_nonnegative(rows, [1.0] * len(points))
    return _rising(knots, base, *rises), Line(slope / scale, steeper / scale, BEND * scale)

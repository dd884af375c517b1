"""How long a batch of decode rows and a prompt chunk takes, from what its parts take alone.

    seconds = x * products + s * (prompt + decode) + m * max(prompt, decode) + z

``prompt`` and ``decode`` are the seconds of both attentions. One after the other they take their sum (m = 0). Side by
side on one device they take the longer, because one is bound by arithmetic and the other by bandwidth (m), and of both
what neither hides (s). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rapidd.policy.curve import Curve, attended
from rapidd.policy.fit import solve_nonnegative
from rapidd.policy.waves import Filling

MIN_SUM: Final = 3
"""Samples below which a batch takes as long as its parts."""
MIN_SAMPLES: Final = 6
"""Of four coefficients."""
TELLING: Final = 0.05
"""Of a batch's time: a shorter attention that takes less tells nothing about whether the longer one hides it."""
MIN_TELLING: Final = 3
"""Samples that tell so, below which attentions are taken for one after the other."""


class MixedSample(NamedTuple):
    """What the parts of a batch take alone, and what all of it took, in seconds."""

    products: float
    prompt: float
    decode: float
    seconds: float

    @property
    def tells(self) -> bool:
        """Whether both attentions are long enough to see if they overlap."""
        return min(self.prompt, self.decode) >= TELLING * self.seconds


class MixedLaw(NamedTuple):
    """The coefficients x, s, m and z. ``products`` is positive, the others are not negative."""

    products: float = 1.0
    both: float = 1.0
    longer: float = 0.0
    constant: float = 0.0

    def at(self, products: float, prompt: float, decode: float) -> float:
        """Seconds, of the seconds that the parts take."""
        x, s, m, z = self
        return x * products + s * (prompt + decode) + m * (prompt if prompt > decode else decode) + z

    def longest(
        self, curve: Curve, rows: int, context: float, slope: float, filling: Filling, decode: float, seconds: float
    ) -> int:
        """The most tokens behind ``context`` beside ``rows`` whose attention takes ``decode``, in ``seconds``; or 0.

        The law is the larger of two sums, one for each attention that may be the longer, so both bound the tokens.
        ``curve``, ``slope`` and ``filling`` as in `Curve.longest`.
        """
        x, s, m, z = self
        left = seconds - z - s * decode
        fits = curve.longest(rows, context, (s + m) * slope / x, left / x, filling)
        if not m or attended(fits, context, filling) * slope >= decode:  # there the other sum is no larger
            return fits
        return min(fits, curve.longest(rows, context, s * slope / x, (left - m * decode) / x, filling))


def fit_mixed(samples: Sequence[MixedSample]) -> MixedLaw:
    """The law with the least squares of relative errors.

    Where too few samples tell about overlap, products and attentions have one weight, x = s, and m = 0: what was not
    seen costs in proportion to what was. With hardly any samples a batch takes as long as its parts.
    """
    if len(samples) >= MIN_SAMPLES and sum(sample.tells for sample in samples) >= MIN_TELLING:
        rows = [[p, prompt + decode, max(prompt, decode), 1.0] for p, prompt, decode, _ in samples]
        x, s, m, z = _solve(rows, samples)
        if x > 0.0 and s + m > 0.0:
            return MixedLaw(x, s, m, z)
    if len(samples) >= MIN_SUM:
        x, z = _solve([[sum(sample[:3]), 1.0] for sample in samples], samples)
        if x > 0.0:
            return MixedLaw(x, x, 0.0, z)
    return MixedLaw()


def _solve(rows: list[list[float]], samples: Sequence[MixedSample]) -> list[float]:
    relative = [[part / sample.seconds for part in row] for row, sample in zip(rows, samples, strict=True)]
    return solve_nonnegative(relative, [1.0] * len(relative))

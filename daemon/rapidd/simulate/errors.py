"""By how much simulated batches miss their predictions: drawn, and yet the same in every run.

A batch's draw is a hash of the seed, its lane and its number, so it needs no state and does not depend on what else
was drawn. Its time is the prediction times (1 + bias) times a log-normal factor of mean 1, so a jitter moves no mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Final, get_args

from msgspec import Struct

from rapidctl.wire import Mode
from rapidd.engine.batch import Batch
from rapidd.policy.plan import WorkKind

ALL: Final = "all"
NORMAL: Final = NormalDist()
MASK: Final = (1 << 64) - 1
MOST: Final = 0.5
"""Of a jitter or a bias: beyond that the profile is of another device."""
NAMES: Final = frozenset(
    {ALL, *get_args(WorkKind), *(f"{mode}/{kind}" for mode in get_args(Mode) for kind in get_args(WorkKind))}
)


class Errors(Struct, frozen=True, kw_only=True):
    """Relative errors by what they hold for: ``hybrid/mixed`` before ``mixed`` before ``all``; 0 where nothing is said.

    ``jitter``: mean of |time / biased prediction - 1|, drawn anew for ``run`` batches of a lane in succession.
    ``bias``: of all batches.
    """

    jitter: Mapping[str, float] = {}
    bias: Mapping[str, float] = {}
    run: int = 1
    seed: int = 0

    def factor(self, batch: Batch) -> float:
        """Time over prediction."""
        factor = 1.0 + _of(self.bias, batch)
        jitter = _of(self.jitter, batch)
        if jitter:
            counter = 2 * (batch.number // self.run) + (batch.lane == "decode")
            factor *= _log_normal(jitter, uniform(self.seed, counter))
        return factor


EXACT: Final = Errors()
"""Predictions that are never wrong."""


def read_errors(words: Iterable[str], least: float = -MOST) -> dict[str, float]:
    """From ``X`` or ``WHAT=X``. Raises ValueError, for people."""
    found: dict[str, float] = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        name = name if equals else ALL
        if name not in NAMES:
            raise ValueError(f"{name!r} is no kind of batch; use decode, prefill, mixed, or with a mode: hybrid/mixed")
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"{number!r} is no number; use 0.05 or hybrid/mixed=0.05") from None
        if not least <= value <= MOST:
            raise ValueError(f"{value:g} is not within {least:g} and {MOST:g}; errors are shares of a prediction")
        found[name] = value
    return found


def uniform(seed: int, counter: int) -> float:
    """In (0, 1), by the finalizer of SplitMix64 (Steele, Lea, Flood 2014) over a seed and a counter."""
    return (_mix(_mix(seed) + counter) + 0.5) / 2.0**64


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def _log_normal(mean_error: float, place: float) -> float:
    """The quantile ``place`` of the log-normal with mean 1 whose mean distance from 1 is ``mean_error``.

    That distance is 2 (2 Phi(sigma / 2) - 1), where Phi is the normal distribution.
    """
    sigma = 2.0 * NORMAL.inv_cdf(0.5 + mean_error / 4.0)
    return math.exp(sigma * NORMAL.inv_cdf(place) - sigma * sigma / 2.0)


def _of(errors: Mapping[str, float], batch: Batch) -> float:
    if not errors:
        return 0.0
    return errors.get(f"{batch.mode}/{batch.kind}", errors.get(batch.kind, errors.get(ALL, 0.0)))

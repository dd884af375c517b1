"""The highest rate at which enough requests meet their objectives. A pure search: somebody else runs the load.

The rate scale doubles or halves until it is bracketed, then the bracket is halved on a logarithmic scale. A run is
expensive and a neighbour of the edge is noisy: the number of runs is bounded, and all of them are reported.
"""

import math
from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

from rapidctl.wire import GOODPUT_SHARE

WIDEST: Final = 2.0**10
"""No search goes further from its first scale than this factor."""


class Trial(Struct, frozen=True):
    """One run: ``share`` of the offered requests met both objectives. Null: it counts for nothing."""

    scale: float
    share: float | None

    @property
    def good(self) -> bool:
        """Enough of them did."""
        return self.share is not None and self.share >= GOODPUT_SHARE


class Goodput(Struct, frozen=True):
    """``scale``: the highest that was good, null when none was. ``edge``: whether a higher one was seen to be bad.

    ``found``: between it and the lowest bad one above lies at most the tolerance; ``coarse``: the search ended before;
    ``at_least``: nothing bad was seen above it; ``none``: nothing was good.
    """

    scale: float | None
    edge: Literal["found", "coarse", "at_least", "none"]
    trials: list[Trial]

    @property
    def figure(self) -> float | None:
        """What may be compared: 0 where nothing was good; null for a lower bound, of which no ratio can be made."""
        return None if self.edge == "at_least" else self.scale or 0.0


def search(
    measure: Callable[[float], float | None], *, first: float = 1.0, max_runs: int = 10, tolerance: float = 0.05
) -> Goodput:
    """Search from the scale ``first``; ``measure`` runs one scale and gives its share. Stops at ``max_runs``.

    What ``measure`` raises ends the search. So does a run that counts for nothing: what a generator cannot offer at one
    scale it cannot at a higher one, and a late one is kinder to a server than the load would be.
    """
    trials: list[Trial] = []
    good: float | None = None
    bad: float | None = None
    scale = first
    while len(trials) < max_runs:
        trial = Trial(scale, measure(scale))
        trials.append(trial)
        if trial.share is None:
            break
        if trial.good:
            good = scale
        else:
            bad = scale
        if good is not None and bad is not None:
            if bad / good <= 1 + tolerance:
                break
            scale = math.sqrt(good * bad)
        else:
            scale = scale * 2 if trial.good else scale / 2
            if not first / WIDEST <= scale <= first * WIDEST:
                break
    if good is None:
        return Goodput(None, "none", trials)
    if bad is None:
        return Goodput(good, "at_least", trials)
    return Goodput(good, "found" if bad / good <= 1 + tolerance else "coarse", trials)

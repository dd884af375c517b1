"""Policies side by side: ratios of one to each of the others, with their spread. Pure arithmetic on figures.

A ratio is taken of two runs of the same repeat, which lie next to each other in time and have the same arrivals: what
slows the machine slows both. Means are geometric: over repeats, then over traces.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from rapidctl.bench.metrics import geometric_mean

FAILS_BELOW: Final = 0.1
"""A baseline below this share of the reference fails: a ratio to almost nothing would rule every mean."""


class Ratio(Struct, frozen=True, kw_only=True):
    """The reference over one baseline on one trace. ``fails``: the baseline is too far below to make a ratio of.

    There is none either when one of the two had nothing in some repeat: without that repeat it would be another's.
    """

    trace: str
    baseline: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    fails: bool


class Mean(Struct, frozen=True, kw_only=True):
    """Over the traces that have a ratio; null without any. ``without``: those that have none, though nothing fails."""

    baseline: str
    mean: float | None
    traces: int
    failed: int
    without: int


class Compared(Struct, frozen=True):
    """One figure, all traces. ``figure`` is more when it is better."""

    figure: str
    reference: str
    ratios: list[Ratio]
    means: list[Mean]
    unbounded: int = 0
    """Searches that ended before anything failed: what they found is a lower bound, and in no ratio."""


Figures = Mapping[str, Mapping[int, float | None]]
"""What was measured of each policy on one trace, by repeat; null where it does not count."""


def order(policies: Sequence[str], repeat: int) -> list[str]:
    """Who runs first changes from repeat to repeat, so that a drift of the machine favours nobody."""
    turn = repeat % len(policies)
    return [*policies[turn:], *policies[:turn]]


def reference_of(policies: Sequence[str]) -> str:
    """``auto`` where it is among them, else the first."""
    return "auto" if "auto" in policies else policies[0]


def ratios(trace: str, figures: Figures, reference: str) -> list[Ratio]:
    """The reference to each other policy; only repeats that count for both are paired."""
    found = []
    over = figures.get(reference, {})
    for baseline, under in figures.items():
        if baseline == reference:
            continue
        pairs = [
            (high, low) for repeat, high in over.items() if high is not None and (low := under.get(repeat)) is not None
        ]
        fails = bool(pairs) and sum(low for _, low in pairs) < FAILS_BELOW * sum(high for high, _ in pairs)
        values = [] if fails or any(0 in pair for pair in pairs) else [high / low for high, low in pairs]
        found.append(
            Ratio(
                trace=trace,
                baseline=baseline,
                mean=geometric_mean(values),
                low=min(values, default=None),
                high=max(values, default=None),
                n=len(pairs),
                fails=fails,
            )
        )
    return found


def means(found: Sequence[Ratio]) -> list[Mean]:
    """One a baseline, in the order of their first appearance."""
    result = []
    for baseline in dict.fromkeys(ratio.baseline for ratio in found):
        own = [ratio for ratio in found if ratio.baseline == baseline]
        values = [ratio.mean for ratio in own if ratio.mean is not None]
        failed = sum(ratio.fails for ratio in own)
        without = len(own) - len(values) - failed
        mean = geometric_mean(values)
        result.append(Mean(baseline=baseline, mean=mean, traces=len(values), failed=failed, without=without))
    return result

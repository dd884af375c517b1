"""Figures of a benchmark: what was measured, how it spread, and whether a requirement is met. Pure; prints nothing."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. ``samples`` are the repeats in the order they were taken; the value is their median.

    ``requirement`` is a bound on the median, null where the figure is only reported.
    """

    name: str
    samples: Sequence[float]
    unit: str
    bound: Literal["at least", "at most"] | None = None
    requirement: float | None = None

    @property
    def value(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the median is on the right side of the requirement; null without one."""
        if self.requirement is None:
            return None
        return self.value >= self.requirement if self.bound == "at least" else self.value <= self.requirement

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "value": self.value,
            "min": min(self.samples),
            "max": max(self.samples),
            "met": self.met,
        }


def ratios(name: str, over: Sequence[float], under: Sequence[float], at_least: float) -> Figure:
    """Pairs taken next to each other in time are divided first: what slows the machine slows both."""
    pairs = [a / b for a, b in zip(over, under, strict=True)]
    return Figure(name, pairs, "x", "at least", at_least)


def table(figures: Sequence[Figure]) -> str:
    """For people: name, median, spread, unit, requirement, met."""
    rows = [("figure", "median", "min..max", "n", "unit", "requirement", "met")]
    for figure in figures:
        spread = f"{_number(min(figure.samples))}..{_number(max(figure.samples))}"
        wanted = f"{figure.bound} {figure.requirement:g}" if figure.requirement is not None else ""
        met = {True: "yes", False: "no", None: ""}[figure.met]
        rows.append((figure.name, _number(figure.value), spread, str(len(figure.samples)), figure.unit, wanted, met))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = (0, 4, 5, 6)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"

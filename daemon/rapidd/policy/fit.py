"""Small non-negative least squares, for times that are sums of costs.

Pure Python on purpose: a handful of unknowns and some dozens of samples take milliseconds, and whoever reads a policy
pays for no numerical library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

SINGULAR: Final = 1e-9
"""A unit column whose part that no earlier column explains is shorter than this (squared) adds nothing."""
OPTIMAL: Final = 1e-9
"""A unit column that would lower the residual by less than this is left out."""


def solve_nonnegative(rows: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """The x >= 0 that minimises ||rows x - target||. Columns of zeros, and columns that others explain, get 0.

    Lawson and Hanson's active sets (*Solving Least Squares Problems*, 1974, chapter 23).
    """
    size = len(rows[0])
    norms = [math.sqrt(sum(row[i] ** 2 for row in rows)) or 1.0 for i in range(size)]
    scaled = [[value / norm for value, norm in zip(row, norms, strict=True)] for row in rows]
    gram = [[sum(row[i] * row[j] for row in scaled) for j in range(size)] for i in range(size)]
    right = [sum(row[i] * wanted for row, wanted in zip(scaled, target, strict=True)) for i in range(size)]
    x = [0.0] * size
    chosen: list[int] = []
    refused: set[int] = set()
    for _ in range(4 * size):
        gain = [right[i] - sum(gram[i][j] * x[j] for j in chosen) for i in range(size)]
        best = max((i for i in range(size) if i not in chosen and i not in refused), key=gain.__getitem__, default=None)
        if best is None or gain[best] <= OPTIMAL:
            break
        if not _improve(gram, right, x, [*chosen, best]):
            refused.add(best)
        chosen = [i for i in range(size) if x[i] > 0.0]
    return [value / norm for value, norm in zip(x, norms, strict=True)]


def _improve(gram: list[list[float]], right: list[float], x: list[float], chosen: list[int]) -> bool:
    """Move ``x`` to the least squares over ``chosen``, leaving out what would turn negative; False: nothing moved."""
    moved = False
    while chosen:
        found = _solve([[gram[i][j] for j in chosen] for i in chosen], [right[i] for i in chosen])
        if found is None:
            return moved
        wanted = dict(zip(chosen, found, strict=True))
        negative = [i for i in chosen if wanted[i] <= 0.0]
        if not negative:
            for i in range(len(x)):
                x[i] = wanted.get(i, 0.0)
            return True
        step = min(x[i] / (x[i] - wanted[i]) if x[i] > wanted[i] else 0.0 for i in negative)
        for i in chosen:
            x[i] += step * (wanted[i] - x[i])
        moved = moved or step > 0.0
        first = min(negative, key=x.__getitem__)
        x[first] = 0.0
        chosen = [i for i in chosen if i != first and (x[i] > 0.0 or i not in negative)]
    return moved


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gaussian elimination of a positive definite system with a unit diagonal; None when it is singular."""
    size = len(right)
    work = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for k in range(size):
        if work[k][k] < SINGULAR:
            return None
        for i in range(k + 1, size):
            factor = work[i][k] / work[k][k]
            for j in range(k, size + 1):
                work[i][j] -= factor * work[k][j]
    x = [0.0] * size
    for k in reversed(range(size)):
        x[k] = (work[k][size] - sum(work[k][j] * x[j] for j in range(k + 1, size))) / work[k][k]
    return x

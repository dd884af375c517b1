"""Non-negative least squares against a search over all active sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidd.policy.fit import solve_nonnegative

entries = st.integers(-4, 4).map(float)
systems = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.tuples(st.lists(entries, min_size=columns, max_size=columns), entries), min_size=1, max_size=6
    )
)


def residual(rows: list[list[float]], target: list[float], x: list[float]) -> float:
    return float(np.linalg.norm(np.array(rows) @ np.array(x) - np.array(target)))


def least_residual(rows: list[list[float]], target: list[float]) -> float:
    """Of the unconstrained least squares over each set of columns, the best that is not negative."""
    matrix, columns, best = np.array(rows), range(len(rows[0])), float(np.linalg.norm(target))
    for size in range(1, len(rows[0]) + 1):
        for chosen in itertools.combinations(columns, size):
            x = np.linalg.lstsq(matrix[:, chosen], np.array(target), rcond=None)[0]
            if (x >= -1e-9).all():
                best = min(best, float(np.linalg.norm(matrix[:, chosen] @ x - np.array(target))))
    return best


@given(systems)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_no_other_nonnegative_solution_is_closer(system: list[tuple[list[float], float]]) -> None:
    rows, target = [row for row, _ in system], [value for _, value in system]
    x = solve_nonnegative(rows, target)
    assert min(x) >= 0.0
    assert residual(rows, target, x) <= least_residual(rows, target) + 1e-5


def test_a_column_that_another_explains_is_left_out() -> None:
    x, y = solve_nonnegative([[1.0, 2.0], [2.0, 4.0]], [3.0, 6.0])
    assert 0.0 in (x, y)
    assert x + 2 * y == pytest.approx(3.0)

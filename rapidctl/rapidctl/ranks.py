"""Percentiles are nearest ranks, everywhere: the smallest value that at least that share of all does not exceed."""


def rank(percent: int, count: int) -> int:
    """Index of a percentile among ``count`` sorted values; in integers, because shares are not exact in floats."""
    return max(0, -(-percent * count // 100) - 1)

"""Quantiles of the last few durations of something: every value is kept, and sorted when somebody asks."""

from collections import deque

from rapidctl.ranks import rank
from rapidctl.wire import Quantiles


class Recent:
    """The last ``kept`` durations."""

    def __init__(self, kept: int) -> None:
        self._values_ns: deque[int] = deque(maxlen=kept)

    def record(self, duration_ns: int) -> None:
        """One more."""
        self._values_ns.append(duration_ns)

    def quantiles(self) -> Quantiles:
        """In seconds."""
        ordered = sorted(self._values_ns)
        n = len(ordered)
        if not n:
            return Quantiles(n=0)
        p50, p95, p99 = (ordered[rank(percent, n)] / 1e9 for percent in (50, 95, 99))
        return Quantiles(n=n, p50=p50, p95=p95, p99=p99, max=ordered[-1] / 1e9)

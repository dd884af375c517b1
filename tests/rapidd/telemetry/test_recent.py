"""Quantiles of the last few durations."""

from rapidctl.wire import Quantiles
from rapidd.telemetry.recent import Recent

MS = 1_000_000


def test_quantiles_are_values_that_were_there() -> None:
    recent = Recent(100)
    for value in (3, 1, 2, 50):
        recent.record(value * MS)
    assert recent.quantiles() == Quantiles(n=4, p50=0.002, p95=0.05, p99=0.05, max=0.05)


def test_old_durations_are_forgotten() -> None:
    recent = Recent(2)
    for value in (100, 1, 3):
        recent.record(value * MS)
    assert recent.quantiles() == Quantiles(n=2, p50=0.001, p95=0.003, p99=0.003, max=0.003)


def test_nothing_has_no_quantiles() -> None:
    assert Recent(4).quantiles() == Quantiles(n=0)

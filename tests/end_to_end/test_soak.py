"""The correctness soak, for a few seconds on the CPU: every token right, nothing lost, whatever the load does."""

import os

import pytest

from bench.soak import Found, Settings, soak, table
from support.daemon import MODEL
from support.process import environment

LOAD_S = 3.0
SETTINGS = Settings(LOAD_S, model=str(MODEL), device="cpu", dtype="float32", seed=1, idle_s=1.5)


@pytest.fixture(scope="module")
def found() -> Found:
    """One run; the daemon finds the packages where nothing is installed, and no setting leaks in from outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(environment()):
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        return soak(SETTINGS)


def test_a_few_seconds_of_random_load_pass_every_check(found: Found) -> None:
    assert found.failures == [], table(found)


def test_what_was_checked_is_not_little(found: Found) -> None:
    summary = found.summary
    assert summary["requests"] > 50
    assert summary["checked_tokens"] > summary["output_tokens"] / 2 > 500
    assert summary["switches"] == summary["plans_run"] >= 2, "one at the start and every 2.1 s"
    assert summary["preempted"] > 0
    assert summary["prefix_hit_tokens"] > 0
    assert 0 < summary["cancels"] < summary["requests"] / 2
    assert summary["worst_shortfall"] <= summary["tolerance"] == pytest.approx(1e-3)

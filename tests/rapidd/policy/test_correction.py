"""What is learnt online about how far predictions are off."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidd.policy.correction import FADES, TRUST, Correction

quick = settings(max_examples=50, deadline=None)


def test_a_correction_is_the_mean_ratio_of_the_profile_and_the_first_batches_and_follows_slowly_later() -> None:
    correction = Correction()
    assert correction.factor("split", "decode") == 1.0
    correction.observe("split", "decode", 0.010, 0.012)
    correction.observe("split", "decode", 0.010, 0.014)
    assert correction.factor("split", "decode") == pytest.approx((TRUST + 1.2 + 1.4) / (TRUST + 2))
    assert correction.error("split", "decode") == pytest.approx((0.1667 + 0.2619) / (TRUST + 2), abs=1e-3)
    assert correction.error("shared", "decode") == 0.0
    assert correction.factor("shared", "decode") == correction.factor("split", "prefill") == 1.0
    for _ in range(400):
        correction.observe("split", "decode", 0.010, 0.009)
    (seen,) = correction.all()
    assert (seen.mode, seen.kind, seen.n) == ("split", "decode", 402)
    assert seen.factor == pytest.approx(0.9)
    assert seen.error < 1e-6, "predictions were right in the end"


@given(st.lists(st.tuples(st.floats(1e-6, 100), st.floats(1e-6, 100)), min_size=1, max_size=30))
@quick
def test_a_correction_stays_within_a_factor_of_two(pairs: list[tuple[float, float]]) -> None:
    correction = Correction()
    for predicted, measured in pairs:
        correction.observe("hybrid", "mixed", predicted, measured)
    assert 0.5 <= correction.factor("hybrid", "mixed") <= 2.0


def test_two_slow_batches_at_the_start_do_not_make_a_mode_look_slow_for_good() -> None:
    """A policy leaves what looks slow, and of what it left it learns nothing more."""
    correction = Correction()
    for _ in range(2):
        correction.observe("hybrid", "mixed", 0.02, 0.026)
    assert correction.factor("hybrid", "mixed") < 1.1


def test_what_was_learnt_of_a_kind_fades_while_others_run() -> None:
    """Three batches that a device took twice as long for kept a policy from ever trying their kind again."""
    correction = Correction()
    for _ in range(3):
        correction.observe("hybrid", "mixed", 0.02, 0.04)
    factor, error = correction.factor("hybrid", "mixed"), correction.error("hybrid", "mixed")
    for _ in range(FADES):
        correction.observe("split", "decode", 0.01, 0.01)
    assert correction.factor("hybrid", "mixed") == pytest.approx(1 + (factor - 1) / 2)
    assert correction.error("hybrid", "mixed") == pytest.approx(error / 2)
    assert correction.factor("split", "decode") == 1.0, "what runs does not fade"


def test_one_hiccup_among_many_batches_changes_little() -> None:
    correction = Correction()
    for _ in range(50):
        correction.observe("serial", "prefill", 0.05, 0.05)
    correction.observe("serial", "prefill", 0.05, 5.0)
    assert correction.factor("serial", "prefill") <= 1.06


def test_a_device_that_is_much_faster_than_its_profile_is_not_erratic() -> None:
    """What it took less than half of was counted as an error without bound, and gaps as several times as long."""
    correction = Correction()
    correction.observe("hybrid", "mixed", 0.100, 0.001)
    assert correction.error("hybrid", "mixed") == pytest.approx(1.0 / (TRUST + 1))
    for _ in range(200):
        correction.observe("hybrid", "mixed", 0.050, 0.010)
    assert correction.factor("hybrid", "mixed") == pytest.approx(0.5, abs=1e-3)
    assert correction.error("hybrid", "mixed") < 1e-3


def test_what_was_seen_most_often_is_told_first() -> None:
    correction = Correction()
    for mode, kind in (("split", "prefill"), ("split", "decode"), ("hybrid", "mixed"), ("split", "decode")):
        correction.observe(mode, kind, 1.0, 1.0)  # type: ignore[arg-type]
    assert [(one.mode, one.kind) for one in correction.all()] == [
        ("split", "decode"), ("hybrid", "mixed"), ("split", "prefill"),
    ]  # fmt: skip


def test_times_that_are_not_positive_say_nothing() -> None:
    correction = Correction()
    correction.observe("serial", "prefill", 0.0, 1.0)
    correction.observe("serial", "prefill", 1.0, 0.0)
    assert correction.all() == []

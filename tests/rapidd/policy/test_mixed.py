"""What batches of decode rows and a chunk take: the law is found in samples that follow it, and can be turned round."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rapidd.policy.curve import MAX_CHUNK, Curve, attended
from rapidd.policy.mixed import MIN_SAMPLES, MIN_SUM, MixedLaw, MixedSample, fit_mixed
from rapidd.policy.profile import PromptWave
from rapidd.policy.waves import Filling

PRODUCTS = (5e-3, 8e-3, 12e-3, 23e-3)
ATTENTIONS = (0.0, 1e-3, 5e-3, 20e-3)
PARTS = list(product(PRODUCTS, ATTENTIONS, ATTENTIONS))
CURVE = Curve((16, 64, 512, 2048), (4e-3, 5e-3, 12e-3, 45e-3))
IN_TURN, SIDE_BY_SIDE = MixedLaw(1.0, 1.0, 0.0, 1e-4), MixedLaw(1.0, 0.0, 1.0, 1e-4)

weights = st.floats(0.0, 1.5)
laws = st.builds(MixedLaw, st.floats(0.5, 2.0), weights, weights, st.floats(0.0, 3e-3))
seconds = st.floats(0.0, 0.05)
waves = st.none() | st.builds(PromptWave, st.integers(1, 40), st.sampled_from([1, 4, 16, 64]))
fillings = st.builds(Filling, st.integers(0, 512), waves, st.integers(0, 64))
quick = settings(deadline=None, max_examples=100, derandomize=True)


def follow(law: MixedLaw, parts: list[tuple[float, float, float]]) -> list[MixedSample]:
    return [MixedSample(*part, law.at(*part)) for part in parts]


def test_attentions_take_their_sum_in_turn_and_the_longer_ones_time_side_by_side() -> None:
    assert IN_TURN.at(5e-3, 2e-3, 7e-3) == pytest.approx(14.1e-3)
    assert SIDE_BY_SIDE.at(5e-3, 2e-3, 7e-3) == SIDE_BY_SIDE.at(5e-3, 7e-3, 2e-3) == pytest.approx(12.1e-3)


@given(laws)
@quick
def test_a_law_is_found_in_samples_that_follow_it(law: MixedLaw) -> None:
    assume(law.both + law.longer > 0.01)
    assert fit_mixed(follow(law, PARTS)) == pytest.approx(law, abs=1e-4)


@pytest.mark.parametrize("law", [IN_TURN, SIDE_BY_SIDE])
def test_a_few_samples_of_every_regime_are_enough(law: MixedLaw) -> None:
    parts = [(5e-3, 0.0, 9e-3), (23e-3, 9e-3, 0.0), (8e-3, 4e-3, 4e-3), (12e-3, 3e-3, 6e-3), (9e-3, 5e-3, 2e-3)]
    parts.append((20e-3, 0.0, 0.0))
    assert len(parts) == MIN_SAMPLES
    assert fit_mixed(follow(law, parts)) == pytest.approx(law, abs=1e-4)


def test_without_samples_a_batch_takes_as_long_as_its_parts() -> None:
    assert fit_mixed(follow(SIDE_BY_SIDE, PARTS[: MIN_SUM - 1])) == MixedLaw(1.0, 1.0, 0.0, 0.0)


def test_few_samples_weigh_all_parts_alike() -> None:
    law = MixedLaw(1.2, 1.2, 0.0, 1e-3)
    assert fit_mixed(follow(law, PARTS[5 : 5 + MIN_SUM])) == pytest.approx(law, abs=1e-4)
    found = fit_mixed(follow(SIDE_BY_SIDE, PARTS[5 : 5 + MIN_SAMPLES - 1]))
    assert found.longer == 0.0
    assert found.products == found.both > 0.0


@pytest.mark.parametrize("shorter", [0.0, 1e-4])
def test_samples_of_one_attention_at_a_time_tell_of_no_overlap(shorter: float) -> None:
    """Sum and maximum are the same there: the longer prediction is the safer one."""
    parts = [(p, *pair) for p in PRODUCTS for pair in ((20e-3, shorter), (shorter, 20e-3))]
    assert fit_mixed(follow(SIDE_BY_SIDE, parts)).longer == 0.0


def test_samples_without_context_do_not_make_attention_free() -> None:
    """All that differs is noise of the products, which a weight of nearly nothing could take for anything."""
    samples = [MixedSample(p, 1e-6 * p, 1e-5, p * noise) for p in PRODUCTS for noise in (0.98, 1.0, 1.02)]
    law = fit_mixed(samples)
    assert law.both == law.products == pytest.approx(1.0, abs=0.05)


@given(laws, st.integers(0, 300), st.integers(0, 100_000), st.floats(0.0, 1e-7), fillings, seconds, seconds)
@quick
def test_the_longest_chunk_is_the_inverse_whichever_attention_is_the_longer(
    law: MixedLaw, rows: int, context: int, slope: float, filling: Filling, decode: float, limit: float
) -> None:
    def took(tokens: int) -> float:
        return law.at(CURVE.at(rows + tokens), slope * attended(tokens, context, filling), decode)

    found = law.longest(CURVE, rows, context, slope, filling, decode, limit)
    assert 0 <= found < MAX_CHUNK
    assert found == 0 or took(found) <= limit * (1 + 1e-9)
    assert took(found + 1) >= limit * (1 - 1e-9)


@given(laws, seconds, seconds, seconds, st.sampled_from([0, 1, 2]), seconds)
@quick
def test_no_part_that_takes_longer_makes_the_batch_shorter(
    law: MixedLaw, products: float, prompt: float, decode: float, which: int, more: float
) -> None:
    before = [products, prompt, decode]
    after = [part + more * (at == which) for at, part in enumerate(before)]
    assert law.at(*before) <= law.at(*after) * (1 + 1e-12)

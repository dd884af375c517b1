"""Sampling against float64 oracles written from the definitions, row by row."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rapidd.engine.sampling import SampledToken, SamplingRow, sample, uniform

VOCAB = 50


def random_logits(rows: int, seed: int = 0, vocab: int = VOCAB, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def one(logits: Tensor, row: SamplingRow, tokens: Tensor | None = None) -> SampledToken:
    return sample(logits[None], [row], tokens).to_host()[0]


def oracle_distribution(logits: Tensor, row: SamplingRow, history: list[int]) -> list[float]:
    """What is left of each token's probability after penalties, temperature, top-k, top-p and min-p."""
    scores = [float(value) for value in logits.tolist()]
    output = Counter(history[row.prompt_len : row.length])
    for token in set(history[: row.length]):
        penalty = row.repetition_penalty
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token, count in output.items():
        scores[token] -= row.presence_penalty + count * row.frequency_penalty
    for token in row.banned_ids:
        if token < len(scores):
            scores[token] = -math.inf
    best = max(scores)
    weights = [math.exp((score - best) / row.temperature) for score in scores]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    if row.top_k:
        order = order[: row.top_k]
    limit, mass, kept = row.top_p * sum(weights[token] for token in order), 0.0, []
    for token in order:
        if row.top_p < 1 and mass >= limit:
            break
        kept.append(token)
        mass += weights[token]
    kept = [token for token in kept if weights[token] >= row.min_p]
    total = sum(weights[token] for token in kept)
    return [weights[token] / total if token in kept else 0.0 for token in range(len(weights))]


def oracle_draw(distribution: list[float], number: float) -> tuple[int, float]:
    """The token whose share of [0, 1) holds the number, and how near the number is to the share's edge."""
    below = 0.0
    for token, probability in enumerate(distribution):
        if below <= number < below + probability:
            return token, min(number - below, below + probability - number)
        below += probability
    return -1, 0.0


sampling_rows = st.builds(
    SamplingRow,
    temperature=st.floats(0.2, 4),
    top_k=st.sampled_from([0, 0, 1, 3, 20, VOCAB, 10 * VOCAB]),
    top_p=st.sampled_from([1.0, 1.0, 0.99, 0.7, 0.1]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.7]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.8, -0.5]),
    seed=st.integers(0, 2**63 - 1),
    choice=st.integers(0, 15),
    banned_ids=st.sampled_from([(), (3, 7, 4_000_000_000)]),
    prompt_len=st.integers(0, 10),
    length=st.integers(10, 20),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(sampling_rows, min_size=1, max_size=4), st.integers(0, 10**6))
def test_rows_are_drawn_from_their_filtered_distribution(rows: list[SamplingRow], seed: int) -> None:
    logits = random_logits(len(rows), seed)
    tokens = torch.randint(0, VOCAB, (8, 20), generator=torch.Generator().manual_seed(seed)).int()
    placed = [SamplingRow(**fields_of(row) | {"slot": 7 - index}) for index, row in enumerate(rows)]
    for index, token in enumerate(sample(logits, placed, tokens).to_host()):
        row = placed[index]
        distribution = oracle_distribution(logits[index], row, tokens[row.slot].tolist())
        expected, margin = oracle_draw(distribution, uniform(row.seed, row.choice, row.length - row.prompt_len))
        assert not token.failed
        assert distribution[token.token_id] > 0
        if margin > 1e-6:
            assert token.token_id == expected


def fields_of(row: SamplingRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SamplingRow.__slots__}


@pytest.mark.parametrize("filters", [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.2}])
def test_frequencies_follow_the_distribution(filters: dict[str, Any]) -> None:
    """Pearson's chi-square over 4,000 positions of one seed, at a bound passed with probability 0.9999."""
    logits, count = random_logits(1, seed=3, vocab=12, scale=1.5), 4000
    rows = [SamplingRow(temperature=1.0, seed=11, length=position, **filters) for position in range(count)]
    drawn = Counter(token.token_id for token in sample(logits.expand(count, -1), rows).to_host())
    expected = oracle_distribution(logits[0], rows[0], [])
    assert {token for token, probability in enumerate(expected) if probability == 0}.isdisjoint(drawn)
    shares = [(drawn[token], probability * count) for token, probability in enumerate(expected) if probability]
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in shares)
    assert statistic < 39.1  # 0.9999 quantile for 11 degrees of freedom; fewer have less


def test_uniform_numbers_are_uniform_repeatable_and_distinct() -> None:
    numbers = [uniform(seed, choice, position) for seed in range(10) for choice in range(4) for position in range(50)]
    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) == len(numbers)
    assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.03)
    assert uniform(2**63 - 1, 15, 10_000_000) == uniform(2**63 - 1, 15, 10_000_000)
    # Pinned: a resumed request must go on with the numbers of an older build.
    assert uniform(1, 2, 3) == 0.751598403126188


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = [
        SamplingRow(temperature=0.9, seed=1),
        SamplingRow(),
        SamplingRow(temperature=1.2, top_p=0.9, seed=2),
        SamplingRow(temperature=0.7, top_k=4, min_p=0.1, seed=3, logprobs=2),
        SamplingRow(logprobs=5),
        SamplingRow(repetition_penalty=1.5, length=6, slot=2),
    ]
    tokens = torch.randint(0, VOCAB, (4, 8)).int()
    logits = random_logits(len(rows))
    together = sample(logits, rows, tokens).to_host()
    assert together == [one(logits[index], row, tokens) for index, row in enumerate(rows)]
    order = [5, 2, 0, 4, 1, 3]
    shuffled = sample(logits[order], [rows[index] for index in order], tokens).to_host()
    assert shuffled == [together[index] for index in order]


def test_greedy_takes_the_best() -> None:
    logits = random_logits(6)
    rows = [SamplingRow(), SamplingRow(temperature=1e-6), *[SamplingRow(top_k=1, temperature=5.0)] * 4]
    assert [token.token_id for token in sample(logits, rows).to_host()] == logits.argmax(-1).tolist()


def test_greedy_respects_penalties_and_bans() -> None:
    logits = torch.tensor([5.0, 4.0, 3.0, -1.0])
    tokens = torch.tensor([[0, 1, 1, 1]], dtype=torch.int32)
    history: dict[str, Any] = {"prompt_len": 1, "length": 4}
    assert one(logits, SamplingRow(banned_ids=[0])).token_id == 1
    # CTRL counts the prompt; presence and frequency count the output alone.
    assert one(logits, SamplingRow(repetition_penalty=2.0, **history), tokens).token_id == 2
    assert one(logits, SamplingRow(presence_penalty=9.0, **history), tokens).token_id == 0
    assert one(torch.tensor([2.0, 4.0, 3.0, -1.0]), SamplingRow(frequency_penalty=0.3, **history), tokens).token_id == 1
    assert one(torch.tensor([2.0, 4.0, 3.0, -1.0]), SamplingRow(frequency_penalty=0.4, **history), tokens).token_id == 2
    # Tokens past `length` are not history yet.
    assert one(logits, SamplingRow(presence_penalty=9.0, prompt_len=0, length=1), tokens).token_id == 1


def test_logprobs_are_of_the_model_s_own_distribution() -> None:
    logits = random_logits(3)
    rows = [
        SamplingRow(temperature=2.0, top_k=3, banned_ids=[int(logits[0].argmax())], seed=5, logprobs=4),
        SamplingRow(),
        SamplingRow(logprobs=0),
    ]
    tokens = sample(logits, rows).to_host()
    exact = logits.double().log_softmax(-1)
    for index in (0, 2):
        assert tokens[index].logprob == pytest.approx(float(exact[index, tokens[index].token_id]), abs=1e-5)
    assert tokens[0].top is not None
    assert [token for token, _ in tokens[0].top] == exact[0].topk(4).indices.tolist()
    assert [value for _, value in tokens[0].top] == pytest.approx(exact[0].topk(4).values.tolist(), abs=1e-5)
    assert (tokens[1].logprob, tokens[1].top) == (None, None)
    assert tokens[2].top == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "fields",
    [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}, {"temperature": 1.0, "top_k": 3}, {"logprobs": 2}],
)
def test_a_row_of_bad_logits_fails_alone(bad: float, fields: dict[str, Any]) -> None:
    logits = random_logits(3)
    good = sample(logits, [SamplingRow(**fields)] * 3).to_host()
    logits[1] = bad
    outcome = sample(logits, [SamplingRow(**fields)] * 3).to_host()
    assert [token.failed for token in outcome] == [False, True, False]
    assert [outcome[0], outcome[2]] == [good[0], good[2]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_logit_is_enough(temperature: float, bad: float) -> None:
    logits = random_logits(1)[0]
    logits[7] = bad
    assert one(logits, SamplingRow(temperature=temperature, top_p=0.9)).failed


def test_masked_logits_are_not_bad_ones() -> None:
    logits = torch.full((VOCAB,), -math.inf)
    logits[9] = 0.0
    assert one(logits, SamplingRow(temperature=1.0, top_p=0.9, min_p=0.1)) == SampledToken(9, failed=False)


def test_a_row_whose_every_token_is_banned_fails() -> None:
    assert one(torch.zeros(2), SamplingRow(banned_ids=[0, 1])).failed


def test_extreme_settings_stay_finite() -> None:
    logits = random_logits(4) * 1000
    rows = [
        SamplingRow(temperature=2e-5, seed=1),
        SamplingRow(temperature=100.0, seed=2),
        SamplingRow(temperature=1.0, top_p=1e-9, seed=3),
        SamplingRow(temperature=1.0, min_p=1.0, seed=4),
    ]
    outcome = sample(logits, rows).to_host()
    assert not any(token.failed for token in outcome)
    assert [outcome[i].token_id for i in (0, 2, 3)] == logits.argmax(-1)[[0, 2, 3]].tolist()


def test_logits_are_left_as_they_were() -> None:
    logits = random_logits(2)
    before = logits.clone()
    sample(logits, [SamplingRow(temperature=1.0, top_p=0.5, banned_ids=[1]), SamplingRow(banned_ids=[2])])
    assert torch.equal(logits, before)


def test_ties_at_a_filter_s_edge_are_kept() -> None:
    logits = torch.tensor([1.0, 2.0, 1.0, 0.0, 1.0])
    rows = [SamplingRow(temperature=1.0, top_k=2, seed=seed) for seed in range(200)]
    assert {token.token_id for token in sample(logits.expand(200, -1), rows).to_host()} == {0, 1, 2, 4}

"""Sampling of all rows at once against sampling row by row: the same ids, failures and log-probabilities."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidd.engine import device_sampling
from rapidd.engine.device_sampling import PASS_ROWS
from rapidd.engine.sampling import SamplingRow, sample

VOCAB, MAX_LEN, SLOTS = 50, 40, 8
_rows = st.builds(
    SamplingRow,
    slot=st.integers(0, SLOTS - 1),
    prompt_len=st.integers(1, 10),
    length=st.integers(10, MAX_LEN),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 49, 50, 99]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    seed=st.integers(0, 5),
    choice=st.integers(0, 2),
    banned_ids=st.sampled_from([(), (3,), (1, 2, 60)]),
    logprobs=st.sampled_from([None, 0, 4]),
)


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(_rows, min_size=1, max_size=2 * PASS_ROWS + 1), seed=st.integers(0, 99))
def test_all_rows_at_once_are_what_each_is_alone(rows: list[SamplingRow], seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(rows), VOCAB, generator=random) * 3
    logits[0, 7] = math.nan if seed % 3 == 0 else 1.0
    tokens = torch.randint(0, VOCAB, (SLOTS, MAX_LEN), generator=random, dtype=torch.int32)
    before = logits.clone()
    got = device_sampling.sample(logits, rows, tokens).to_host()
    assert torch.equal(logits.nan_to_num(99.0), before.nan_to_num(99.0))
    assert got == sample(logits, rows, tokens).to_host()

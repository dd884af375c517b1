"""How a GPU's kernels fill it with a prompt's attention, as a profile keeps it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rapidd.model.resolve import SHAPES
from rapidd.policy.profile import PromptWave

pytest.importorskip("triton", reason="the kernels' sizes need triton")

from rapidd.engine.gpu import prompt_wave_of

LLAMA_8B = SHAPES["llama-3.1-8b"]


def test_two_tiles_a_unit_of_all_kv_heads_and_the_tokens_that_fill_a_tile() -> None:
    assert prompt_wave_of(LLAMA_8B, 132) == PromptWave(33, 16)
    assert prompt_wave_of(replace(LLAMA_8B, num_kv_heads=32), 132) == PromptWave(8, 64)
    assert prompt_wave_of(replace(LLAMA_8B, num_heads=24), 132) == PromptWave(33, 16)  # three heads, padded to four


def test_none_where_tiles_are_not_cut_or_do_not_fit() -> None:
    assert prompt_wave_of(replace(LLAMA_8B, windows=(None, 4096)), 132) is None
    assert prompt_wave_of(LLAMA_8B, 3) is None

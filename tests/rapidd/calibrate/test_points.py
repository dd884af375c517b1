"""The batches that a calibration measures tell the coefficients of the cost model apart, also if its time runs out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from rapidd.calibrate.points import PROCESSOR, Chunk, Limits, Step, chunks, mixed, neighbours, steps
from rapidd.policy.curve import attended
from rapidd.policy.tiles import TILE_TOKENS, padded_rows, padded_total
from rapidd.policy.waves import Filling

H200 = Limits(max_rows=64, max_model_len=32768, max_chunk_tokens=2048, kv_blocks=14_617, block_tokens=64)
"""An 8B model's cache beside its weights."""
KV_S, PAIR_S = 2.86e-8, 1.16e-9
"""Of attention on that device: a cached token of a decode row, a query with a key of a chunk."""


def attention_s(step: Step, chunk: Chunk) -> tuple[float, float]:
    """Seconds of the chunk's and of the rows'."""
    return PAIR_S * attended(chunk.tokens, chunk.context, Filling(64)), KV_S * step.kv_tokens


def regimes(pairs: Iterable[tuple[Step, Chunk]]) -> list[str]:
    """Of each batch with any attention worth the name, which one is the longer."""
    found = []
    for pair in pairs:
        prompt, decode = attention_s(*pair)
        if max(prompt, decode) > 1e-3:
            found.append("prompt" if prompt > 4 * decode else "decode" if decode > 4 * prompt else "both")
    return found


def test_every_regime_is_measured_at_several_sizes() -> None:
    pairs = mixed(H200)
    assert len(pairs) == len(set(pairs)) == 48
    counts = {name: regimes(pairs).count(name) for name in ("prompt", "decode", "both")}
    assert min(counts.values()) >= 9, counts
    alike = [pair for pair in pairs if regimes([pair]) == ["both"]]
    assert {step.rows for step, _ in alike} == {16, 63}
    assert len({step.context for step, _ in alike}) >= 4
    assert len({chunk.tokens for _, chunk in alike}) >= 6
    assert len({chunk.context for _, chunk in alike}) >= 6


def test_the_whole_range_comes_first() -> None:
    """What time does not suffice for lies between."""
    first = mixed(H200)[:32]
    assert {chunk.context == 0 or chunk.context > 15_000 for _, chunk in first} == {True}
    assert {step.context for step, _ in first} == {64, 16_383, 11_135}
    assert regimes(first).count("both") >= 4


@pytest.mark.parametrize("max_rows", [64, 256])
def test_six_batches_show_what_rows_cost_and_what_contexts_cost(max_rows: int) -> None:
    """All short contexts came first, so that a split for which time sufficed for six batches had no long one."""
    limits = msgspec.structs.replace(H200, max_rows=max_rows)
    decode, prompts = steps(limits), chunks(limits)
    assert len(set(decode)) == len(decode)
    assert len(set(prompts)) == len(prompts)
    assert {step.rows for step in decode[:2]} == {1, max_rows}
    assert len({step.context for step in decode[:6] if step.rows == 1}) > 1
    assert len({step.rows for step in decode[:6]}) > 2
    assert len({chunk.tokens for chunk in prompts[:6]}) >= 4
    assert len({chunk.context for chunk in prompts[:6] if chunk.tokens == 16}) > 1
    contexts = {chunk.context for chunk in prompts[:6] if chunk.tokens == 256}
    assert contexts == {0, 16_128}, "16 tokens alone told a split what contexts cost chunks of a thousand"


@pytest.mark.parametrize("max_rows", [2, 16, 64, 256])
def test_batches_fill_whole_tiles_and_fit_in_the_cache(max_rows: int) -> None:
    limits = msgspec.structs.replace(H200, max_rows=max_rows)
    for step, chunk in mixed(limits):
        total = padded_rows(step.rows) + chunk.tokens
        assert total == padded_total(total) or total < TILE_TOKENS or chunk.tokens == TILE_TOKENS
        assert step.rows < max_rows
        assert step.kv_tokens + chunk.context + chunk.tokens <= limits.kv_blocks * limits.block_tokens


def test_a_cache_too_small_for_contexts_between_has_only_corners() -> None:
    pairs = mixed(msgspec.structs.replace(H200, max_rows=4, kv_blocks=8, max_model_len=128))
    assert pairs
    assert len(pairs) == len(set(pairs))


def test_on_a_processor_few_tokens_come_behind_a_short_context_too_and_few_rows_in_more_numbers() -> None:
    """Behind long ones alone 16 tokens were held back 45 % off: what attention of these is no line in was theirs."""
    limits = msgspec.structs.replace(H200, max_rows=64, max_chunk_tokens=512, grid=PROCESSOR)
    behind = {tokens: {chunk.context for chunk in chunks(limits) if chunk.tokens == tokens} for tokens in (16, 64, 256)}
    assert 256 in behind[16] & behind[64]
    assert 256 not in behind[256]
    assert {step.rows for step in steps(limits)} == {1, 4, 8, 16, 32, 64}
    assert {chunk.tokens for _, chunk in mixed(limits)} <= {48, 64, 240, 256}


@pytest.mark.parametrize(("max_rows", "between"), [(256, [16, 64, 96]), (64, [16]), (1, [])])
def test_steps_of_every_kind_of_kernel_share_all_units_with_chunks(max_rows: int, between: list[int]) -> None:
    """With those of one and of 256 rows alone 64 rows beside prompts were taken for a quarter of the way between."""
    ends = sorted({1, max_rows})
    found = neighbours(msgspec.structs.replace(H200, max_rows=max_rows))
    light, heavy = [(rows, False) for rows in ends], [(rows, True) for rows in ends]
    shared = [(one.step.rows, one.step.context > 64) for one in found if one.shared]
    assert shared == [*light, *heavy, *((rows, False) for rows in between)]
    assert [(one.step.rows, one.step.context > 64) for one in found if one.split] == light + heavy
    assert not any(one.shared for one in found[-len(ends) :]), "what is left out first"

"""The default model, from its GGUF file to greedy tokens, against tokens that transformers produced in float32."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rapid_kernels import make_ragged
from rapidd.model.llama import Llama
from rapidd.model.resolve import ModelFiles, load_spec
from rapidd.model.weights import open_weights

BLOCK_TOKENS = 16
DECISIVE = 0.01
"""Cases whose top two logits never come closer than this must match exactly; below it float32 sums may differ."""

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "data" / "smollm2_golden_fp32.json").read_text())[
    "cases"
]


def greedy(model: Llama, prompts: list[list[int]], lengths: list[int]) -> tuple[list[list[int]], list[Tensor]]:
    """``lengths[r]`` greedy tokens after each prompt, all rows in one batch, and the logits behind them.

    Rows are prefilled together, then decoded a token at a time; a row that is done leaves the batch.
    """
    width = max(len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)) // BLOCK_TOKENS + 1
    tables = [list(range(1 + row * width, 1 + (row + 1) * width)) for row in range(len(prompts))]
    cache = model.kernels.allocate_cache(model.cache_layout(1 + len(prompts) * width, BLOCK_TOKENS), model.device)
    outputs: list[list[int]] = [[] for _ in prompts]
    logits: list[list[Tensor]] = [[] for _ in prompts]
    new = [list(prompt) for prompt in prompts]
    while rows := [row for row, length in enumerate(lengths) if len(outputs[row]) < length]:
        ragged = make_ragged(
            [len(new[row]) for row in rows],
            [len(prompts[row]) + len(outputs[row]) for row in rows],
            [tables[row] for row in rows],
            BLOCK_TOKENS,
            units=1,
        )
        ids = torch.tensor([token_id for row in rows for token_id in new[row]])
        last = ragged.query_start[1:].long() - 1
        for row, scores in zip(rows, model.forward(ids, ragged, cache, last), strict=True):
            logits[row].append(scores)
            new[row] = [int(scores.argmax())]
            outputs[row] += new[row]
    return outputs, [torch.stack(scores) for scores in logits]


@pytest.fixture(scope="module")
def generated(default_gguf: Path) -> tuple[list[list[int]], list[Tensor]]:
    files = ModelFiles("gguf", default_gguf)
    spec = load_spec(files)
    model = Llama(spec, open_weights(files, spec), torch.float32, max_positions=256)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other by spinning are 6 times slower where cores are shared
    try:
        return greedy(model, [case["prompt_ids"] for case in CASES], [len(case["greedy_ids"]) for case in CASES])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case["prompt"] for case in CASES])
def test_greedy_tokens_equal_the_recorded_ones(generated: tuple[list[list[int]], list[Tensor]], index: int) -> None:
    ids, logits = generated[0][index], generated[1][index]
    expected = CASES[index]["greedy_ids"]
    if CASES[index]["smallest_top1_top2_logit_gap"] > DECISIVE:
        assert ids == expected
        return
    differing = [at for at, (ours, theirs) in enumerate(zip(ids, expected, strict=True)) if ours != theirs]
    if differing:
        first = differing[0]
        assert logits[first, ids[first]] - logits[first, expected[first]] < DECISIVE


def test_the_smallest_gaps_are_those_recorded(generated: tuple[list[list[int]], list[Tensor]]) -> None:
    """Says more than equal tokens: a wrong norm epsilon or rope base keeps many tokens and moves every gap."""
    for case, ids, logits in zip(CASES, *generated, strict=True):
        if ids == case["greedy_ids"]:
            top = logits.topk(2).values
            assert float((top[:, 0] - top[:, 1]).min()) == pytest.approx(case["smallest_top1_top2_logit_gap"], abs=2e-3)

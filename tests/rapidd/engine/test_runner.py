"""The runner: the token table carries ids between batches, sampling sees the whole sequence, errors stay in results."""

from array import array
from functools import cache

import pytest
import torch

from rapidd.engine.batch import Batch, Row
from rapidd.engine.request import Request, SamplingParams
from support.tiny import TinyEngine

PROMPT = [1, 403, 407, 261, 378]


@cache
def engine() -> TinyEngine:
    return TinyEngine()


def generate(sampling: SamplingParams, max_output: int = 16) -> list[int]:
    tiny = engine()
    tiny.reset()
    (outcomes,) = tiny.generate([PROMPT], tiny.plans()["hybrid"], max_output, sampling)
    return [outcome.token_id for outcome in outcomes]


def test_stop_ids_end_the_output_but_not_among_its_first_min_tokens() -> None:
    free = generate(SamplingParams())
    stop = free[3]
    assert generate(SamplingParams(stop_ids=frozenset([stop]))) == free[: free.index(stop) + 1]
    later = generate(SamplingParams(stop_ids=frozenset([stop]), min_tokens=8))
    assert len(later) > 8
    assert stop not in later[:8]


def test_a_repetition_penalty_looks_at_what_the_prefix_cache_spared() -> None:
    """The first chunk after a prefix hit must bring the cached prompt ids to the token table, too."""
    tiny = engine()
    tiny.reset()
    prompt = [1] + [403, 407, 261, 378] * 12
    sampling = SamplingParams(repetition_penalty=5.0)
    plan = tiny.plans()["hybrid"]
    first, second = ([outcome.token_id for outcome in tiny.generate([prompt], plan, 12, sampling)[0]] for _ in range(2))
    assert tiny.scheduler.prefix_hits == 48
    assert first == second
    assert not set(first) & set(prompt)


def test_a_frequency_penalty_counts_output_that_was_sampled_on_the_device() -> None:
    assert len(set(generate(SamplingParams(frequency_penalty=100.0), 40))) == 40


def test_seed_and_choice_decide_the_sample() -> None:
    def sampled(seed: int, choice: int) -> list[int]:
        return generate(SamplingParams(temperature=1.0, seed=seed, choice=choice))

    assert sampled(1, 0) == sampled(1, 0)
    assert len({tuple(sampled(seed, choice)) for seed in (1, 2) for choice in (0, 1)}) == 4


def test_logprobs_are_reported_for_rows_that_asked() -> None:
    tiny = engine()
    tiny.reset()
    (outcomes,) = tiny.generate([PROMPT], tiny.plans()["hybrid"], 4, SamplingParams(logprobs=3))
    for outcome in outcomes:
        assert outcome.logprob is not None
        chosen, top = outcome.logprob
        assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
        assert top[0] == (outcome.token_id, chosen)
        assert len(top) == 3
        assert chosen < 0


def test_an_error_is_part_of_the_result() -> None:
    request = Request(1, array("I", PROMPT), array("I"), max_output=4, sampling=SamplingParams())
    missing_blocks = Row(request, 0, 1, 0, 5, [], True, 0, array("I", PROMPT), 5, request.sampling)
    result = engine().runner.run(Batch(1, "decode", 1, "hybrid", [missing_blocks], 0, 5, 0))
    assert isinstance(result.error, ValueError)
    assert result.ended_ns >= result.started_ns


def test_a_row_with_broken_logits_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = engine()
    tiny.reset()
    whole = tiny.model.forward

    def broken(*arguments: object, **more: object) -> torch.Tensor:
        logits = whole(*arguments, **more)  # type: ignore[arg-type]
        logits[0, 0] = float("nan")
        return logits

    requests = [Request(rid, array("I", PROMPT), array("I"), max_output=1, sampling=SamplingParams()) for rid in (1, 2)]
    rows = [
        Row(request, 0, slot, 0, 5, [slot], True, 0, array("I", PROMPT), 5, request.sampling)
        for slot, request in enumerate(requests, start=1)
    ]
    wanted = generate(SamplingParams(), 1)
    monkeypatch.setattr(tiny.model, "forward", broken)
    result = tiny.runner.run(Batch(1, "decode", 1, "hybrid", rows, 0, 10, 0))
    assert result.error is None
    assert result.failed == [0]
    assert result.token_ids[1:] == wanted

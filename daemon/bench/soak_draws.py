"""What a soak's sampled tokens should have been: drawn again from the reference's logits, with each request's seed.

A token depends on the logits, on all tokens before it where there are penalties, and on one number, which is a function
of seed, choice and position: neither batches nor preemptions may change it. In float32 that holds to the last token,
but for draws between two. In 16 bits it does not: their logits make other distributions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from bench.soak_checks import Record
from bench.teacher import Teacher
from rapidctl.wire import Sampling, TokenLogprob
from rapidd.engine.request import SamplingParams
from rapidd.engine.sampling import SampledToken, SamplingRow, sample

NOISE: Final = 1e-4
"""Of logits in float32, by which a draw may change sides."""
TRIES: Final = 8
"""Draws with such noise; a token that none of them gives is wrong."""
LOGPROB_ERROR: Final = 1e-3
"""That a log-probability in float32 may have."""


@dataclass(slots=True)
class Drawn:
    """``wrong``: sentences, one a token or log-probability. ``uncertain``: tokens that noise explains."""

    tokens: int = 0
    uncertain: int = 0
    logprobs: int = 0
    worst_logprob_error: float = 0.0
    wrong: list[str] = field(default_factory=list)


def draw_again(teacher: Teacher, records: Sequence[Record]) -> Drawn:
    """Every token that was not simply the most likely one, and every log-probability that was asked for."""
    drawn = Drawn()
    for record in records:
        if record.greedy and record.request.sampling.logprobs is None:
            continue
        for choice, output in enumerate(record.outputs):
            if output:
                _compare(record, choice, teacher.logits(record.prompt, output), drawn)
    return drawn


def _compare(record: Record, choice: int, logits: Tensor, drawn: Drawn) -> None:
    output, said = record.outputs[choice], record.logprobs[choice]
    asked, prompt_len = record.request.sampling, len(record.prompt)
    rows = [drawn_row(asked, prompt_len, index, choice=choice) for index in range(len(output))]
    history = torch.tensor([[*record.prompt, *output]], dtype=torch.int32)
    expected = sample(logits, rows, history).to_host()
    drawn.tokens += len(output)
    for index, (token, wanted) in enumerate(zip(output, expected, strict=True)):
        if token != wanted.token_id:
            if _noise_gives(token, logits[index], rows[index], history):
                drawn.uncertain += 1
                continue
            what = f"is {token}, drawn again it is {wanted.token_id}"
            drawn.wrong.append(_sentence(record, choice, index, what))
        elif wanted.top is not None:
            _compare_logprobs(record, choice, index, said[index] if index < len(said) else None, wanted, drawn)


def drawn_row(asked: Sampling | SamplingParams, prompt_len: int, index: int, **more: Any) -> SamplingRow:
    """How output token ``index`` of a request alone was chosen; ``more``: what is not the same for all its tokens."""
    return SamplingRow(
        prompt_len=prompt_len,
        length=prompt_len + index,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        seed=asked.seed or 0,
        logprobs=asked.logprobs,
        **more,
    )


def _noise_gives(token: int, logits: Tensor, row: SamplingRow, history: Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    noisy = logits + NOISE * torch.randn((TRIES, len(logits)), generator=generator)
    return token in [drawn.token_id for drawn in sample(noisy, [row] * TRIES, history).to_host()]


def _compare_logprobs(
    record: Record, choice: int, index: int, said: TokenLogprob | None, wanted: SampledToken, drawn: Drawn
) -> None:
    assert wanted.logprob is not None
    assert wanted.top is not None
    if said is None or len(said.top) != len(wanted.top):
        drawn.wrong.append(_sentence(record, choice, index, "has no log-probabilities, or not as many as asked for"))
        return
    # By rank: two alternatives as likely as each other may change places.
    ranks = [(have, want) for (_, have), (_, want) in zip(said.top, wanted.top, strict=True)]
    error = max(abs(have - want) for have, want in [(said.logprob, wanted.logprob), *ranks])
    drawn.logprobs += 1
    drawn.worst_logprob_error = max(drawn.worst_logprob_error, error)
    if not error <= LOGPROB_ERROR:
        drawn.wrong.append(_sentence(record, choice, index, f"has log-probabilities that are {error:.2g} off"))


def _sentence(record: Record, choice: int, index: int, what: str) -> str:
    where = f"{record.request.id} (sent under {record.plan}, prompt of {len(record.prompt)})"
    return f"{where}: choice {choice}, token {index + 1} of {len(record.outputs[choice])} {what}"

"""`sampling.sample` for a GPU: the same choices by operations over all rows at once, without waiting for the device.

What differs between rows travels as columns of one matrix in one copy; a filter that a row does not use is one that
keeps everything. Rows are taken `PASS_ROWS` at a time, which bounds the memory of sorting vocabularies. Definitions,
order of the filters and random numbers are those of `rapidd.engine.sampling`, against which it is tested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rapidd.engine.sampling import Sampled, SamplingRow, uniform
from rapidd.engine.staging import upload

PASS_ROWS: Final = 16
"""A pass needs about 60 bytes for each token of the vocabulary and row: 130 MB for 16 rows of 128K."""
MOST_TOP_K: Final = 1024
"""Up to here the best k are picked out; for more, or for top-p alone, the whole vocabulary is sorted."""


class _Columns:
    """Parameters of the rows of a pass, [rows, 1] each: float64, as the definitions are."""

    def __init__(self, rows: Sequence[SamplingRow], vocab_size: int, device: torch.device) -> None:
        values = np.array([_parameters(row, vocab_size) for row in rows], np.float64)
        where = np.array([(row.slot, row.prompt_len, row.length, row.greedy) for row in rows], np.int64)
        banned = np.array(
            [
                index * vocab_size + token
                for index, row in enumerate(rows)
                for token in row.banned_ids
                if token < vocab_size
            ],
            np.int64,
        )
        columns, integers, self.banned = upload((values, where, banned), device)
        self.temperature, self.top_k, self.top_p, self.lowest, self.number, *penalties = columns[:, :, None].unbind(1)
        self.repetition, self.presence, self.frequency = (column.float() for column in penalties)
        self.slots = integers[:, 0]
        self.prompt_len, self.length, self.greedy = (integers[:, index : index + 1] for index in (1, 2, 3))


def _parameters(row: SamplingRow, vocab_size: int) -> tuple[float, ...]:
    """Temperature, top-k, top-p, least score by min-p, random number, then the three penalties."""
    return (
        1.0 if row.greedy else row.temperature,
        row.top_k if 0 < row.top_k < vocab_size else vocab_size,
        row.top_p,
        math.log(row.min_p) if row.min_p > 0 else -math.inf,
        0.0 if row.greedy else uniform(row.seed, row.choice, row.length - row.prompt_len),
        row.repetition_penalty,
        row.presence_penalty,
        row.frequency_penalty,
    )


def sample(logits: Tensor, rows: Sequence[SamplingRow], tokens: Tensor) -> Sampled:
    """As `sampling.sample`: logits [S, V] float32 are not modified, tokens [slots, max_len] int32 are the histories."""
    best, ids = logits.max(-1)
    failed = ~best.isfinite()
    if any(not row.greedy or row.penalised or row.banned_ids for row in rows):
        for start in range(0, len(rows), PASS_ROWS):
            part = slice(start, start + PASS_ROWS)
            new_ids, new_failed = _sample_pass(logits[part].clone(), rows[part], tokens)
            ids[part] = new_ids
            failed[part] |= new_failed
    ids.masked_fill_(failed, 0)
    asked = tuple((i, row.logprobs) for i, row in enumerate(rows) if row.logprobs is not None)
    return Sampled(ids, failed, asked, *_logprobs(logits, ids, asked))


def _sample_pass(scores: Tensor, rows: Sequence[SamplingRow], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [M] int64 and failures [M]; ``scores`` [M, V] is overwritten."""
    columns = _Columns(rows, scores.shape[1], scores.device)
    if any(row.penalised for row in rows):
        _penalise(scores, columns, tokens[columns.slots, : max(row.length for row in rows)].long())
    if len(columns.banned):
        scores.view(-1).index_fill_(0, columns.banned, -math.inf)
    best, ids = scores.max(-1, keepdim=True)
    failed = ~best.isfinite()
    if not all(row.greedy for row in rows):
        scores.sub_(best).div_(columns.temperature.float())
        _filter(scores, columns, rows)
        ids = torch.where(columns.greedy.bool(), ids, _draw(scores, columns.number))
    return ids.squeeze(1), failed.squeeze(1)


def _penalise(scores: Tensor, columns: _Columns, history: Tensor) -> None:
    """Penalties of each row, in place. history [M, longest] int64; what is behind a row's length is not its own."""
    place = torch.arange(history.shape[1], device=history.device)
    nobody = scores.shape[1]
    seen = torch.zeros((len(scores), nobody + 1), dtype=torch.bool, device=scores.device)
    seen.scatter_(1, history.masked_fill(place >= columns.length, nobody), True)
    penalised = torch.where(scores > 0, scores / columns.repetition, scores * columns.repetition)
    scores.copy_(torch.where(seen[:, :nobody], penalised, scores))
    output = history.masked_fill((place < columns.prompt_len) | (place >= columns.length), nobody)
    counts = torch.zeros((len(scores), nobody + 1), device=scores.device)
    counts = counts.scatter_add_(1, output, torch.ones_like(output, dtype=counts.dtype))[:, :nobody]
    scores.sub_(counts * columns.frequency + (counts > 0) * columns.presence)


def _filter(scores: Tensor, columns: _Columns, rows: Sequence[SamplingRow]) -> None:
    """Top-k, then top-p, then min-p, in place; the highest score of each row is 0."""
    vocab_size = scores.shape[1]
    random = [row for row in rows if not row.greedy]
    if not any(row.top_k or row.top_p < 1 or row.min_p for row in random):
        return
    lowest = columns.lowest.float()
    chosen = [row for row in random if 0 < row.top_k < vocab_size or row.top_p < 1]
    if chosen:
        if all(0 < row.top_k <= min(MOST_TOP_K, vocab_size - 1) for row in chosen):
            ordered = scores.topk(max(row.top_k for row in chosen)).values
        else:
            ordered = scores.sort(descending=True).values
        lowest = torch.maximum(lowest, _nucleus(ordered, columns, vocab_size))
    scores.masked_fill_(scores < lowest, -math.inf)


def _nucleus(ordered: Tensor, columns: _Columns, vocab_size: int) -> Tensor:
    """Least score [M, 1] that top-k and top-p keep, of the best scores in descending order.

    Rows with neither keep everything, also what is not among ``ordered``.
    """
    top_k = columns.top_k.long()
    rank = torch.arange(ordered.shape[1], device=ordered.device)
    mass = ordered.exp().masked_fill_(rank >= top_k, 0.0).cumsum(1, dtype=torch.float64)
    # A token is kept while the mass before it is under the limit, so the best one always is.
    last = (mass < columns.top_p * mass[:, -1:]).sum(1, keepdim=True)
    last = torch.where(columns.top_p < 1, torch.minimum(last, top_k - 1), top_k - 1)
    lowest = ordered.gather(1, last.clamp(max=ordered.shape[1] - 1))
    return lowest.masked_fill((columns.top_p >= 1) & (top_k >= vocab_size), -math.inf)


def _draw(scores: Tensor, numbers: Tensor) -> Tensor:
    """Ids [M, 1] by the inverse of the cumulative distribution; ``scores`` is overwritten."""
    cumulative = scores.exp_().cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # Rounding up to the total would fall off the end of the distribution.
    target = torch.minimum(numbers * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=scores.shape[1] - 1)


def _logprobs(
    logits: Tensor, ids: Tensor, asked: tuple[tuple[int, int], ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Chosen, top ids and top values of the rows that asked."""
    if not asked:
        return None, None, None
    (index,) = upload((np.array([row for row, _ in asked], np.int64),), logits.device)
    distribution = logits[index].log_softmax(-1)
    top = distribution.topk(min(max(count for _, count in asked), logits.shape[1]), dim=-1)
    return distribution.gather(1, ids[index, None]).squeeze(1), top.indices, top.values

"""Choosing the next token of each row from its logits.

Each row is sampled as if it were alone: penalties, then temperature, top-k, top-p, min-p, each over what the one
before left, then the inverse of the cumulative distribution in token-id order at one uniform number. That number is
a function of (seed, choice, output position) computed on the host, so a row's token depends neither on its
neighbours nor on what was sampled before. Tokens tied with the last one that a filter keeps are kept too.
Knows no requests and no stop conditions; the caller keeps the table of token histories.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them would overflow float32."""


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """How one row's next token is chosen. Names and ranges as in `rapidctl.wire.Sampling`."""

    slot: int = 0
    """Row of the token table that holds this sequence."""
    prompt_len: int = 0
    length: int = 0
    """Tokens of the sequence so far, prompt and output."""
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    choice: int = 0
    banned_ids: Sequence[int] = ()
    """Ids that may not come now (end and stop tokens under min_tokens); ids outside the vocabulary are ignored."""
    logprobs: int | None = None
    """Alternatives to report beside the chosen token; None: report nothing."""

    @property
    def greedy(self) -> bool:
        """No random number is needed."""
        return self.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        """The history is needed."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One row's outcome on the host. ``failed``: its logits were not finite and the id means nothing.

    ``logprob`` and ``top`` (id, log-probability; best first) are of the model's own distribution: natural logarithm,
    before penalties, temperature and filters.
    """

    token_id: int
    failed: bool
    logprob: float | None = None
    top: list[tuple[int, float]] | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """Outcome of `sample`, still on the device."""

    ids: Tensor
    """[S] int64; 0 where failed."""
    failed: Tensor
    """[S] bool."""
    logprob_rows: tuple[tuple[int, int], ...]
    """(row, how many alternatives) of the rows that asked, in the order of the tensors below."""
    logprobs: Tensor | None
    """[asked] float32: of the chosen ids."""
    top_ids: Tensor | None
    """[asked, most alternatives] int64."""
    top_logprobs: Tensor | None
    """[asked, most alternatives] float32."""

    def to_host(self) -> list[SampledToken]:
        """Wait for the device and give plain values."""
        tokens = [SampledToken(*pair) for pair in zip(self.ids.tolist(), self.failed.tolist(), strict=True)]
        if self.logprobs is not None and self.top_ids is not None and self.top_logprobs is not None:
            chosen, ids, values = self.logprobs.tolist(), self.top_ids.tolist(), self.top_logprobs.tolist()
            for index, (row, count) in enumerate(self.logprob_rows):
                if not tokens[row].failed:
                    top = list(zip(ids[index][:count], values[index][:count], strict=True))
                    tokens[row] = SampledToken(tokens[row].token_id, False, chosen[index], top)
        return tokens


def uniform(seed: int, choice: int, position: int) -> float:
    """The random number in [0, 1) of an output position: the first 53 bits of BLAKE2b over the three as u64.

    A counter function (Salmon et al., SC 2011): no state to keep, journal or restore.
    """
    counter = b"".join(value.to_bytes(8, "little") for value in (seed, choice, position))
    digest = hashlib.blake2b(counter, digest_size=8, person=b"rapid-sample").digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def sample(logits: Tensor, rows: Sequence[SamplingRow], tokens: Tensor | None = None) -> Sampled:
    """Choose one token a row. logits [S, V] float32 is not modified.

    tokens [slots, max_len] int32 is the table of histories, prompt then output; needed by rows with penalties only.
    A row whose logits (or penalised logits) hold NaN or +inf, or nothing but -inf, fails alone.
    """
    with torch.inference_mode():
        best, ids = logits.max(-1)
        failed = ~best.isfinite()
        changed = [i for i, row in enumerate(rows) if not row.greedy or row.penalised or row.banned_ids]
        if changed:
            index = torch.tensor(changed, device=logits.device)
            new_ids, new_failed = _sample_changed(logits[index], [rows[i] for i in changed], tokens)
            ids[index] = new_ids
            failed[index] |= new_failed
        ids.masked_fill_(failed, 0)
        asked = tuple((i, row.logprobs) for i, row in enumerate(rows) if row.logprobs is not None)
        return Sampled(ids, failed, asked, *_logprobs(logits, ids, asked))


def _sample_changed(logits: Tensor, rows: list[SamplingRow], tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Ids and failures of rows that are not plain greedy. ``logits`` is a copy and is overwritten."""
    for scores, row in zip(logits, rows, strict=True):
        if row.penalised:
            assert tokens is not None, "rows with penalties need the table of histories"
            _penalise(scores, row, tokens[row.slot])
        if row.banned_ids:
            banned = [token for token in row.banned_ids if token < scores.shape[0]]
            scores[banned] = -math.inf
    best, ids = logits.max(-1, keepdim=True)
    failed = ~best.isfinite().squeeze(-1)
    ids = ids.squeeze(-1)
    random = [i for i, row in enumerate(rows) if not row.greedy]
    if random:
        index = torch.tensor(random, device=logits.device)
        ids[index] = _draw(logits[index] - best[index], [rows[i] for i in random])
    return ids, failed


def _penalise(scores: Tensor, row: SamplingRow, history: Tensor) -> None:
    """Penalties of one row, in place on scores [V]; a token that occurs twice is written twice with one value."""
    if row.repetition_penalty != 1.0:
        seen = history[: row.length].long()
        values = scores[seen]
        penalty = row.repetition_penalty
        scores[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if row.presence_penalty != 0.0 or row.frequency_penalty != 0.0:
        output = history[row.prompt_len : row.length].long()
        counts = torch.zeros_like(scores).index_add_(0, output, torch.ones_like(output, dtype=scores.dtype))
        scores.sub_(counts * row.frequency_penalty + (counts > 0) * row.presence_penalty)


def _draw(scores: Tensor, rows: list[SamplingRow]) -> Tensor:
    """Ids [M] from scores [M, V] whose largest is 0 in every row (NaN in a row makes its id meaningless, not wrong)."""

    scores = scores / torch.tensor([[row.temperature] for row in rows], device=scores.device)
    for kept, row in zip(scores, rows, strict=True):
        if row.top_k or row.top_p < 1 or row.min_p:
            kept.masked_fill_(kept < _threshold(kept, row), -math.inf)
    cumulative = scores.exp_().cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # Output position counts from 0. Rounding up to the total would fall off the end of the distribution.
    numbers = [[uniform(row.seed, row.choice, row.length - row.prompt_len)] for row in rows]
    target = torch.tensor(numbers, dtype=torch.float64, device=scores.device) * total
    target = torch.minimum(target, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_(max=scores.shape[1] - 1)


def _threshold(scores: Tensor, row: SamplingRow) -> Tensor:
    """Least score that the row's top-k, then top-p, then min-p keep. scores [V], the largest is 0."""
    lowest = torch.tensor(math.log(row.min_p) if row.min_p > 0 else -math.inf, device=scores.device)
    values = scores
    if 0 < row.top_k < len(scores):
        values = scores.topk(row.top_k).values
        lowest = torch.maximum(lowest, values[-1])
    if row.top_p < 1:
        lowest = torch.maximum(lowest, _nucleus(values, row.top_p))
    return lowest


def _nucleus(values: Tensor, top_p: float) -> Tensor:
    """Least of the highest scores that together hold ``top_p`` of the weight (arXiv 1904.09751)."""
    weights = values.exp()
    limit = top_p * weights.sum(dtype=torch.float64)
    # Tokens under this weight are less than 1 - top_p together: the limit is reached before them. Sorting what is
    # left, some hundred tokens of a peaked distribution, is many times cheaper than sorting a vocabulary.
    candidates = values[~(weights < (1 - top_p) * weights.sum() / len(values))].sort(descending=True).values
    mass = candidates.exp().cumsum(0, dtype=torch.float64)
    # A token is kept while the mass before it is under the limit, so the best one always is.
    return candidates[torch.searchsorted(mass, limit).clamp_(max=len(candidates) - 1)]


def _logprobs(
    logits: Tensor, ids: Tensor, asked: tuple[tuple[int, int], ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Chosen, top ids and top values of the rows that asked."""
    if not asked:
        return None, None, None
    index = torch.tensor([row for row, _ in asked], device=logits.device)
    distribution = logits[index].log_softmax(-1)
    top = distribution.topk(min(max(count for _, count in asked), logits.shape[1]), dim=-1)
    chosen = distribution.gather(1, ids[index, None]).squeeze(1)
    return chosen, top.indices, top.values

"""Teacher forcing: what a plain run of the same model, in float32, thinks of tokens that a daemon emitted.

Plain torch without packed weights, one forward pass over a whole sequence at a time of its own KV cache: it shares
neither kernels nor scheduling, caching or batching with what it judges. Knows no daemon and no client.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch

from rapid_kernels import make_ragged
from rapid_kernels.reference import ReferenceKernels
from rapidd.config import ModelConfig
from rapidd.engine.build import DTYPES
from rapidd.model.llama import Llama
from rapidd.model.resolve import load_model
from rapidd.model.weights import open_weights

Forced = tuple[Sequence[int], Sequence[int]]
"""Prompt and output, neither of them empty."""
TOKENS_A_PASS = 8192
LOGITS_A_PASS = 1 << 27
"""Bounds of one forward pass: activations, and 512 MiB of logits."""


EMBEDDING = "model.embed_tokens.weight"


class Teacher:
    """The model in a folder or .gguf file, in ``dtype`` on ``device``. Raises `ModelError`.

    ``nudge``: a seed by which the token embeddings are off by up to a unit in ``dtype``'s last place. All that follows
    is rounded otherwise then, as it may be by other kernels of that type.
    """

    def __init__(
        self, model: str, device: str, max_positions: int, dtype: str = "float32", nudge: int | None = None
    ) -> None:
        loaded = load_model(ModelConfig(path=model))
        assert loaded.weights is not None
        weights = open_weights(loaded.weights, loaded.spec)
        self._model = Llama(
            loaded.spec,
            weights if nudge is None else _nudged(weights, DTYPES[dtype], nudge),
            DTYPES[dtype],
            device=device,
            max_positions=max_positions,
            kernels=ReferenceKernels(pack=False),
        )

    def shortfalls(self, sequences: Sequence[Forced]) -> Iterator[list[float]]:
        """Of each sequence and each output token: the highest logit at its place less its own; inf if not finite."""
        for group in self._groups(sequences):
            logits = self._logits(group)
            tokens = _tensor([token for _, output in group for token in output], self._model)
            yield from _by_sequence(logits.amax(1) - logits.gather(1, tokens[:, None])[:, 0], group)

    def deviations(self, other: "Teacher", sequences: Sequence[Forced]) -> Iterator[list[float]]:
        """Of each sequence and each output place: the largest difference between two models' logits; inf as above."""
        for group in self._groups(sequences):
            yield from _by_sequence((self._logits(group) - other._logits(group)).abs().amax(1), group)

    def logits(self, prompt: Sequence[int], output: Sequence[int]) -> torch.Tensor:
        """[output tokens, vocab_size] float32 on the CPU: what was known when each was chosen."""
        return self._logits([(prompt, output)]).cpu()

    def _logits(self, group: Sequence[Forced]) -> torch.Tensor:
        """[output tokens of all, vocab_size] float32: what was known when each was chosen."""
        model = self._model
        # The last output token is nobody's input.
        lens = [len(prompt) + len(output) - 1 for prompt, output in group]
        ids = [token for prompt, output in group for token in (*prompt, *output[:-1])]
        block = max(lens)
        cache = model.kernels.allocate_cache(model.cache_layout(len(group) + 1, block), model.device)
        ragged = make_ragged(lens, lens, [[row + 1] for row in range(len(group))], block, 1, model.device)
        ends = ragged.query_start_cpu[1:]
        rows = [row for end, (_, output) in zip(ends, group, strict=True) for row in range(end - len(output), end)]
        return model.forward(_tensor(ids, model), ragged, cache, _tensor(rows, model))

    def _groups(self, sequences: Sequence[Forced]) -> Iterator[list[Forced]]:
        return _groups(sequences, self._model.spec.vocab_size)


def _nudged(weights: Mapping[str, torch.Tensor], dtype: torch.dtype, seed: int) -> Mapping[str, torch.Tensor]:
    embedding = weights[EMBEDDING].float()
    draw = torch.rand(embedding.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    return {**weights, EMBEDDING: embedding * (1 + draw * torch.finfo(dtype).eps)}


def _by_sequence(values: torch.Tensor, group: Sequence[Forced]) -> list[list[float]]:
    finite = torch.nan_to_num(values, nan=torch.inf, posinf=torch.inf).cpu()
    return [part.tolist() for part in torch.split(finite, [len(output) for _, output in group])]


def _tensor(values: Sequence[int], model: Llama) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=model.device)


def _groups(sequences: Sequence[Forced], vocab_size: int) -> Iterator[list[Forced]]:
    """Neighbours that fit one pass; a sequence that fits none is one of its own."""
    group: list[Forced] = []
    tokens = rows = 0
    for prompt, output in sequences:
        tokens += len(prompt) + len(output)
        rows += len(output)
        if group and (tokens > TOKENS_A_PASS or rows * vocab_size > LOGITS_A_PASS):
            yield group
            group, tokens, rows = [], len(prompt) + len(output), len(output)
        group.append((prompt, output))
    if group:
        yield group

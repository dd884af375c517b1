"""How much a batch computes and moves, counted from its rows and the model's shape. Pure; knows no device and no clock.

Counted is what must be done, not what a kernel happens to do: a product and a sum are two operations, masked pairs of
tokens are none; weights are read once a batch, keys and values once a row, and the head only for rows that sample. As
everywhere, a token counts in all layers, though most of the last one can be spared one that nobody samples after.
Activations, norms and rotations, well below a percent of either, are left out.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from msgspec import Struct

from rapidd.engine.batch import Batch
from rapidd.model.config import ModelSpec


class Work(NamedTuple):
    """Of one batch."""

    flops: int
    bytes: int


class Costs(Struct, frozen=True, kw_only=True):
    """What tokens, pairs of tokens and batches of one model cost; ``windows``: layers by their window (None: all)."""

    token_flops: int
    """The matrices of all layers."""
    head_flops: int
    """Of one row's logits."""
    pair_flops: int
    """A query with one key and its value, all heads of one layer."""
    weight_bytes: int
    """All layers, once a batch."""
    head_bytes: int
    """Once a batch that samples."""
    embedding_bytes: int
    """Of one token."""
    kv_bytes: int
    """Of one token in one layer."""
    windows: dict[int | None, int]

    @classmethod
    def of(cls, spec: ModelSpec, itemsize: int) -> Costs:
        """``itemsize``: bytes of a weight, and of a key or value."""
        h, d = spec.hidden_size, spec.head_dim
        matrices = h * d * (2 * spec.num_heads + 2 * spec.num_kv_heads) + 3 * h * spec.intermediate_size
        head = spec.vocab_size * h
        return cls(
            token_flops=2 * spec.num_layers * matrices,
            head_flops=2 * head,
            pair_flops=4 * spec.num_heads * d,
            weight_bytes=(spec.num_parameters - head * (1 if spec.tied_head else 2)) * itemsize,
            head_bytes=head * itemsize,
            embedding_bytes=h * itemsize,
            kv_bytes=2 * spec.num_kv_heads * d * itemsize,
            windows=dict(Counter(spec.windows or (None,) * spec.num_layers)),
        )

    def count(self, batch: Batch) -> Work:
        """Of a batch whose rows are as they were enqueued."""
        tokens, chunks = batch.num_tokens, batch.rows[batch.num_decode :]
        reads = [row.start + 1 for row in batch.rows[: batch.num_decode]]
        """Keys that each decode row's only query sees."""
        sampled = len(reads) + sum(row.samples for row in chunks)
        flops = tokens * self.token_flops + sampled * self.head_flops
        moved = self.weight_bytes + tokens * self.embedding_bytes + (self.head_bytes if sampled else 0)
        for window, layers in self.windows.items():
            seen = sum(reads if window is None else [min(keys, window) for keys in reads])
            pairs = seen + sum(_pairs(row.start, row.count, window) for row in chunks)
            read = seen + sum(_reach(row.start, row.count, window) for row in chunks)
            flops += layers * pairs * self.pair_flops
            moved += layers * (read + tokens) * self.kv_bytes
        return Work(flops, moved)


def _pairs(start: int, count: int, window: int | None) -> int:
    """Keys that the queries at ``[start, start + count)`` see, each its own position and those before it, summed."""
    if window is None:
        return count * start + count * (count + 1) // 2
    growing = min(max(window - start, 0), count)  # queries that see fewer than a window, or just one
    return growing * start + growing * (growing + 1) // 2 + (count - growing) * window


def _reach(start: int, count: int, window: int | None) -> int:
    """Keys that any of these queries sees."""
    return start + count if window is None else min(start + count, count + window - 1)

"""How much of a GPU's memory the KV cache may have: what is free, less what serving needs beside it, measured.

The largest batch is run once over a cache of a few blocks, and torch's high-water mark says what it took. Memory that
torch caches belongs to the stream it was first used on, so each stream may come to hold that much.
"""

from __future__ import annotations

from typing import Final

import torch
from msgspec import Struct

from rapid_kernels import make_ragged
from rapidd.engine import device_sampling
from rapidd.engine.backend import Sizes
from rapidd.engine.gpu_runner import GpuRunner
from rapidd.engine.sampling import SamplingRow
from rapidd.model.llama import Llama

MARGIN_BYTES: Final = 512 << 20
"""Modules that the driver loads, and what the allocator rounds up."""
STREAM_BYTES: Final = 96 << 20
"""A stream's workspaces (cuBLAS takes 32 MiB on Hopper)."""
GRAPH_BYTES: Final = 14 << 20
"""A graph's own memory, by 77 decode steps of 32 layers on an H200."""


class Needs(Struct, frozen=True, kw_only=True):
    """Bytes."""

    place: int
    """Static memory of a place."""
    batch: int
    """Peak of the largest batch, its sampling included."""
    step: int
    """What the graphs of a stream keep of activations."""
    tokens: int
    """The token table."""


def spare_bytes(free: int, needs: Needs, *, num_places: int, num_eager: int, num_captured: int, num_graphs: int) -> int:
    """What is left for the cache; negative when nothing is.

    ``num_eager`` streams launch batches kernel by kernel, ``num_captured`` replay graphs (one may do both), of which
    there are ``num_graphs``.
    """
    streams = num_eager * (needs.batch + STREAM_BYTES) + num_captured * (needs.step + STREAM_BYTES)
    return free - num_places * needs.place - streams - num_graphs * GRAPH_BYTES - needs.tokens - MARGIN_BYTES


def measure(model: Llama, sizes: Sizes, max_chunk_tokens: int, units: int) -> Needs:
    """Run the largest batch and the largest decode step's sampling. Raises torch's OutOfMemoryError.

    That is a chunk at the end of the longest sequence, beside a decode row of every request. The cache's few blocks
    stand for all of its blocks: what is computed means nothing.
    """
    device, rows = model.device, sizes.num_slots
    chunk = min(max_chunk_tokens, sizes.max_model_len)
    blocks_of_row = -(-sizes.max_model_len // sizes.block_tokens)
    num_blocks = -(-chunk // sizes.block_tokens) + 1
    cache = model.kernels.allocate_cache(model.cache_layout(num_blocks + 1, sizes.block_tokens), device)
    before = torch.cuda.memory_allocated(device)
    runner = GpuRunner(model, cache, num_slots=rows, max_model_len=sizes.max_model_len)
    tokens = torch.cuda.memory_allocated(device) - before
    place = runner.make_place()
    static = torch.cuda.memory_allocated(device) - before - tokens
    torch.cuda.reset_peak_memory_stats(device)
    ragged = make_ragged(
        [1] * (rows - 1) + [chunk],
        [1] * (rows - 1) + [sizes.max_model_len],
        [[1]] * (rows - 1) + [[1 + index % num_blocks for index in range(blocks_of_row)]],
        sizes.block_tokens,
        units,
        device=device,
        scratch=place.scratch,
    )
    ids = torch.zeros(rows - 1 + chunk, dtype=torch.int64, device=device)
    logits = model.forward(ids, ragged, cache, torch.arange(rows, device=device))
    table = torch.zeros((1, sizes.max_model_len), dtype=torch.int32, device=device)
    wanted = SamplingRow(length=sizes.max_model_len, temperature=1.0, top_p=0.9, frequency_penalty=1.0, logprobs=20)
    device_sampling.sample(logits, [wanted] * rows, table)
    torch.cuda.synchronize(device)
    batch = torch.cuda.max_memory_allocated(device) - before - tokens - static
    # Of the largest captured batch; a decode step's rows also have logits, in the weights' type and in float32.
    step = batch * sum(runner.mixed_sizes[0]) // (rows + chunk) + 8 * rows * model.spec.vocab_size
    return Needs(place=static, batch=batch, step=step, tokens=tokens)

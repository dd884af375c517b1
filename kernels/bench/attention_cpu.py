"""How much a call of decode attention should gather on this CPU: a table, then one JSON line.

Run: ``python kernels/bench/attention_cpu.py``. The cache is that of SmolLM2-135M, 30 layers; rows have shuffled blocks.
Times are the least of a few, in milliseconds of one thread's CPU time for all layers, which other processes hardly
change. `rapid_kernels.reference.GATHERED_BYTES` is chosen by it; "anew" gathers all rows of a call into new memory.
"""

import json
import random
import time
from unittest.mock import patch

import torch
from torch import Tensor

from rapid_kernels import CacheLayout, KVCache, make_ragged, reference
from rapid_kernels.reference import ReferenceKernels

LAYERS, HEADS, KV_HEADS, HEAD_DIM, BLOCK_TOKENS, BLOCKS = 30, 9, 3, 64, 16, 2300
SIZES: dict[str, int] = {"512 KiB": 1 << 19, "1 MiB": 1 << 20, "4 MiB": 1 << 22, "all": 1 << 40, "anew": 1 << 40}
"""`GATHERED_BYTES`, by name."""
STEPS = ((1, 512), (1, 8190), (4, 2048), (16, 128), (16, 512), (16, 2048), (64, 128), (64, 512))
"""Rows, and cached tokens of each."""
TIMES = 4


def once_ms(kernels: ReferenceKernels, cache: KVCache, q: Tensor, tables: list[list[int]], tokens: int) -> float:
    """One step, with what is derived from its batch."""
    rows = len(tables)
    start = time.thread_time()
    ragged = make_ragged([1] * rows, [tokens] * rows, tables, BLOCK_TOKENS, units=1)
    for layer in range(LAYERS):
        kernels.attention(q, cache, layer, ragged, None)
    return (time.thread_time() - start) * 1e3


def gather_anew(kv: Tensor, slots: Tensor | slice, room: Tensor) -> Tensor:
    """As `reference._gather`, into memory of its own."""
    return kv[slots] if isinstance(slots, slice) else kv.index_select(0, slots)


def compare(kernels: ReferenceKernels, cache: KVCache, rows: int, tokens: int) -> dict[str, float]:
    """The least times of a step, by name of the size; all sizes take turns."""
    order = list(range(1, BLOCKS))
    random.Random(0).shuffle(order)
    blocks = iter(order)
    tables = [[next(blocks) for _ in range(-(-tokens // BLOCK_TOKENS))] for _ in range(rows)]
    q = torch.randn(rows, HEADS, HEAD_DIM).to(cache.layout.dtype)
    best = dict.fromkeys(SIZES, float("inf"))
    for _ in range(TIMES):
        for name, size in SIZES.items():
            gather = gather_anew if name == "anew" else reference._gather
            with patch.object(reference, "GATHERED_BYTES", size), patch.object(reference, "_gather", gather):
                best[name] = min(best[name], once_ms(kernels, cache, q, tables, tokens))
    return best


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    kernels = ReferenceKernels()
    results = []
    print(f"{'dtype':>10} {'rows':>6} {'tokens':>6}" + "".join(f"{name:>10}" for name in SIZES))
    for dtype in (torch.float32, torch.bfloat16):
        cache = kernels.allocate_cache(CacheLayout(LAYERS, BLOCKS, BLOCK_TOKENS, KV_HEADS, HEAD_DIM, dtype))
        for layer in cache.layers:
            layer.normal_()
        for rows, tokens in STEPS:
            with torch.inference_mode():
                best = compare(kernels, cache, rows, tokens)
            name = str(dtype).removeprefix("torch.")
            print(f"{name:>10} {rows:>6} {tokens:>6}" + "".join(f"{best[key]:>10.1f}" for key in SIZES), flush=True)
            results.append({"dtype": name, "rows": rows, "tokens": tokens, "ms": best})
    print(json.dumps({"schema_version": 1, "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()

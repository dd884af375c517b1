"""The whole decode step of an 8B Llama by partition, alone and beside a prompt chunk's matmuls."""

import itertools
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from common import (
    BF16,
    BLOCK_TOKENS,
    DIM,
    LAYERS,
    SHAPES,
    VOCAB,
    WIDTH,
    Cache,
    Partition,
    capture,
    error,
    timed,
    workspace,
)
from torch import Tensor
from torch.nn.functional import linear

from rapid_kernels.gpu.attention import decode_attention
from rapid_kernels.gpu.decode_plan import plan_decode
from rapid_kernels.gpu.elementwise import add_rms_norm, rope_and_cache, silu_mul
from rapid_kernels.gpu.kernels import multiply
from rapid_kernels.gpu.matmul import finish_matmul
from rapid_kernels.gpu.product import Product
from rapid_kernels.gpu.read import READ_TILES, read_all
from rapid_kernels.gpu.tuning import decode_tile_for, tile_for


class Model:
    """Random weights of an 8B Llama."""

    def __init__(self) -> None:
        def weight(shape: str) -> Tensor:
            n, k = SHAPES[shape]
            return torch.empty(n, k, dtype=BF16, device="cuda").normal_(std=k**-0.5)

        names = ("qkv", "o", "gate_up", "down")
        self.layers = [{name: weight(name) for name in names} for _ in range(LAYERS)]
        self.head = weight("head")
        self.embedding = torch.randn(VOCAB, WIDTH, dtype=BF16, device="cuda")
        self.norm = torch.ones(WIDTH, dtype=BF16, device="cuda")
        angles = torch.rand(1 << 15, DIM // 2, device="cuda") * 6.28
        self.cos, self.sin = angles.cos(), angles.sin()
        self.bytes = 2 * sum(w.numel() for layer in self.layers for w in layer.values()) + 2 * self.head.numel()

    def step(self, ids: Tensor, cache: Cache, units: int, library: bool, chained: bool, parts: bool) -> Tensor:
        """Logits [rows, VOCAB] of one decode step. ``parts``: norms and rotations add up what products leave."""

        def product(x: Tensor, weight: Tensor, shape: str) -> Product:
            gated = shape == "gate_up"
            adds = parts and shape in ("qkv", "o", "down")
            tile = None if library else tile_for(len(ids), len(weight), units, gated, hopper=True, parts=adds)
            if tile is None:
                y = linear(x, weight)
                return Product.whole(silu_mul(y) if gated else y)
            left = multiply(x, weight, units, workspace(), tile, gated, chained)
            return left if adds else Product.whole(finish_matmul(left, gated, chained))

        residual = self.embedding[ids]
        plan_decode(cache.plan, cache.lens, cache.tables, BLOCK_TOKENS)
        x = add_rms_norm(residual, None, self.norm, 1e-5)
        for weights, kv in zip(self.layers, cache.layers, strict=True):
            qkv = product(x, weights["qkv"], "qkv")
            q = rope_and_cache(qkv, self.cos, self.sin, cache.positions, cache.slots, kv, chained)
            x = decode_attention(q, kv, cache.plan, units, workspace(), decode_tile_for(units, True, True), chained)
            x = add_rms_norm(product(x, weights["o"], "o"), residual, self.norm, 1e-5, chained)
            x = product(x, weights["gate_up"], "gate_up").y
            x = add_rms_norm(product(x, weights["down"], "down"), residual, self.norm, 1e-5, chained)
        return product(x, self.head, "head").y

    def prefill_like(self, x: Tensor) -> None:
        """The matmuls of a prompt chunk, by the library."""
        for weights in self.layers:
            qkv = linear(x, weights["qkv"])
            linear(qkv[:, :WIDTH], weights["o"])
            linear(silu_mul(linear(x, weights["gate_up"])), weights["down"])


VARIANTS = (
    ("plain", False, False, True),
    ("chained", False, True, True),
    ("finished", False, True, False),
    ("library", True, True, False),
)
"""Name, whether matmuls are the library's, whether launches are chained, whether products are left in parts."""


def steps(partitions: dict[int, Partition], model: Model, pool: Tensor) -> list[dict[str, Any]]:
    """The whole step by partition: ours, ours chained, and with the library's matmuls."""
    found = []
    for rows, tokens in ((64, 1024), (96, 4096), (32, 8192), (1, 1024)):
        cache = Cache(pool, rows, tokens)
        ids = torch.randint(0, VOCAB, (rows,), device="cuda")
        wanted = model.step(ids, cache, 132, True, False, False)
        total = model.bytes + LAYERS * cache.bytes_per_layer
        table: dict[str, dict[int, float]] = {}
        for name, library, chained, parts in VARIANTS:
            table[name] = {}
            for units in (24, 32, 48, 64, 132):
                got = model.step(ids, cache, units, library, chained, parts)
                if not error(got, wanted) < 3e-2:
                    print(f"  WRONG {name} {rows} x {tokens} on {units}: {error(got, wanted):.2e}")
                stream = partitions[units].stream
                table[name][units] = timed(stream, partial(model.step, ids, cache, units, library, chained, parts), 7)
            ms = table[name]
            print(
                f"{rows:3} x {tokens:5} {name:8}",
                " ".join(f"{u}: {v:6.2f} ms ({v / ms[132]:.2f}x)" for u, v in ms.items()),
                f"| {total / ms[132] / 1e9:.2f} TB/s on all",
                flush=True,
            )
        found.append({"rows": rows, "tokens": tokens, "bytes": total, "ms": table})
    return found


def rates(lanes: Sequence[tuple[torch.cuda.Stream, torch.cuda.CUDAGraph, int]]) -> list[float]:
    """Median milliseconds of each lane's graph while all lanes are busy; ``int``: replays a round."""
    marks: list[list[torch.cuda.Event]] = [[] for _ in lanes]
    for _ in range(12):
        for (stream, graph, repeats), own in zip(lanes, marks, strict=True):
            with torch.cuda.stream(stream):
                for _ in range(repeats):
                    graph.replay()
                    own.append(torch.cuda.Event(enable_timing=True))
                    own[-1].record()
    torch.cuda.synchronize()
    origin = marks[0][0]
    times = [[origin.elapsed_time(mark) for mark in own] for own in marks]
    last = min(own[-1] for own in times)
    return [statistics.median(b - a for a, b in itertools.pairwise(own) if a >= 0 and b <= last) for own in times]


def corun_limit(partitions: dict[int, Partition]) -> list[dict[str, Any]]:
    """What sharing gives without kernels of ours: a plain read on some SMs beside a large matmul on the others.

    Each for most of a second, alone as together, so that the power limit has its say.
    """
    found = []
    data = torch.randint(0, 1 << 30, (1 << 30,), dtype=torch.int32, device="cuda")
    out = torch.empty(1024, dtype=torch.int32, device="cuda")
    a, b = (torch.randn(8192, 8192, dtype=BF16, device="cuda") for _ in range(2))
    whole = partitions[132].stream
    reads = [capture(whole, lambda tile=tile: read_all(data, out, 132, tile)) for tile in READ_TILES]
    read_alone = min(rates([(whole, read, 60)])[0] for read in reads)
    matmul_alone = rates([(whole, capture(whole, lambda: a @ b), 40)])[0]
    for units in (24, 32, 40, 48, 64):
        partition = partitions[units]
        assert partition.rest is not None
        matmul = capture(partition.rest, lambda: a @ b)
        both = []
        for tile in READ_TILES:
            read = capture(partition.stream, lambda tile=tile, units=units: read_all(data, out, units, tile))
            both.append(rates([(partition.stream, read, 60), (partition.rest, matmul, 30)]))
        read_both, matmul_both = max(both, key=lambda ms: read_alone / ms[0] + matmul_alone / ms[1])
        shares = read_alone / read_both, matmul_alone / matmul_both
        found.append({"units": units, "read": shares[0], "matmul": shares[1], "efficiency": sum(shares)})
        print(f"plain read on {units}: {shares[0]:.3f} of its rate, matmul {shares[1]:.3f}; together {sum(shares):.3f}")
    return found


def corun(partitions: dict[int, Partition], model: Model, pool: Tensor) -> list[dict[str, Any]]:
    """Decode steps on some SMs beside prefill matmuls on the others: rates as shares of each alone on all SMs."""
    found = corun_limit(partitions)
    x = torch.randn(2048, WIDTH, dtype=BF16, device="cuda")
    chunk_all = timed(partitions[132].stream, lambda: model.prefill_like(x), 7)
    for rows, tokens in ((64, 1024), (96, 4096), (32, 8192)):
        cache = Cache(pool, rows, tokens)
        ids = torch.randint(0, VOCAB, (rows,), device="cuda")

        def step(units: int, cache: Cache = cache, ids: Tensor = ids) -> None:
            model.step(ids, cache, units, False, True, True)

        step_all = timed(partitions[132].stream, lambda step=step: step(132), 7)
        for units in (24, 32, 40, 48, 64):
            partition = partitions[units]
            assert partition.rest is not None
            decode = capture(partition.stream, lambda step=step, units=units: step(units))
            prefill = capture(partition.rest, lambda: model.prefill_like(x))
            step_part = rates([(partition.stream, decode, 1)])[0]
            chunk_part = rates([(partition.rest, prefill, 1)])[0]
            repeats = max(1, round(1.5 * step_part / chunk_part))
            step_both, chunk_both = rates(
                [
                    (partition.stream, decode, max(1, round(1.5 * chunk_part / step_part))),
                    (partition.rest, prefill, repeats),
                ]
            )
            efficiency = step_all / step_both + chunk_all / chunk_both
            found.append(
                {
                    "rows": rows, "tokens": tokens, "units": units, "efficiency": efficiency,
                    "step_ms": {"all": step_all, "part": step_part, "beside": step_both},
                    "chunk_ms": {"all": chunk_all, "part": chunk_part, "beside": chunk_both},
                }
            )  # fmt: skip
            print(
                f"{rows:3} x {tokens:5} on {units}: step {step_both:.2f} ms (alone there {step_part:.2f}, on all"
                f" {step_all:.2f}), chunk of {len(x)} {chunk_both:.2f} ms (alone there {chunk_part:.2f}, on all"
                f" {chunk_all:.2f}) = {len(x) / chunk_both:.1f} tok/ms; sharing efficiency {efficiency:.3f}",
                flush=True,
            )
    return found

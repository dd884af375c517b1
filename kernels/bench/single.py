"""Ceilings, and single kernels against them and against the libraries."""

import itertools
from functools import partial
from typing import Any

import torch
from common import (
    BF16,
    BLOCK_TOKENS,
    DIM,
    HEADS,
    KV_HEADS,
    SHAPES,
    SLIM_TILES,
    TILES,
    WORKLOADS,
    Cache,
    Partition,
    make_cache,
    make_pool,
    timed,
    workspace,
)
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from rapid_kernels import Ragged, make_ragged
from rapid_kernels.gpu.attention import decode_attention
from rapid_kernels.gpu.decode_call import DecodeTile
from rapid_kernels.gpu.decode_plan import plan_decode
from rapid_kernels.gpu.elementwise import add_rms_norm, rope_and_cache, silu_mul
from rapid_kernels.gpu.kernels import multiply
from rapid_kernels.gpu.matmul import Tile, finish_matmul
from rapid_kernels.gpu.matmul_hopper import MAX_ROWS, SlimTile
from rapid_kernels.gpu.prefill import PromptTile, prompt_attention
from rapid_kernels.gpu.prefill_hopper import HopperTile, hopper_prompt_attention
from rapid_kernels.gpu.product import Product
from rapid_kernels.gpu.prompt_plan import make_prompt_plan
from rapid_kernels.gpu.read import READ_TILES, read_all
from rapid_kernels.gpu.tuning import HOPPER_PROMPT, PROMPT, PROMPTS_PER_UNIT, tile_for

DECODE_TILES = {
    "two a unit": DecodeTile(),
    "at most 128": DecodeTile(most=128),
    "one a unit": DecodeTile(stages=7, most=128),
    "by pointers": DecodeTile(bulk=False),
    "Hopper's, two a unit": DecodeTile(3, hopper=True),
    "Hopper's, at most 128": DecodeTile(3, most=128, hopper=True),
    "Hopper's, one a unit": DecodeTile(4, most=128, hopper=True),
}
PROMPTS = ((2048, 0), (2048, 2048), (2048, 6144), (2048, 14336), (1024, 4096), (512, 1024), (512, 16384))
"""Tokens of a chunk, tokens cached before it."""
SMALL_CHUNKS = tuple(itertools.product((16, 64, 256, 304, 624), (0, 4096, 16384)))
"""Likewise."""
PROMPT_TILES: dict[str, PromptTile | HopperTile] = {
    "ours": HOPPER_PROMPT,
    "32 keys": HopperTile(queries=64, keys=32, stages=3),
    "128 queries": HopperTile(queries=128, keys=64, stages=3),
    "by pointers": PROMPT,
    "by pointers, 64 keys": PromptTile(queries=64, keys=64, stages=3),
}


READ_MIB = (32, 64, 128, 256, 512)
"""What a launch reads. O has weights of 32 MiB, QKV of 48, down of 112 and gate-up of 224."""


def ceilings(partitions: dict[int, Partition]) -> dict[str, Any]:
    """TB/s of a plain pipelined read by SM count, and in many launches; TFLOP/s of a large matmul on all SMs."""
    data = torch.randint(0, 1 << 30, (1 << 30,), dtype=torch.int32, device="cuda")
    out = torch.empty(1024, dtype=torch.int32, device="cuda")

    def rate(units: int, pieces: Tensor) -> float:
        best = 0.0
        for tile in (*READ_TILES, (8192, 5, 8, 1)):

            def read(tile: tuple[int, int, int, int] = tile) -> None:
                for piece in pieces:
                    read_all(piece, out, units, tile)

            best = max(best, data.numel() * 4 / timed(partitions[units].stream, read, 5) / 1e9)
        return best

    read = {units: rate(units, data[None]) for units in partitions}
    launches = {mib: rate(132, data.view(-1, mib << 18)) for mib in READ_MIB}
    a, b = (torch.randn(8192, 8192, dtype=BF16, device="cuda") for _ in range(2))
    ms = timed(partitions[132].stream, lambda: a @ b, 10)
    print(
        "plain read, TB/s:", {u: round(v, 2) for u, v in read.items()}, f"matmul {2 * 8192**3 / ms / 1e9:.0f} TFLOP/s"
    )
    print("in launches of MiB:", {mib: round(v, 2) for mib, v in launches.items()})
    return {"read_tb_s": read, "launches_tb_s": launches, "matmul_tflop_s": 2 * 8192**3 / ms / 1e9}


def matmul_ms(partition: Partition, m: int, shape: str, tile: Tile | SlimTile | None) -> float:
    """Of one call, rotating over weights that do not fit the L2 cache together. ``tile`` None: the library."""
    n, k = SHAPES[shape]
    copies = max(2, -(-(160 << 20) // (n * k * 2)))
    weights = [torch.randn(n, k, dtype=BF16, device="cuda") / k**0.5 for _ in range(copies)]
    x = torch.randn(m, k, dtype=BF16, device="cuda")
    gated = shape == "gate_up"

    def work() -> None:
        for weight in weights:
            if tile is None:
                y = linear(x, weight)
                if gated:
                    silu_mul(y)
            else:
                finish_matmul(multiply(x, weight, partition.units, workspace(), tile, gated, True), gated, True)

    return timed(partition.stream, work) / copies


def tb_s(m: int, shape: str, ms: float) -> float:
    """Weights, x and y over the time."""
    n, k = SHAPES[shape]
    return 2 * (n * k + m * k + m * n) / ms / 1e9


def tune(partitions: dict[int, Partition]) -> list[dict[str, Any]]:
    """Every tile on every shape."""
    rows = []
    for m, shape, units in itertools.product((1, 16, 32, 64, 96), SHAPES, (24, 32, 48, 64, 132)):
        block_m = 64 if m <= 64 else 128
        gated = shape == "gate_up"
        slim = [t for t in SLIM_TILES if m <= MAX_ROWS and t.block_n >= 64 * (1 + gated)]
        results = []
        for tile in (None, *slim, *(t for t in TILES if t.block_m == block_m)):
            try:
                ms = matmul_ms(partitions[units], m, shape, tile)
            except Exception as problem:
                print(f"tune {m} {shape} {units} {tile}: {str(problem)[-200:]}")
                continue
            results.append((ms, tile))
            rows.append(
                {"m": m, "shape": shape, "units": units, "tile": str(tile), "us": ms * 1e3, "tb_s": tb_s(m, shape, ms)}
            )
        results.sort(key=lambda r: r[0])
        text = "  ".join(f"{tb_s(m, shape, ms):.2f} {short(tile)}" for ms, tile in results[:4])
        library = next((tb_s(m, shape, ms) for ms, tile in results if tile is None), 0)
        table = tile_for(m, SHAPES[shape][0], units, gated, hopper=True)
        chosen = next(tb_s(m, shape, ms) for ms, tile in results if tile == table)
        print(
            f"M {m:3} {shape:8} {units:3} SMs: library {library:.2f}, table {chosen:.2f} {short(table)} | {text}",
            flush=True,
        )
    return rows


def pair_ms(
    partition: Partition, m: int, shape: str, tile: Tile | SlimTile | None, parts: bool, chained: bool
) -> float:
    """Of a product and the norm or rotation behind it, which adds up the parts or finds them added up."""
    n, k = SHAPES[shape]
    copies = max(2, -(-(160 << 20) // (n * k * 2)))
    weights = [torch.randn(n, k, dtype=BF16, device="cuda") / k**0.5 for _ in range(copies)]
    x, norm = torch.randn(m, k, dtype=BF16, device="cuda"), torch.ones(n, dtype=BF16, device="cuda")
    residual = torch.randn(m, n, dtype=BF16, device="cuda")
    angles = torch.rand(1024, DIM // 2, device="cuda")
    positions = slots = torch.arange(m, device="cuda")
    kv = torch.zeros(m, 2, KV_HEADS, DIM, dtype=BF16, device="cuda")

    def work() -> None:
        for weight in weights:
            if tile is None:
                product = Product.whole(linear(x, weight))
            else:
                product = multiply(x, weight, partition.units, workspace(), tile, False, chained)
                if not parts:
                    product = Product.whole(finish_matmul(product, False, chained))
            if shape == "qkv":
                rope_and_cache(product, angles, angles, positions, slots, kv, chained)
            else:
                add_rms_norm(product, residual, norm, 1e-5, chained)

    return float(timed(partition.stream, work) / copies)


PAIRS = tuple(itertools.product((1, 16, 32, 64, 96), ("qkv", "o", "down"), (24, 32, 48, 64, 132)))
"""Rows, weight, units."""


def tune_parts(partitions: dict[int, Partition], part: int = 0, of: int = 1) -> list[dict[str, Any]]:
    """Every tile, its parts added up by a launch of its own and by the next kernel."""
    rows = []
    for m, shape, units in PAIRS[part::of]:
        block_m = 64 if m <= 64 else 128
        results = []
        for tile in (None, *SLIM_TILES, *(t for t in TILES if t.block_m == block_m)):
            for parts, chained in ((False, False), (False, True), (True, False), (True, True)):
                if tile is None and parts:
                    continue
                try:
                    us = 1e3 * pair_ms(partitions[units], m, shape, tile, parts, chained)
                except Exception as problem:
                    print(f"tune {m} {shape} {units} {tile}: {str(problem)[-200:]}")
                    break
                name = short(tile) + (" parts" if parts else "") + (" chained" if chained else "")
                results.append((us, name))
                rows.append({"m": m, "shape": shape, "units": units, "tile": name, "us": us})
        results.sort()
        n, k = SHAPES[shape]
        text = "  ".join(f"{us:.1f} {name}" for us, name in results[:6])
        library = next(us for us, name in results if name == "library")
        print(
            f"M {m:3} {shape:5} {units:3} SMs: library {library:.1f} us, bytes {2e-6 * n * k:.0f} MB | {text}",
            flush=True,
        )
    return rows


def short(tile: Tile | SlimTile | None) -> str:
    """For tables."""
    if tile is None:
        return "library"
    if isinstance(tile, SlimTile):
        ending = (" pair" if tile.per_unit == 2 else "") + (" spread" if tile.spread else "")
        ending += f" {tile.most}" if tile.most <= 132 else ""
        return f"slim {tile.block_n}x{tile.block_k}x{tile.memory >> 10}K{ending}"
    ending = ("" if tile.bulk else " by pointers") + (" ahead" if tile.prefetched else "")
    ending += (" spread" if tile.spread else "") + (f" {tile.most}" if tile.most <= 132 else "")
    return f"{tile.block_n}x{tile.block_k}x{tile.stages}{ending}"


def matmuls(partitions: dict[int, Partition], read: dict[int, float]) -> list[dict[str, Any]]:
    """The chosen tile against the library."""
    found = []
    for m, shape in itertools.product((1, 16, 64, 96), SHAPES):
        line = f"M {m:3} {shape:8}"
        for units, partition in partitions.items():
            library = tb_s(m, shape, matmul_ms(partition, m, shape, None))
            tile = tile_for(m, SHAPES[shape][0], units, shape == "gate_up", hopper=True)
            ours = tb_s(m, shape, matmul_ms(partition, m, shape, tile)) if tile else library
            found.append({"m": m, "shape": shape, "units": units, "ours": ours, "library": library})
            share = f" {100 * ours / read[units]:3.0f}%" if units in read else ""
            line += f" | {units}: {ours:.2f}{share} ({library:.2f})"
        print(line, flush=True)
    return found


def attention(partitions: dict[int, Partition]) -> list[dict[str, Any]]:
    """Decode attention alone by tile and partition, and flash attention over contiguous keys."""
    pool = make_pool(4)
    found = []
    for rows, tokens in WORKLOADS:
        cache = Cache(pool, rows, tokens)
        q = torch.randn(rows, HEADS, DIM, dtype=BF16, device="cuda")
        plan_decode(cache.plan, cache.lens, cache.tables, BLOCK_TOKENS)
        key, value = (pool[0, : rows * tokens, i].view(rows, tokens, KV_HEADS, DIM).transpose(1, 2) for i in range(2))
        grouped = q.view(rows, KV_HEADS, HEADS // KV_HEADS, DIM)
        for units, partition in partitions.items():
            line = {}
            for name, tile in DECODE_TILES.items():

                def work(
                    cache: Cache = cache, tile: DecodeTile = tile, q: torch.Tensor = q, units: int = units
                ) -> None:
                    for layer in cache.layers:
                        decode_attention(q, layer, cache.plan, units, workspace(), tile, True)

                line[name] = timed(partition.stream, work, 7) / len(pool)
            flash = partial(scaled_dot_product_attention, grouped, key, value)
            line["flash"] = timed(partition.stream, flash, 7)
            rates = {name: cache.bytes_per_layer / ms / 1e9 for name, ms in line.items()}
            found.append({"rows": rows, "tokens": tokens, "units": units, "tb_s": rates})
            print(
                f"{rows:3} x {tokens:5} on {units:3} SMs, TB/s:", {k: round(v, 2) for k, v in rates.items()}, flush=True
            )
    return found


def prompt_streams(partitions: dict[int, Partition]) -> dict[int, torch.cuda.Stream | None]:
    """By SMs: all, and what prompts have beside decode steps on 32 and on 48."""
    return {132: partitions[132].stream, 100: partitions[32].rest, 84: partitions[48].rest}


def one_prompt(new: int, cached: int) -> tuple[torch.Tensor, torch.Tensor, Ragged]:
    """Queries, keys and values, and the batch, of a chunk of one prompt."""
    kv, _, tables = make_cache([cached + new], KV_HEADS, DIM, BLOCK_TOKENS, BF16, 1, 0.0)
    q = torch.randn(new, HEADS + 2 * KV_HEADS, DIM, dtype=BF16, device="cuda")[:, :HEADS]
    return q, kv, make_ragged([new], [cached + new], tables.tolist(), BLOCK_TOKENS, 132, "cuda")


def prompts(partitions: dict[int, Partition]) -> list[dict[str, Any]]:
    """Attention of a prompt chunk by tile and SMs, and torch's flash attention over contiguous keys: TFLOP/s."""
    streams = prompt_streams(partitions)
    found = []
    for new, cached in PROMPTS:
        q, kv, ragged = one_prompt(new, cached)
        starts, kv_starts = (torch.tensor([0, n], dtype=torch.int32, device="cuda") for n in (new, cached + new))
        key, value = kv[: cached + new].unbind(1)

        sizes = (starts, kv_starts, new, cached + new)
        flash = partial(torch.ops.aten._flash_attention_forward, q, key, value, *sizes, 0.0, True, False)
        works: dict[str, Any] = {"flash": flash}
        for name, tile in PROMPT_TILES.items():
            run = hopper_prompt_attention if isinstance(tile, HopperTile) else prompt_attention
            plan = make_prompt_plan(ragged, tile.queries * KV_HEADS // HEADS)
            works[name] = partial(run, q, kv, ragged, plan, tile, workspace())  # type: ignore[arg-type]
        flops = 4 * HEADS * DIM * (new * cached + new * (new + 1) / 2)
        for units, stream in streams.items():
            rates = {name: flops / timed(stream, work, 7) / 1e9 for name, work in works.items()}
            found.append({"tokens": new, "cached": cached, "units": units, "tflop_s": rates})
            print(
                f"{new} behind {cached} on {units} SMs, TFLOP/s:", {k: round(v) for k, v in rates.items()}, flush=True
            )
    return found


def small_chunks(partitions: dict[int, Partition]) -> list[dict[str, Any]]:
    """Attention of a few prompt tokens, microseconds a layer: tiles whole, and cut into pieces as serving does."""
    found = []
    for new, cached in SMALL_CHUNKS:
        q, kv, ragged = one_prompt(new, cached)
        for units, stream in prompt_streams(partitions).items():
            line = {}
            for name, tile in (("hopper", HOPPER_PROMPT), ("by pointers", PROMPT)):
                run = hopper_prompt_attention if isinstance(tile, HopperTile) else prompt_attention
                for how, wave in (("whole", 0), ("cut", units * PROMPTS_PER_UNIT // KV_HEADS)):
                    plan = make_prompt_plan(ragged, tile.queries * KV_HEADS // HEADS, wave)
                    work = partial(run, q, kv, ragged, plan, tile, workspace())  # type: ignore[arg-type]
                    line[f"{name}, {how}"] = 1e3 * timed(stream, work)
            found.append({"tokens": new, "cached": cached, "units": units, "us": line})
            print(f"{new} behind {cached} on {units} SMs, us:", {k: round(v, 1) for k, v in line.items()}, flush=True)
    return found

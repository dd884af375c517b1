"""What the decode kernels reach on a GPU, alone and beside prefill. From the repository's root:

    PYTHONPATH=kernels python kernels/bench/bench_gpu.py [--out DIR] [SECTION ...]

Needs torch, triton and cuda-bindings, an 80 GB Hopper GPU, and nothing else running on it. Sections: check ceilings
tune matmul attention step corun. Prints tables; all numbers go to DIR/bench_gpu.json. Times are medians of CUDA-graph
replays; bandwidths count every weight, key and value once.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from cuda.bindings import driver
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from rapid_kernels.gpu.attention import (
    DecodePlan,
    DecodeTile,
    decode_attention,
    decode_attention_reference,
    make_plan,
    plan_decode,
)
from rapid_kernels.gpu.elementwise import (
    add_rms_norm,
    add_rms_norm_reference,
    rope_and_cache,
    rope_and_cache_reference,
    silu_mul,
    silu_mul_reference,
)
from rapid_kernels.gpu.matmul import Tile, skinny_matmul, skinny_matmul_reference
from rapid_kernels.gpu.tuning import decode_tile_for, tile_for
from rapid_kernels.gpu.workspace import Workspace

LAYERS, WIDTH, HEADS, KV_HEADS, DIM, FFN, VOCAB = 32, 4096, 32, 8, 128, 14336, 128256
SHAPES = {
    "qkv": ((HEADS + 2 * KV_HEADS) * DIM, WIDTH),
    "o": (WIDTH, HEADS * DIM),
    "gate_up": (2 * FFN, WIDTH),
    "down": (WIDTH, FFN),
    "head": (VOCAB, WIDTH),
}
PARTITIONS = (16, 24, 32, 40, 48, 64, 132)
WORKLOADS = ((64, 1024), (96, 4096), (32, 8192), (16, 16384))
BLOCK_TOKENS = 64
BF16 = torch.bfloat16
TILES = (
    Tile(64, 32, 128, 8, 4),
    *(
        Tile(64, *shape, 4, prefetched=prefetched)
        for shape in ((64, 128, 6), (128, 64, 8), (128, 128, 4), (256, 64, 5))
        for prefetched in (0, 6)
    ),
    Tile(64, 128, 64, 6, 4, bulk=False),
    Tile(128, 128, 64, 6, 8),
    Tile(128, 64, 128, 4, 4),
    Tile(128, 256, 64, 4, 8),
)
DECODE_TILES = {
    "two a unit": DecodeTile(),
    "at most 128": DecodeTile(most=128),
    "by pointers": DecodeTile(bulk=False),
}


def ok(result: tuple[Any, ...]) -> Any:
    """The value of a driver call, or RuntimeError."""
    if int(result[0]) != 0:
        raise RuntimeError(f"driver: {result[0]}")
    return result[1] if len(result) == 2 else result[1:]


class Partition:
    """``units`` SMs and the rest of the device, disjoint, a stream on each."""

    def __init__(self, units: int) -> None:
        device = ok(driver.cuDeviceGet(0))
        kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
        whole = ok(driver.cuDeviceGetDevResource(device, kind))
        self.units = units
        self.rest_units = whole.sm.smCount - units
        self.rest: torch.cuda.Stream | None = None
        if self.rest_units == 0:
            self.stream = torch.cuda.Stream()
            return
        groups, _, remainder = ok(driver.cuDevSmResourceSplitByCount(1, whole, 0, units))
        if groups[0].sm.smCount != units:
            raise RuntimeError(f"asked for {units} SMs, got {groups[0].sm.smCount}")
        self.stream, self.rest = self._stream(device, groups[0]), self._stream(device, remainder)

    @staticmethod
    def _stream(device: Any, resource: Any) -> torch.cuda.Stream:
        flags = driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
        context = ok(driver.cuGreenCtxCreate(ok(driver.cuDevResourceGenerateDesc([resource], 1)), device, flags))
        stream = ok(driver.cuGreenCtxStreamCreate(context, driver.CUstream_flags.CU_STREAM_NON_BLOCKING, 0))
        return torch.cuda.ExternalStream(int(stream))


def capture(stream: torch.cuda.Stream, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A graph of ``work``; runs it once before, for compilation, handles and workspaces."""
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph


def timed(stream: torch.cuda.Stream, work: Callable[[], object], replays: int = 15) -> float:
    """Median milliseconds of one replay."""
    graph = capture(stream, work)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
    with torch.cuda.stream(stream):
        for _ in range(3):
            graph.replay()
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(events))


# --- ceilings ---------------------------------------------------------------------------------------------------------


@triton.jit
def read_kernel(
    data,  # [blocks, BLOCK] int32
    out,  # [programs]
    blocks,
    BLOCK: tl.constexpr,  # noqa: N803
    STAGES: tl.constexpr,  # noqa: N803
):
    """Read everything."""
    offsets = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0), num_stages=STAGES):
        total += tl.load(data + block.to(tl.int64) * BLOCK + offsets)
    tl.store(out + tl.program_id(0), tl.sum(total))


def ceilings(partitions: dict[int, Partition]) -> dict[str, Any]:
    """TB/s of a plain pipelined read by SM count; TFLOP/s of a large matmul on all SMs."""
    data = torch.randint(0, 1 << 30, (1 << 30,), dtype=torch.int32, device="cuda")
    out = torch.empty(1024, dtype=torch.int32, device="cuda")
    read = {}
    for units, partition in partitions.items():
        best = 0.0
        for block, stages, warps, per_unit in ((4096, 5, 4, 2), (8192, 5, 8, 1), (4096, 4, 8, 3), (2048, 6, 4, 4)):
            grid = (units * per_unit,)
            count = data.numel() // block
            ms = timed(
                partition.stream,
                lambda g=grid, c=count, b=block, s=stages, w=warps: read_kernel[g](data, out, c, b, s, num_warps=w),
                5,
            )
            best = max(best, data.numel() * 4 / ms / 1e9)
        read[units] = best
    a, b = (torch.randn(8192, 8192, dtype=BF16, device="cuda") for _ in range(2))
    ms = timed(partitions[132].stream, lambda: a @ b, 10)
    print(
        "plain read, TB/s:", {u: round(v, 2) for u, v in read.items()}, f"matmul {2 * 8192**3 / ms / 1e9:.0f} TFLOP/s"
    )
    return {"read_tb_s": read, "matmul_tflop_s": 2 * 8192**3 / ms / 1e9}


# --- correctness ------------------------------------------------------------------------------------------------------


def error(got: Tensor, wanted: Tensor) -> float:
    """Relative, by norm; NaN stays NaN."""
    return float((got.float() - wanted.float()).norm() / wanted.float().norm())


def poison(*shape: int, dtype: torch.dtype = BF16) -> None:
    """Leave NaN in the memory that the next allocation of this size gets."""
    torch.full(shape, float("nan"), dtype=dtype, device="cuda")


class Report:
    """Collects comparisons."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.worst: dict[str, float] = {}
        self.count = 0

    def close(self, what: str, case: object, got: Tensor, wanted: Tensor, tolerance: float = 4e-3) -> None:
        """bf16 rounds to 2^-9 = 2e-3 relative; norms stay under 4e-3."""
        found = error(got, wanted)
        self.count += 1
        self.worst[what] = max(self.worst.get(what, 0.0), found)
        if not found < tolerance:
            self.failed.append(f"{what} {case}: {found:.2e}")


def check_matmul(report: Report, part: int, of: int) -> None:
    """Every tile, ragged shapes, every bucket's edge rows, both types, chained or not; the same bits twice."""
    workspace = Workspace("cuda")
    workspace.parts.fill_(float("nan"))
    for seed, tile in list(enumerate(TILES))[part::of]:
        torch.manual_seed(seed)
        for (n, k), units, gated in itertools.product(
            ((6144, 4096), (1000, 576), (4096, 14336)), (8, 24, 132), (False, True)
        ):
            dtype = torch.float16 if k == 576 else BF16
            weight = torch.randn(n, k, dtype=dtype, device="cuda") / k**0.5
            for m in {1, 7, 16, tile.block_m // 2 + 1, tile.block_m}:
                x = torch.randn(m, k, dtype=dtype, device="cuda")
                poison(m, n // (1 + gated), dtype=dtype)
                y = skinny_matmul(x, weight, units, workspace, tile, gated)
                case = (m, n, k, units, gated, tile)
                report.close("matmul", case, y, skinny_matmul_reference(x, weight, gated))
                again = skinny_matmul(x, weight, units, workspace, tile, gated, chained=True)
                if not torch.equal(y, again):
                    report.failed.append(f"matmul differs between runs: {case}")


GROWING = -1
"""As first block: keys grow along the sequence."""


def make_cache(
    lens: Sequence[int], kv_heads: int, dim: int, block: int, dtype: torch.dtype, first_block: int, unwritten: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(kv, kv_lens, block_tables): random blocks, ``unwritten`` in every slot that no row wrote."""
    counts = [-(-n // block) for n in lens]
    growing, first_block = first_block == GROWING, max(1, first_block)
    total = first_block + sum(counts) + 2
    order = (torch.randperm(sum(counts) + 1, device="cuda") + first_block).to(torch.int32)
    tables = torch.zeros(len(lens), max(counts) + 1, dtype=torch.int32, device="cuda")
    kv = torch.empty(total * block, 2, kv_heads, dim, dtype=dtype, device="cuda")
    kv[(first_block - 1) * block :] = unwritten
    at = 0
    for row, (n, count) in enumerate(zip(lens, counts, strict=True)):
        tables[row, :count] = order[at : at + count]
        at += count
        index = torch.arange(n, device="cuda")
        new = torch.randn(n, 2, kv_heads, dim, dtype=dtype, device="cuda")
        if growing:
            new[:, 0] *= torch.linspace(0, 100, n, dtype=dtype, device="cuda")[:, None, None]
        kv[tables[row, index // block].long() * block + index % block] = new
    return kv, torch.tensor(lens, dtype=torch.int32, device="cuda"), tables


def check_attention(report: Report, part: int, of: int) -> None:
    """Ragged lengths, group and head sizes, block sizes, windows, units, a cache past 2^31 bytes."""
    workspace = Workspace("cuda")
    workspace.parts.fill_(float("nan"))
    cases = [
        # lens, heads, kv heads, head size, block, window, units, type, first block
        ([1], 32, 8, 128, 64, None, 132, BF16, 1),
        ([1024] * 64, 32, 8, 128, 64, None, 24, BF16, 1),
        ([5, 4000, 64, 63, 65, 1, 777] * 3, 32, 8, 128, 64, None, 132, BF16, 1),
        ([5, 4000, 64, 63, 65, 1, 777] * 3, 32, 8, 128, 16, None, 8, torch.float16, 1),
        ([129, 1000, 16], 16, 1, 64, 128, None, 48, BF16, 1),
        ([129, 1000, 16], 7, 7, 80, 32, None, 16, BF16, 1),
        ([129, 1000, 16], 14, 2, 256, 64, None, 32, BF16, 1),
        ([200, 33, 512], 8, 4, 8, 16, None, 24, torch.float16, 1),
        ([200, 33, 512], 9, 3, 64, 64, None, 24, BF16, 1),
        ([3000, 33, 512, 4097], 32, 8, 128, 64, 512, 64, BF16, 1),
        ([3000, 1000], 32, 8, 128, 64, None, 32, BF16, 10000),
        # scores that outgrow those of their row's first tile: see make_cache
        ([3000, 64, 129], 32, 8, 128, 64, None, 24, BF16, GROWING),
        ([3000, 64, 129], 32, 8, 128, 64, None, 24, torch.float16, GROWING),
    ]
    tiles = (DecodeTile(), DecodeTile(bulk=False))
    for seed, (case, tile) in list(enumerate(itertools.product(cases, tiles)))[part::of]:
        lens, heads, kv_heads, dim, block, window, units, dtype, first_block = case
        torch.manual_seed(seed)
        kv, kv_lens, tables = make_cache(
            lens, kv_heads, dim, block, dtype, first_block, 3e4 if tile.bulk else float("nan")
        )
        q = torch.randn(len(lens), heads, dim, dtype=dtype, device="cuda")
        plan = make_plan(block, dim, dtype.itemsize, len(lens), sum(lens), "cuda")
        plan_decode(plan, kv_lens, tables, block, window)
        poison(len(lens), heads * dim, dtype=dtype)
        got = decode_attention(q, kv, plan, units, workspace, tile)
        label = (lens[:7], *case[1:], tile)
        report.close("attention", label, got, decode_attention_reference(q, kv, kv_lens, tables, block, window))
        if not torch.equal(got, decode_attention(q, kv, plan, units, workspace, tile, chained=True)):
            report.failed.append(f"attention differs between runs: {label}")


def check_elementwise(report: Report, part: int, of: int) -> None:
    """Odd and even widths, both types."""
    for seed, (dtype, rows) in list(enumerate(itertools.product((BF16, torch.float16), (1, 5, 96))))[part::of]:
        torch.manual_seed(seed)
        for width in (576, 4096):
            x, residual = (torch.randn(rows, width, dtype=dtype, device="cuda") for _ in range(2))
            weight = torch.randn(width, dtype=dtype, device="cuda")
            wanted, total = add_rms_norm_reference(x, residual, weight, 1e-5)
            report.close("norm", (dtype, rows, width), add_rms_norm(x, residual, weight, 1e-5), wanted)
            report.close("residual", (dtype, rows, width), residual, total, 1e-6)
            gate_up = torch.randn(rows, 2 * width, dtype=dtype, device="cuda")
            report.close("silu", (dtype, rows, width), silu_mul(gate_up), silu_mul_reference(gate_up))
        for heads, kv_heads, dim in ((32, 8, 128), (9, 3, 64), (8, 4, 8)):
            qkv = torch.randn(rows, (heads + 2 * kv_heads) * dim, dtype=dtype, device="cuda")
            qkv[0, -1] = float("nan")  # never reaches the cache
            angles = torch.rand(1000, dim // 2, device="cuda") * 6.28
            positions = torch.randint(0, 1000, (rows,), device="cuda")
            slots = torch.randperm(1000, device="cuda")[:rows]
            kv = [torch.zeros(1000, 2, kv_heads, dim, dtype=dtype, device="cuda") for _ in range(2)]
            wanted = rope_and_cache_reference(qkv, angles.cos(), angles.sin(), positions, slots, kv[0])
            got = rope_and_cache(qkv, angles.cos(), angles.sin(), positions, slots, kv[1])
            report.close("rope", (dtype, rows, dim), got, wanted)
            report.close("cache", (dtype, rows, dim), kv[1], kv[0])


def check(part: int, of: int) -> dict[str, Any]:
    """A share of all comparisons with float32 torch."""
    report = Report()
    for check_one in (check_elementwise, check_attention, check_matmul):
        try:
            check_one(report, part, of)
            torch.cuda.synchronize()
        except Exception:
            report.failed.append(f"{check_one.__name__}: {traceback.format_exc()[-1500:]}")
    return {"count": report.count, "failed": report.failed, "worst": report.worst}


def check_all(out: Path, of: int = 14) -> dict[str, Any]:
    """All comparisons, in processes side by side, because most of the time is compilation."""
    command = [sys.executable, __file__, "--out", str(out), "--check"]
    workers = [subprocess.Popen([*command, str(i), str(of)], stdout=subprocess.PIPE) for i in range(of)]
    texts = [worker.communicate()[0].decode() for worker in workers]
    reports = [json.loads(text.splitlines()[-1]) for text in texts if text.strip()]
    worst: dict[str, float] = {}
    for report in reports:
        for what, value in report["worst"].items():
            worst[what] = max(worst.get(what, 0.0), value)
    failed = [line for report in reports for line in report["failed"]]
    if len(reports) != of:
        failed.append(f"{of - len(reports)} of {of} processes died")
    count = sum(report["count"] for report in reports)
    print(f"{count} comparisons, {len(failed)} failed; worst relative error:")
    print("  ", {k: f"{v:.1e}" for k, v in worst.items()})
    for line in failed[:12]:
        print("  FAILED", line)
    return {"comparisons": count, "failed": failed, "worst": worst}


# --- single kernels ---------------------------------------------------------------------------------------------------


def matmul_ms(partition: Partition, m: int, shape: str, tile: Tile | None) -> float:
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
                skinny_matmul(x, weight, partition.units, WORKSPACE, tile, gated, True)

    return timed(partition.stream, work) / copies


def tb_s(m: int, shape: str, ms: float) -> float:
    """Weights, x and y over the time."""
    n, k = SHAPES[shape]
    return 2 * (n * k + m * k + m * n) / ms / 1e9


def tune(partitions: dict[int, Partition]) -> list[dict[str, Any]]:
    """Every tile on every shape."""
    rows = []
    for m, shape, units in itertools.product((16, 64, 96), SHAPES, (24, 32, 48, 64, 132)):
        block_m = 64 if m <= 64 else 128
        results = []
        for tile in (None, *(t for t in TILES if t.block_m == block_m)):
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
        table = tile_for(m, SHAPES[shape][0], units)
        chosen = next(tb_s(m, shape, ms) for ms, tile in results if tile == table)
        print(
            f"M {m:3} {shape:8} {units:3} SMs: library {library:.2f}, table {chosen:.2f} {short(table)} | {text}",
            flush=True,
        )
    return rows


def short(tile: Tile | None) -> str:
    """For tables."""
    if tile is None:
        return "library"
    ending = ("" if tile.bulk else " by pointers") + (" ahead" if tile.prefetched else "")
    return f"{tile.block_n}x{tile.block_k}x{tile.stages}{ending}"


def matmuls(partitions: dict[int, Partition], read: dict[int, float]) -> list[dict[str, Any]]:
    """The chosen tile against the library."""
    found = []
    for m, shape in itertools.product((1, 16, 64, 96), SHAPES):
        line = f"M {m:3} {shape:8}"
        for units, partition in partitions.items():
            library = tb_s(m, shape, matmul_ms(partition, m, shape, None))
            tile = tile_for(m, SHAPES[shape][0], units)
            ours = tb_s(m, shape, matmul_ms(partition, m, shape, tile)) if tile else library
            found.append({"m": m, "shape": shape, "units": units, "ours": ours, "library": library})
            share = f" {100 * ours / read[units]:3.0f}%" if units in read else ""
            line += f" | {units}: {ours:.2f}{share} ({library:.2f})"
        print(line, flush=True)
    return found


class Cache:
    """KV of ``rows`` sequences of ``tokens`` tokens in shuffled blocks of one big random cache."""

    def __init__(self, pool: Tensor, rows: int, tokens: int) -> None:
        blocks = -(-tokens // BLOCK_TOKENS)
        order = torch.randperm(rows * blocks, device="cuda").to(torch.int32)
        self.layers = pool
        self.tables = order.view(rows, blocks).contiguous()
        self.lens = torch.full((rows,), tokens, dtype=torch.int32, device="cuda")
        self.plan: DecodePlan = make_plan(BLOCK_TOKENS, DIM, 2, rows, rows * tokens, "cuda")
        self.bytes_per_layer = rows * tokens * 2 * KV_HEADS * DIM * 2
        last = torch.full((rows,), tokens - 1, device="cuda")
        self.positions = last
        self.slots = self.tables[:, -1].long() * BLOCK_TOKENS + last % BLOCK_TOKENS


def make_pool(layers: int, workloads: Sequence[tuple[int, int]] = WORKLOADS) -> Tensor:
    """[layers, slots, 2, K, D] random."""
    slots = max(rows * -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS for rows, tokens in workloads)
    pool = torch.empty(layers, slots, 2, KV_HEADS, DIM, dtype=BF16, device="cuda")
    for layer in pool:
        layer.normal_()
    return pool


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

                def work(cache: Cache = cache, tile: DecodeTile = tile, q: Tensor = q, units: int = units) -> None:
                    for layer in cache.layers:
                        decode_attention(q, layer, cache.plan, units, WORKSPACE, tile, True)

                line[name] = timed(partition.stream, work, 7) / len(pool)
            flash = partial(scaled_dot_product_attention, grouped, key, value)
            line["flash"] = timed(partition.stream, flash, 7)
            rates = {name: cache.bytes_per_layer / ms / 1e9 for name, ms in line.items()}
            found.append({"rows": rows, "tokens": tokens, "units": units, "tb_s": rates})
            print(
                f"{rows:3} x {tokens:5} on {units:3} SMs, TB/s:", {k: round(v, 2) for k, v in rates.items()}, flush=True
            )
    return found


# --- the decode step --------------------------------------------------------------------------------------------------


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

    def step(self, ids: Tensor, cache: Cache, units: int, library: bool, chained: bool) -> Tensor:
        """Logits [rows, VOCAB] of one decode step."""

        def product(x: Tensor, weight: Tensor, shape: str) -> Tensor:
            tile = None if library else tile_for(len(ids), len(weight), units)
            gated = shape == "gate_up"
            if tile is not None:
                return skinny_matmul(x, weight, units, WORKSPACE, tile, gated, chained)
            y = linear(x, weight)
            return silu_mul(y) if gated else y

        residual = self.embedding[ids]
        plan_decode(cache.plan, cache.lens, cache.tables, BLOCK_TOKENS)
        x = add_rms_norm(residual, None, self.norm, 1e-5)
        for weights, kv in zip(self.layers, cache.layers, strict=True):
            qkv = product(x, weights["qkv"], "qkv")
            q = rope_and_cache(qkv, self.cos, self.sin, cache.positions, cache.slots, kv, chained)
            x = decode_attention(q, kv, cache.plan, units, WORKSPACE, decode_tile_for(units), chained)
            x = add_rms_norm(product(x, weights["o"], "o"), residual, self.norm, 1e-5, chained)
            x = product(product(x, weights["gate_up"], "gate_up"), weights["down"], "down")
            x = add_rms_norm(x, residual, self.norm, 1e-5, chained)
        return product(x, self.head, "head")

    def prefill_like(self, x: Tensor) -> None:
        """The matmuls of a prompt chunk, by the library."""
        for weights in self.layers:
            qkv = linear(x, weights["qkv"])
            linear(qkv[:, :WIDTH], weights["o"])
            linear(silu_mul(linear(x, weights["gate_up"])), weights["down"])


VARIANTS = (("plain", False, False), ("chained", False, True), ("library", True, True))
"""Name, whether matmuls are the library's, whether launches are chained."""


def steps(partitions: dict[int, Partition], model: Model, pool: Tensor) -> list[dict[str, Any]]:
    """The whole step by partition: ours, ours chained, and with the library's matmuls."""
    found = []
    for rows, tokens in ((64, 1024), (96, 4096), (32, 8192), (1, 1024)):
        cache = Cache(pool, rows, tokens)
        ids = torch.randint(0, VOCAB, (rows,), device="cuda")
        wanted = model.step(ids, cache, 132, True, False)
        total = model.bytes + LAYERS * cache.bytes_per_layer
        table: dict[str, dict[int, float]] = {}
        for name, library, chained in VARIANTS:
            table[name] = {}
            for units in (24, 32, 48, 64, 132):
                got = model.step(ids, cache, units, library, chained)
                if not error(got, wanted) < 3e-2:
                    print(f"  WRONG {name} {rows} x {tokens} on {units}: {error(got, wanted):.2e}")
                stream = partitions[units].stream
                table[name][units] = timed(stream, partial(model.step, ids, cache, units, library, chained), 7)
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


def corun(partitions: dict[int, Partition], model: Model, pool: Tensor) -> list[dict[str, Any]]:
    """Decode steps on some SMs beside prefill matmuls on the others: rates as shares of each alone on all SMs."""
    found = []
    x = torch.randn(2048, WIDTH, dtype=BF16, device="cuda")
    chunk_all = timed(partitions[132].stream, lambda: model.prefill_like(x), 7)
    for rows, tokens in ((64, 1024), (96, 4096), (32, 8192)):
        cache = Cache(pool, rows, tokens)
        ids = torch.randint(0, VOCAB, (rows,), device="cuda")

        def step(units: int, cache: Cache = cache, ids: Tensor = ids) -> None:
            model.step(ids, cache, units, False, True)

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


# --- main -------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the sections asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", default=["check", "ceilings", "matmul", "attention", "step", "corun"])
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--check", type=int, nargs=2, help="one share of the comparisons, for `check` itself")
    arguments = parser.parse_args()
    if arguments.check:
        print(json.dumps(check(*arguments.check)))
        return
    torch.manual_seed(0)
    torch.cuda.init()
    global WORKSPACE
    WORKSPACE = Workspace("cuda")
    partitions = {units: Partition(units) for units in PARTITIONS}
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    large: list[Any] = []

    def model_and_pool() -> list[Any]:
        if not large:
            large.extend((Model(), make_pool(LAYERS)))
        return large

    sections: dict[str, Callable[[], Any]] = {
        "check": lambda: check_all(arguments.out),
        "ceilings": lambda: ceilings(partitions),
        "tune": lambda: tune(partitions),
        "attention": lambda: attention(partitions),
        "matmul": lambda: matmuls(partitions, results.get("ceilings", {}).get("read_tb_s", {})),
        "step": lambda: steps(partitions, *model_and_pool()),
        "corun": lambda: corun(partitions, *model_and_pool()),
    }
    for name in arguments.sections:
        begin = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            results[name] = sections[name]()
        except Exception:
            results[name] = {"failed": traceback.format_exc()}
            print(results[name]["failed"])
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        print(f"== {name}: {time.monotonic() - begin:.0f} s", flush=True)
        (arguments.out / "bench_gpu.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

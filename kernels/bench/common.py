"""What the sections of `bench_gpu` share: the model's sizes, SM partitions, a cache, timing by graph replays."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from cuda.bindings import driver
from torch import Tensor

from rapid_kernels.gpu.decode_plan import DecodePlan, make_plan
from rapid_kernels.gpu.matmul import Tile
from rapid_kernels.gpu.matmul_hopper import SHARING_BYTES, SlimTile
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
    *(Tile(64, *shape, 4, spread=True) for shape in ((128, 128, 4), (256, 64, 5))),
    Tile(64, 64, 128, 6, 4, spread=True, most=128),
    Tile(128, 128, 64, 6, 8, spread=True),
)

SLIM_TILES = (
    *(SlimTile(n, k, 200 << 10) for n, k in ((64, 64), (64, 128), (128, 64), (128, 128))),
    *(SlimTile(n, 128, 200 << 10, spread=True) for n in (64, 128)),
    SlimTile(64, 128, 200 << 10, spread=True, most=128),
    *(SlimTile(n, k, SHARING_BYTES) for n, k in ((64, 64), (64, 128), (128, 64))),
    *(SlimTile(n, 64, SHARING_BYTES, per_unit=2) for n in (64, 128)),
)


@cache
def workspace() -> Workspace:
    """One stream at a time uses it."""
    return Workspace("cuda")


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


def error(got: Tensor, wanted: Tensor) -> float:
    """Relative, by norm; NaN stays NaN."""
    return float((got.float() - wanted.float()).norm() / wanted.float().norm())


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

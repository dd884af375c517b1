"""The kernels against float32 torch: every tile and launch path, ragged batches, poisoned outputs."""

import itertools
import traceback
from dataclasses import replace
from typing import Any

import torch
from common import BF16, GROWING, SLIM_TILES, TILES, error, make_cache
from torch import Tensor

from rapid_kernels import make_ragged
from rapid_kernels.gpu.attention import decode_attention, decode_attention_reference
from rapid_kernels.gpu.choice import choose
from rapid_kernels.gpu.decode_call import DecodeTile, fits_hopper
from rapid_kernels.gpu.decode_plan import make_plan, plan_decode
from rapid_kernels.gpu.elementwise import (
    add_rms_norm,
    add_rms_norm_reference,
    rope_and_cache,
    rope_and_cache_reference,
    silu_mul,
    silu_mul_reference,
)
from rapid_kernels.gpu.heads import padded_sizes
from rapid_kernels.gpu.kernels import multiply
from rapid_kernels.gpu.matmul import finish_matmul, skinny_matmul_reference
from rapid_kernels.gpu.matmul_hopper import MAX_ROWS, SlimTile
from rapid_kernels.gpu.prefill import prompt_attention
from rapid_kernels.gpu.prefill_hopper import hopper_prompt_attention
from rapid_kernels.gpu.product import Product
from rapid_kernels.gpu.prompt_plan import make_prompt_plan
from rapid_kernels.gpu.tuning import ALONE_UNITS, HOPPER_PROMPT, PROMPT, PROMPTS_PER_UNIT, decode_tile_for
from rapid_kernels.gpu.workspace import Workspace
from rapid_kernels.reference import ReferenceKernels


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
    for seed, tile in list(enumerate((*TILES, *SLIM_TILES)))[part::of]:
        torch.manual_seed(seed)
        for (n, k), units, gated in itertools.product(
            ((6144, 4096), (1000, 576), (4096, 14336)), (8, 24, 132), (False, True)
        ):
            if isinstance(tile, SlimTile) and tile.block_n // (1 + gated) < 64:
                continue
            most = MAX_ROWS if isinstance(tile, SlimTile) else tile.block_m
            dtype = torch.float16 if k == 576 else BF16
            weight = torch.randn(n, k, dtype=dtype, device="cuda") / k**0.5
            for m in {1, 7, 16, most // 2 + 1, most}:
                x = torch.randn(m, k, dtype=dtype, device="cuda")
                poison(m, n // (1 + gated), dtype=dtype)
                y = finish_matmul(multiply(x, weight, units, workspace, tile, gated, False), gated, False)
                case = (m, n, k, units, gated, tile)
                report.close("matmul", case, y, skinny_matmul_reference(x, weight, gated))
                again = finish_matmul(multiply(x, weight, units, workspace, tile, gated, True), gated, True)
                if not torch.equal(y, again):
                    report.failed.append(f"matmul differs between runs: {case}")
                if not gated:
                    left = multiply(x, weight, units, workspace, tile, gated, True)
                    check_parts(report, case, left, y)


def check_parts(report: Report, case: object, left: Product, y: Tensor) -> None:
    """What the next kernel makes of a product in parts has the bits that it has of the finished one.

    But a norm, which sums its row in another order.
    """
    residuals = [torch.ones_like(y) for _ in range(2)]
    weight = torch.ones_like(y[0])
    normed = [add_rms_norm(left, residuals[0], weight, 1e-5, True), add_rms_norm(y, residuals[1], weight, 1e-5, True)]
    report.close("norm of parts", case, *normed)
    if not torch.equal(*residuals):
        report.failed.append(f"sum of parts differs: {case}")
    if y.shape[1] % 128 == 0:
        angles = torch.rand(8, 64, device="cuda")
        positions = torch.arange(len(y), device="cuda") % 8
        slots = torch.arange(len(y), device="cuda")
        caches = [torch.zeros(len(y), 2, 8, 128, dtype=y.dtype, device="cuda") for _ in range(2)]
        left = replace(left, y=left.y.clone())
        table = angles.cos(), angles.sin(), positions, slots
        rotated = [
            rope_and_cache(left, *table, caches[0], True),
            rope_and_cache(y.clone(), *table, caches[1], True),
        ]
        if not torch.equal(*rotated) or not torch.equal(*caches):
            report.failed.append(f"rotation of parts differs: {case}")


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
    tiles = (
        DecodeTile(),
        DecodeTile(bulk=False),
        *(
            decode_tile_for(ALONE_UNITS, alone, hopper)
            for alone, hopper in ((True, False), (True, True), (False, True))
        ),
    )
    for seed, (case, tile) in list(enumerate(itertools.product(cases, tiles)))[part::of]:
        lens, heads, kv_heads, dim, block, window, units, dtype, first_block = case
        torch.manual_seed(seed)
        kv, kv_lens, tables = make_cache(
            lens, kv_heads, dim, block, dtype, first_block, 3e4 if tile.bulk else float("nan")
        )
        q = torch.randn(len(lens), heads, dim, dtype=dtype, device="cuda")
        plan = make_plan(block, dim, dtype.itemsize, len(lens), sum(lens), "cuda")
        if tile.hopper and not fits_hopper(plan.tile_tokens, padded_sizes(heads // kv_heads, dim)[1]):
            continue
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


def check_choice(report: Report, part: int, of: int) -> None:
    """Of few and many rows, with many equal logits, NaN and infinities: the ids, flags, tokens and logits of torch."""
    sizes = itertools.product((BF16, torch.float16, torch.float32), (1, 5, 96, 256), (1000, 32_001, 128_256))
    ragged = make_ragged([1], [1], [[1]], 64, 132, "cuda")
    for seed, (dtype, rows, vocab) in list(enumerate(sizes))[part::of]:
        torch.manual_seed(seed)
        logits = torch.randn(rows, vocab, device="cuda").mul_(4).round_().to(dtype)
        for row, value in ((1, float("nan")), (2, float("inf")), (3, float("-inf"))):
            logits[row : row + 1, torch.randint(0, vocab, (3,), device="cuda")] = value
        logits[4:5] = float("-inf")
        target = torch.randperm(2 * rows, device="cuda")[:rows]

        def run(kind: str, logits: Tensor = logits, target: Tensor = target) -> tuple[Tensor, Tensor, Tensor]:
            out = torch.full(logits.shape, 7.0, device="cuda")
            chosen = torch.full((2, len(logits)), -1, dtype=torch.int32, device="cuda")
            tokens = torch.full((2 * len(logits),), -1, dtype=torch.int32, device="cuda")
            if kind == "torch":
                ReferenceKernels().choose(logits, out, chosen, tokens, target, ragged)
            else:
                choose(logits, out, chosen, tokens, target, kind == "chained")
            return out.nan_to_num_(), chosen, tokens

        wanted = run("torch")
        for kind in ("plain", "chained"):
            report.count += 1
            if not all(map(torch.equal, run(kind), wanted)):
                report.failed.append(f"choice {dtype} {rows} x {vocab} {kind}")


def prompt_reference(
    q: Tensor, kv: Tensor, rows: list[tuple[int, int]], tables: Tensor, block: int, window: int | None
) -> Tensor:
    """q [T, H, D] of rows (cached tokens, new tokens), row by row in float32 arithmetic."""
    outputs, at = [], 0
    for row, (cached, new) in enumerate(rows):
        keys = torch.arange(cached + new, device="cuda")
        slots = tables[row, keys // block].long() * block + keys % block
        key, value = kv[slots].float().permute(1, 2, 0, 3).repeat_interleave(q.shape[1] // kv.shape[2], 1).unbind(0)
        behind = torch.arange(cached, cached + new, device="cuda")[:, None] - keys
        hidden = (behind < 0) | (behind >= (window or cached + new))
        scores = q[at : at + new].float().transpose(0, 1) @ key.transpose(-1, -2) * q.shape[2] ** -0.5
        outputs.append((scores.masked_fill_(hidden, float("-inf")).softmax(-1) @ value).transpose(0, 1).flatten(1))
        at += new
    return torch.cat(outputs)


def check_prompt_attention(report: Report, part: int, of: int) -> None:
    """Ragged chunks behind cached tokens, tiles whole and cut; block, head and group sizes; windows; both kernels."""
    ragged_rows = [(0, 200), (700, 130), (16, 2), (33, 64)]
    long_rows = [(16000, 16), (0, 9), (1000, 33)]
    cases = [
        # rows, heads, kv heads, head size, block, type, window
        (ragged_rows, 32, 8, 128, 64, BF16, None),
        ([(0, 2048)], 32, 8, 128, 64, BF16, None),
        ([(4096, 777)], 32, 8, 128, 64, BF16, None),
        (ragged_rows, 32, 8, 128, 16, BF16, None),
        (ragged_rows, 32, 8, 128, 128, torch.float16, None),
        (ragged_rows, 9, 3, 64, 64, BF16, None),
        (ragged_rows, 14, 2, 256, 64, BF16, None),
        (ragged_rows, 7, 7, 80, 32, BF16, None),
        (ragged_rows, 16, 1, 64, 32, BF16, None),
        (ragged_rows, 8, 4, 8, 16, torch.float16, None),
        (ragged_rows, 32, 8, 128, 64, BF16, 100),
        (ragged_rows, 6, 2, 36, 64, BF16, 50),
        (ragged_rows, 6, 2, 36, 64, torch.float16, 5),
        # cut into pieces, some or all, but for the last
        ([(15999, 64), (16000, 1)], 32, 8, 128, 64, BF16, None),
        ([(16384, 256)], 32, 8, 128, 64, BF16, None),
        ([(16128, 320)], 32, 8, 128, 64, BF16, None),
        ([(9000, 624), (0, 40)], 32, 8, 128, 64, BF16, None),
        ([(300, 40), (5000, 800)], 32, 8, 128, 64, BF16, None),
        (long_rows, 32, 8, 128, 64, BF16, None),
        (long_rows, 32, 8, 128, 16, torch.float16, None),
        (long_rows, 32, 8, 128, 128, BF16, None),
        (long_rows, 9, 3, 64, 64, BF16, None),
        (long_rows, 14, 2, 256, 64, BF16, None),
        (long_rows, 7, 7, 80, 32, BF16, None),
        (long_rows, 16, 1, 64, 32, BF16, None),
        (long_rows, 8, 4, 8, 16, torch.float16, None),
        (long_rows, 6, 2, 36, 64, BF16, None),
        (long_rows, 32, 8, 128, 64, BF16, 2000),
    ]
    for seed, case in list(enumerate(cases))[part::of]:
        for hopper in (False, True):
            if not hopper or (case[-1] is None and case[3] % 8 == 0):
                torch.manual_seed(seed)
                wanted, got, again = prompt_case(*case, hopper=hopper)
                report.close("prompt attention", (*case, hopper), got, wanted)
                if not torch.equal(got, again):
                    report.failed.append(f"prompt attention differs between runs: {case} {hopper}")


def prompt_case(
    rows: list[tuple[int, int]],
    heads: int,
    kv_heads: int,
    dim: int,
    block: int,
    dtype: torch.dtype,
    window: int | None,
    *,
    hopper: bool,
) -> list[Tensor]:
    """What should come out, and what came out twice. Only loads by pointers are promised to leave NaN alone."""
    lens = [cached + new for cached, new in rows]
    kv, _, tables = make_cache(lens, kv_heads, dim, block, dtype, 1, 3e4 if hopper else float("nan"))
    q = torch.randn(sum(new for _, new in rows), heads + 2 * kv_heads, dim, dtype=dtype, device="cuda")[:, :heads]
    ragged = make_ragged([new for _, new in rows], lens, tables.tolist(), block, 132, "cuda")
    wave = PROMPTS_PER_UNIT * ragged.units // kv_heads if window is None else 0
    plan = make_prompt_plan(ragged, PROMPT.queries // padded_sizes(heads // kv_heads, dim)[0], wave)
    workspace = Workspace("cuda")
    workspace.parts.fill_(float("nan"))
    results = [prompt_reference(q, kv, rows, tables, block, window)]
    for _ in range(2):
        poison(len(q), heads * dim, dtype=dtype)
        if hopper:
            results.append(hopper_prompt_attention(q, kv, ragged, plan, HOPPER_PROMPT, workspace))
        else:
            results.append(prompt_attention(q, kv, ragged, plan, PROMPT, workspace, window))
    return results


def check(part: int, of: int) -> dict[str, Any]:
    """A share of all comparisons with float32 torch."""
    report = Report()
    for check_one in (check_elementwise, check_choice, check_attention, check_prompt_attention, check_matmul):
        try:
            check_one(report, part, of)
            torch.cuda.synchronize()
        except Exception:
            report.failed.append(f"{check_one.__name__}: {traceback.format_exc()[-1500:]}")
    return {"count": report.count, "failed": report.failed, "worst": report.worst}

"""The GPU kernels' logic in Triton's interpreter, on the CPU, against their plain-torch references.

The interpreter is chosen when the kernels are imported, so all cases run in one process of their own; each is a test
here. float16 and float32 only: the interpreter is silently wrong in bfloat16. What it cannot show: the bulk copy engine
in attention (its exponential is inline assembly), timing, memory order. Those are GPU tests: docs/gpu-tests.md.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from support.beside import Program

pytest.importorskip("triton", reason="triton is not installed: GPU kernels cannot be interpreted")

INTERPRET_S = 480
Errors = list[float]
"""Relative errors by norm."""


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted.float()).norm() / wanted.float().norm())


def poisoned_workspace() -> Any:
    from rapid_kernels.gpu.workspace import Workspace

    workspace = Workspace("cpu", 1 << 22)
    workspace.parts.fill_(float("nan"))
    return workspace


def matmul_case(bulk: bool, gated: bool) -> Errors:
    """Whole and cut tiles, rows and columns past the end, a K that the steps do not divide."""
    from rapid_kernels.gpu.matmul import Tile, finish_matmul, skinny_matmul_reference, skinny_product

    workspace = poisoned_workspace()
    errors = []
    for m, n, k, units in ((5, 192, 128, 5), (3, 160, 96, 7), (16, 64, 256, 3), (1, 128, 64, 2)):
        x, weight = torch.randn(m, k).half(), torch.randn(n, k).half()
        left = skinny_product(x, weight, units, workspace, Tile(16, 64, 32, 3, 4, bulk=bulk), gated)
        got = finish_matmul(left, gated, chained=False)
        errors.append(error(got, skinny_matmul_reference(x, weight, gated)))
    return errors


def attention_case(dtype: torch.dtype, growth: float) -> Errors:
    """Ragged rows, cut and whole; block, head and group sizes; a window; NaN wherever no row has written.

    ``growth``: the last key is so much longer than the first. Weights are exact in float16, and in float32 relative to
    the row's first tile unless scores outgrow that.
    """
    from rapid_kernels.gpu.attention import decode_attention, decode_attention_reference
    from rapid_kernels.gpu.decode_call import DecodeTile
    from rapid_kernels.gpu.decode_plan import make_plan, plan_decode

    workspace = poisoned_workspace()
    errors = []
    for lens, heads, kv_heads, dim, block, units, window in (
        ([5, 100, 64], 8, 2, 32, 16, 3, None),
        ([130, 1], 4, 4, 8, 64, 5, None),
        ([70], 12, 1, 16, 32, 1, None),
        ([200, 33], 6, 3, 24, 64, 7, 50),
    ):
        counts = [-(-length // block) for length in lens]
        order = (torch.randperm(sum(counts)) + 1).to(torch.int32)
        tables = torch.zeros(len(lens), max(counts) + 1, dtype=torch.int32)
        kv = torch.full(((sum(counts) + 2) * block, 2, kv_heads, dim), float("nan"), dtype=dtype)
        for row, (length, blocks) in enumerate(zip(lens, torch.split(order, counts), strict=True)):
            tables[row, : len(blocks)] = blocks
            index = torch.arange(length)
            new = torch.randn(length, 2, kv_heads, dim)
            new[:, 0] *= torch.linspace(1, growth, length)[:, None, None]
            kv[tables[row, index // block].long() * block + index % block] = new.to(dtype)
        q = torch.randn(len(lens), heads, dim).to(dtype)
        kv_lens = torch.tensor(lens, dtype=torch.int32)
        plan = make_plan(block, dim, dtype.itemsize, len(lens), sum(lens), "cpu")
        plan_decode(plan, kv_lens, tables, block, window)
        got = decode_attention(q, kv, plan, units, workspace, DecodeTile(bulk=False))
        errors.append(error(got, decode_attention_reference(q, kv, kv_lens, tables, block, window)))
    return errors


def elementwise_case() -> Errors:
    """Odd sizes; the residual and the cache are outputs too."""
    from rapid_kernels.gpu import elementwise as e

    x, residual, weight = torch.randn(3, 96).half(), torch.randn(3, 96).half(), torch.randn(96).half()
    wanted, total = e.add_rms_norm_reference(x, residual, weight, 1e-5)
    errors = [error(e.add_rms_norm(x, residual, weight, 1e-5), wanted), error(residual, total)]
    errors.append(error(e.add_rms_norm(x, None, weight, 1e-5), e.add_rms_norm_reference(x, None, weight, 1e-5)[0]))
    gate_up = torch.randn(3, 200).half()
    errors.append(error(e.silu_mul(gate_up), e.silu_mul_reference(gate_up)))
    heads, kv_heads, dim = 6, 2, 24
    qkv = torch.randn(3, (heads + 2 * kv_heads) * dim).half()
    qkv[0, -1], qkv[1, -2] = float("inf"), float("nan")  # never reach the cache
    cos, sin = torch.randn(50, dim // 2), torch.randn(50, dim // 2)
    positions, slots = torch.tensor([3, 49, 0]), torch.tensor([7, 2, 30])
    caches = [torch.zeros(40, 2, kv_heads, dim).half() for _ in range(2)]
    rotated = e.rope_and_cache_reference(qkv, cos, sin, positions, slots, caches[0])
    errors.append(error(e.rope_and_cache(qkv.clone(), cos, sin, positions, slots, caches[1]), rotated))
    errors.append(error(caches[1], caches[0]))
    norm = torch.randn(dim).half(), torch.randn(dim).half(), 1e-5
    qkv[:2, -2:] = 0  # the norm would spread what is not finite over its head
    rotated = e.rope_and_cache_reference(qkv, cos, sin, positions, slots, caches[0], norm)
    errors.append(error(e.rope_and_cache(qkv, cos, sin, positions, slots, caches[1], qk_norm=norm), rotated))
    errors.append(error(caches[1], caches[0]))
    return errors


def parts_case() -> Errors:
    """What the next kernel makes of a product in parts has the bits that it has of the finished product.

    Tiles in up to seven parts and whole ones, rows narrower than a tile, heads in several tiles, several heads in one.
    """
    from rapid_kernels.gpu import elementwise as e
    from rapid_kernels.gpu.matmul import Tile, finish_matmul, skinny_product

    found = []
    parts = []
    for m, n, k, units, block_n in (
        (5, 192, 256, 13, 64),
        (3, 160, 96, 4, 64),
        (4, 96, 320, 7, 128),
        (1, 64, 64, 1, 64),
    ):
        x, weight = torch.randn(m, k).half(), torch.randn(n, k).half()
        tile = Tile(16, block_n, 32, 3, 4, bulk=False, spread=True)
        left, done = (skinny_product(x, weight, units, poisoned_workspace(), tile) for _ in range(2))
        parts.append(left.most_parts)
        whole = finish_matmul(done, False, False)
        residual, norm = torch.randn(m, n).half(), torch.randn(n).half()
        residuals = residual.clone(), residual.clone()
        normed = (e.add_rms_norm(left, residuals[0], norm, 1e-5), e.add_rms_norm(whole, residuals[1], norm, 1e-5))
        heads, dim = (n // 16 - 2, 16) if n < 192 else (4, 32)
        cos, sin = torch.randn(50, dim // 2), torch.randn(50, dim // 2)
        positions, slots = torch.randint(0, 50, (m,)), torch.randperm(40)[:m]
        caches = [torch.zeros(40, 2, 1, dim).half() for _ in range(2)]
        rotated = (
            e.rope_and_cache(left, cos, sin, positions, slots, caches[0]),
            e.rope_and_cache(whole, cos, sin, positions, slots, caches[1]),
        )
        assert rotated[0].shape == (m, heads, dim)
        for got, wanted in (normed, residuals, rotated, caches):
            found.append(float(not torch.equal(got, wanted)))
    assert parts == [5, 2, 7, 1]
    return found


def choice_case(dtype: torch.dtype) -> Errors:
    """0: as it should be. Vocabularies of one piece and of several, whole and with a rest; by what each row holds."""
    from rapid_kernels.gpu.choice import PIECE, choose
    from support.choices import wrong_choices

    sizes = [(1, 1, 0), (70, 33, 0), (13, PIECE, 0), (13, 2 * PIECE + 1, 0), (1, 128_256, 2), (1, 5000, 9)]
    return [float(len(wrong_choices(choose, rows, vocab, dtype, first=first))) for rows, vocab, first in sizes]


def read_case() -> Errors:
    """Every element once, with more programs than tiles and with fewer."""
    from rapid_kernels.gpu.read import read_all

    data = torch.randint(-1000, 1000, (64 * 9,), dtype=torch.int32)
    found = []
    for units in (2, 7):
        out = torch.full((2 * units + 1,), 9, dtype=torch.int32)
        read_all(data, out, units, (64, 3, 4, 2))
        found += [float(out[:-1].sum() != data.sum()), float(out[-1] != 9)]
    return found


def plan_case() -> Errors:
    """Every key of every token is in one piece, and so seen once; of a row the tiles with the most keys come first.

    0: as it should be. By tokens of a tile, decode rows, chunks, tokens of a block, tiles that run at a time, and
    pieces found, those of cut tiles and the others. The times that choose: `rapid_kernels.gpu.prompt_plan._spare`.
    """
    from rapid_kernels import make_ragged
    from rapid_kernels.gpu.prompt_plan import make_prompt_plan

    wrong = []
    for tile_tokens, decode, chunks, block, wave, cut, whole in (
        (4, [7, 0], [(0, 20), (33, 7), (16, 2)], 16, 0, 0, 8),
        (16, [], [(5, 150)], 16, 0, 0, 10),
        (64, [3], [(i, 1 + i % 9) for i in range(1, 67)], 16, 0, 0, 66),  # more rows than are looked at at once
        (16, [3], [(2000, 20)], 16, 11, 10, 0),  # two tiles of 32 units: five pieces each
        (16, [], [(2000, 20)], 64, 18, 14, 0),  # no piece of fewer than four units
        (16, [3], [(9000, 16), (0, 30), (300, 5), (1500, 40)], 128, 11, 3, 6),
        (16, [], [(16128, 80)], 64, 11, 10, 0),  # half a wave of tiles: two pieces each
        (16, [], [(1000, 80)], 64, 11, 0, 5),  # too short to pay for a merge
        (16, [100], [(8000, 80)], 64, 11, 10, 0),
        (16, [20000] * 2, [(8000, 80)], 64, 11, 0, 5),  # the decode rows' keys are read meanwhile
        (16, [], [(16128, 112)], 64, 11, 21, 0),  # two waves of thirds, rather than one of whole tiles
        (16, [], [(16128, 160)], 64, 11, 0, 10),  # nearly a wave
        (16, [2], [(16128, 208)], 64, 11, 10, 11),  # a wave, and two tiles that fill another one in five pieces each
        (16, [], [(0, 40), (9000, 208)], 64, 11, 10, 11),  # the row with the most keys is the one that is cut
        (16, [], [(16128, 540)], 64, 11, 0, 34),  # three waves and more: none is cut
        (128, [], [(512 + i, 130) for i in range(8)], 16, 9, 0, 16),
        (16, [40], [(2400, 4), (600, 20), (0, 9)], 16, 20, 13, 1),
        (64, [40], [(2200, 4), (1100, 9)], 128, 12, 6, 0),
    ):
        rows = [(cached, 1) for cached in decode] + chunks
        lens = [cached + new for cached, new in rows]
        ragged = make_ragged([new for _, new in rows], lens, [[1] * -(-n // block) for n in lens], block, 8)
        plan = make_prompt_plan(ragged, tile_tokens, wave)
        (left, *_), *entries = plan.tiles.tolist()
        wrong.append(float(not is_whole(entries, rows, decode, block)))
        found = [entry[7] > 1 for entry in entries if entry[1]]
        wrong += [float(sum(found) != cut), float(len(found) - sum(found) != whole)]
        wrong.append(float(any(entry[7] > 1 for entry in (*entries[:left], *entries[left + plan.most_cut :]))))
    return wrong


def waves_case() -> Errors:
    """The cost model's waves are the plan's, behind a context so long that merging pieces hardly counts.

    How much longer than by the model the pieces of each number of tiles take. The plan may have chosen fewer pieces, in
    one wave and not in two, where that saves merging.
    """
    from rapid_kernels import make_ragged
    from rapid_kernels.gpu.prompt_plan import make_prompt_plan
    from rapidd.policy.profile import PromptWave
    from rapidd.policy.waves import Filling

    wave, tokens, cached = 5, 4, 65_536
    filling = Filling(0, PromptWave(wave, tokens))
    found = []
    for tiles in range(1, 3 * wave, 2):
        ragged = make_ragged([tiles * tokens], [cached + tiles * tokens], [[1] * 1100], 64, 8)
        (left, *_), *entries = make_prompt_plan(ragged, tokens, wave).tiles.tolist()
        pieces = [entry[7] for entry in entries[left:] if entry[1]]
        waves = left / wave + (-(-len(pieces) // wave) / pieces[0] if pieces else 0.0)
        ratio = waves * wave * tokens / filling.tokens(tiles * tokens)
        found.append(0.0 if 1.0 - 1e-9 <= ratio < 1.2 else ratio)
    return found


def is_whole(entries: list[list[int]], rows: list[tuple[int, int]], decode: list[int], block: int) -> bool:
    """Whether a plan's pieces are the tokens of the rows behind the decode rows, each with all keys that it sees."""
    keys_of: dict[int, tuple[int, int]] = {}  # by token: its row, and how many keys it has seen
    before = None
    for number, (first, count, position, row, first_block, keys, index, pieces) in enumerate(entries):
        if count == 0:
            continue
        first_key = first_block * block
        assert keys >= 193 or pieces == 1
        assert position >= 0, "each token sees the first key of each of its pieces"
        if index == 0:
            assert first_key == 0
            assert before is None or before[0] != row or first < before[1], "the tile with the most keys comes first"
            before = row, first
        else:
            assert entries[number - 1][:2] == [first, count]
            assert entries[number - 1][6:] == [index - 1, pieces]
        for token in range(first, first + count):
            of_row, seen = keys_of.setdefault(token, (row, 0))
            assert (of_row, seen) == (row, first_key)
            keys_of[token] = row, seen + min(keys, position + token - first + 1)
    cached = [(row, cached + i + 1) for row, (cached, new) in enumerate(rows) if row >= len(decode) for i in range(new)]
    return [keys_of.get(token) for token in range(len(keys_of))] == cached


def kernels_case(rows: list[tuple[int, int]], **changes: Any) -> Errors:
    """Every call of `GpuKernels`, all by pointers; NaN wherever no row has written."""
    from rapid_kernels.gpu.kernels import GpuKernels
    from support.kernel_errors import Case, worst_errors

    case = Case(rows, kv_heads=2, group=3, dim=24, dtype=torch.float16, units=3)
    return list(worst_errors(GpuKernels(bulk=False, hopper=False), replace(case, **changes)).values())


CASES: dict[str, Callable[[], Errors]] = {"elementwise": elementwise_case}
for bulk, gated in itertools.product((False, True), repeat=2):
    name = f"matmul-{'bulk' if bulk else 'pointers'}{'-gated' if gated else ''}"
    CASES[name] = lambda bulk=bulk, gated=gated: matmul_case(bulk, gated)  # type: ignore[misc]
CASES["attention-exact"] = lambda: attention_case(torch.float16, 1)
CASES["attention-first-tile"] = lambda: attention_case(torch.float32, 1)
CASES["parts"] = parts_case
CASES["choice-float16"] = lambda: choice_case(torch.float16)
CASES["choice-float32"] = lambda: choice_case(torch.float32)
CASES["read"] = read_case
CASES["prompt-plan"] = plan_case
CASES["prompt-waves"] = waves_case
CASES["kernels-decode"] = lambda: kernels_case([(37, 1), (0, 1), (15, 1)])
CASES["kernels-window"] = lambda: kernels_case([(70, 1), (0, 1), (40, 6)], window=20)
CASES["kernels-chunks"] = lambda: kernels_case([(0, 20), (33, 7)], qk_norm=True, group=1)
CASES["kernels-long-chunks"] = lambda: kernels_case([(0, 70), (131, 66), (5, 1)], kv_heads=1, block_tokens=64)
CASES["kernels-narrow-window"] = lambda: kernels_case([(0, 60), (90, 40)], window=5, dim=12)
# Chunks whose tiles are cut into pieces, many and few (see `plan_case`), beside one whose tile is not.
CASES["kernels-pieces"] = lambda: kernels_case([(40, 1), (2400, 4), (600, 20), (0, 9)], units=20)
CASES["kernels-pieces-wide-blocks"] = lambda: kernels_case(
    [(40, 1), (2200, 4), (1100, 9)], units=6, kv_heads=1, group=1, block_tokens=128
)
CASES["kernels-whole-behind-a-window"] = lambda: kernels_case([(800, 4)], units=24, window=600, block_tokens=64)
CASES["kernels-mixed"] = lambda: kernels_case([(50, 1), (3, 1), (16, 20), (0, 5), (8, 1)], bias=True, dim=8)
CASES["attention-outgrown"] = lambda: attention_case(torch.float32, 100)


@pytest.fixture(scope="module")
def errors(interpretation: Program) -> dict[str, Errors]:
    status, output = interpretation.result(INTERPRET_S)
    assert status == 0, output[-4000:]
    found: dict[str, Errors] = json.loads(output.splitlines()[-1])
    return found


@pytest.mark.timeout(INTERPRET_S + 20)
@pytest.mark.parametrize("case", CASES)
def test_kernel(case: str, errors: dict[str, Errors]) -> None:
    """Half a unit in the last place of float16 is 5e-4 relative; a product and its bias are rounded one by one."""
    assert errors[case]
    for found in errors[case]:
        assert found < (1e-3 if case.startswith("kernels") else 6e-4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # new memory is filled with NaN
    results = {}
    for seed, (case, run) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        results[case] = run()
    print(json.dumps(results))

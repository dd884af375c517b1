"""Every GPU kernel, in the tiles that may be chosen, compiles for its chips and fits them: no device is needed.

Compiling checks neither shared memory nor spills, so both are held against the chip here. sm_90 gets every tile of the
table; AMD's chips and NVIDIA's older ones get the tiles that load by pointers, compiled beside the others by this file
as a program, on another core. Nothing here says that a kernel computes what it should.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed: GPU kernels cannot be compiled")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.experimental.gluon import language as gl  # noqa: E402
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction  # noqa: E402

from rapid_kernels.gpu import (  # noqa: E402
    attention,
    choice,
    decode_plan,
    elementwise,
    matmul,
    matmul_hopper,
    prefill,
    prefill_hopper,
    probe,
    prompt_plan,
    read,
    tuning,
)

HOPPER = GPUTarget("cuda", 90, 32)
CDNA = [GPUTarget("hip", arch, 64) for arch in ("gfx90a", "gfx942", "gfx950")]
AMPERE = GPUTarget("cuda", 86, 32)
SHARED_BYTES = {"gfx90a": 65536, "gfx942": 65536, "gfx950": 163840, 86: 101376, 90: 232448}
"""Shared memory that a program may use."""
ALIGNED = [["tt.divisibility", 16]]
UNALIGNED_ARGUMENTS = {"m", "rows", "programs", "window", "eps", "scale", "table_stride", "first_row", "blocks"}
UNALIGNED_ARGUMENTS |= {"most_pieces", "tokens"}

Job = tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]
"""Kernel, types of its arguments, constants, options."""


def matmul_jobs(tile: matmul.Tile, gated: bool) -> list[Job]:
    halves = 1 + gated
    constants = {"K": 4096, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
    constants |= {"STAGES": tile.stages, "BULK": tile.bulk, "GATED": gated, "CHAINED": tile.bulk}
    arguments = {
        "x": f"tensordesc<bf16[{tile.block_m}, {tile.block_k}]>" if tile.bulk else "*bf16",
        "weight": f"tensordesc<bf16[{halves}, {tile.block_n // halves}, {tile.block_k}]>" if tile.bulk else "*bf16",
    }
    arguments |= {"weight_at": "*bf16", "y": "*bf16", "parts": "*fp32", "m": "i32", "N": "i32", "x_stride": "i32"}
    finish = {"K_STEPS": 4096 // tile.block_k, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n}
    finish |= {"ROWS": matmul.FINISHED_ROWS, "GATED": gated, "CHAINED": tile.bulk}
    finish_arguments = {"y": "*bf16", "parts": "*fp32", "m": "i32", "N": "i32", "programs": "i32"}
    return [
        (
            matmul.skinny_matmul_kernel,
            arguments,
            constants | {"PREFETCH": tile.prefetched},
            {"num_warps": tile.warps},
        ),
        (matmul.finish_matmul_kernel, finish_arguments, finish, {"num_warps": 4}),
    ]


def slim_matmul_jobs(tile: matmul_hopper.SlimTile, gated: bool) -> list[Job]:
    jobs: list[Job] = []
    for rows in (16, 32):
        blocks = [rows, tile.block_k], [tile.block_n // (1 + gated), tile.block_k]
        layouts = [gl.NVMMASharedLayout.get_default_for(block, gl.bfloat16) for block in blocks]
        arguments = {"x": f"tensordesc<bf16{blocks[0]},{layouts[0]!r}>"}
        arguments |= {"weight": f"tensordesc<bf16{blocks[1]},{layouts[1]!r}>", "y": "*bf16", "parts": "*fp32"}
        constants = {"K": 4096, "ROWS": rows, "STAGES": tile.stages(rows), "PARTS": 1 + gated, "CHAINED": True}
        registers = {"maxnreg": 128} if tile.memory <= matmul_hopper.SHARING_BYTES else {}
        warps = {"num_warps": 4}
        arguments |= {"m": "i32", "N": "i32"}
        jobs.append((matmul_hopper.slim_matmul_kernel, arguments, constants | warps, warps | registers))
    return jobs


def attention_jobs(tile: attention.DecodeTile, kv_heads: int, group: int, dim: int) -> list[Job]:
    queries, padded = max(16, triton.next_power_of_2(group)), max(16, triton.next_power_of_2(dim))
    tokens = decode_plan.make_plan(64, dim, 2, 1, 1, "cpu").tile_tokens
    shape = {"KV_HEADS": kv_heads, "GROUP": group, "DIM": dim, "QUERIES": queries, "PADDED": padded}
    own = {"TILE": tokens, "STAGES": tile.stages, "BULK": tile.bulk, "EXACT": False}
    arguments = {
        "q": f"tensordesc<bf16[1, 1, {queries}, {padded}]>" if tile.bulk else "*bf16",
        "kv": f"tensordesc<bf16[1, {tokens}, {padded}]>" if tile.bulk else "*bf16",
    }
    arguments |= {"out": "*bf16", "tiles": "*i64", "first": "*i32", "parts": "*fp32"}
    arguments |= {"rows": "i32", "q_stride": "i32", "scale": "fp32"}
    merge = {"out": "*bf16", "tiles": "*i64", "first": "*i32", "parts": "*fp32", "rows": "i32"}
    at_once = {"AT_ONCE": attention.MERGED_QUERIES, "PIECES": attention.MERGED_PIECES}
    chained = {"CHAINED": tile.bulk}
    roles = [chained | {"LEADS": False}] + ([{"CHAINED": False, "LEADS": True}] if tile.bulk else [])
    return [
        *(
            (attention.decode_attention_kernel, arguments, shape | own | role, {"num_warps": tile.warps})
            for role in roles
        ),
        (
            attention.merge_kernel,
            merge,
            shape | at_once | chained | {"PLANNED": True},
            {"num_warps": attention.MERGING_WARPS},
        ),
    ]


def other_jobs(chained: bool) -> list[Job]:
    plan = {"kv_lens": "*i32", "block_tables": "*i32", "tiles": "*i64", "first": "*i32"}
    plan |= {"rows": "i32", "table_stride": "i32", "window": "i32"}
    plan_constants = {"BLOCK_TOKENS": 64, "TILE": 64, "ROWS": 256, "CHUNK": 128}
    prompts = {"query_start": "*i32", "kv_lens": "*i32", "tiles": "*i32", "first_row": "i32", "rows": "i32"}
    prompts |= {"most_pieces": "i32"}
    prompt_constants = {"TOKENS": 16, "UNIT": 64, "BLOCK_TOKENS": 64, "LEAST_UNITS": 4, "ROWS": prompt_plan.ROWS}
    norm = {"x": "*bf16", "parts": "*fp32", "residual": "*bf16", "weight": "*bf16", "out": "*bf16"}
    norm |= {"programs": "i32", "eps": "fp32"}
    rope = {
        "qkv": "*bf16",
        "parts": "*fp32",
        "programs": "i32",
        "cos": "*fp32",
        "sin": "*fp32",
        "positions": "*i64",
        "slots": "*i64",
        "kv": "*bf16",
    }
    rope |= {"q_weight": "*bf16", "k_weight": "*bf16", "eps": "fp32"}
    norm_constants = {"WIDTH": 4096, "PADDED": 4096, "ADD": True}
    rope_constants = {"HEADS": 32, "KV_HEADS": 8, "DIM": 128, "PADDED": 64, "GROUP": 8}
    whole = {"K_STEPS": 1, "BLOCK_M": 1, "MOST": 1}
    cut = {"K_STEPS": 32, "BLOCK_M": 64, "MOST": 5}
    silu = {"gate_up": "*bf16", "out": "*bf16"}
    best = {"logits": "*bf16", "out": "*fp32", "bests": "*fp32", "firsts": "*i32"}
    chosen = {"bests": "*fp32", "firsts": "*i32", "chosen": "*i32", "tokens": "*i32", "target": "*i64"}
    choice_constants = {"VOCAB": 128256, "PIECES": 63, "PADDED": 64}
    jobs: list[Job] = [
        (decode_plan.plan_decode_kernel, plan, plan_constants, {}),
        (prompt_plan.plan_prompts_kernel, prompts, prompt_constants, {"num_warps": 1}),
        *(
            (elementwise.add_rms_norm_kernel, norm, norm_constants | parts | {"TILE": tile}, {"num_warps": 8})
            for parts, tile in ((whole, 4096), (cut, 128))
        ),
        *(
            (
                elementwise.rope_and_cache_kernel,
                rope,
                rope_constants | parts | {"BLOCK_N": block, "NORM": norm},
                {"num_warps": 4},
            )
            for parts, block, norm in ((whole, 1, False), (whole, 1, True), (cut, 128, False), (cut, 128, True))
        ),
        (elementwise.silu_mul_kernel, silu, {"WIDTH": 14336, "BLOCK": 2048}, {"num_warps": 4}),
        *(
            (choice.best_of_piece_kernel, best, {"VOCAB": vocab, "PIECE": choice.PIECE}, {"num_warps": 4})
            for vocab in (128256, 32001)
        ),
        (choice.choose_kernel, chosen, choice_constants, {"num_warps": 1}),
    ]
    return [
        (kernel, types, constants | ({"CHAINED": chained} if "CHAINED" in kernel.arg_names else {}), options)
        for kernel, types, constants, options in jobs
    ]


PROMPT_SHAPES = ((8, 4, 128, 64), (1, 16, 256, 64), (4, 2, 8, 16))
"""KV heads, group, head size, tokens of a block: an 8B model's, the largest, the smallest."""


def prompt_shape(queries: int, kv_heads: int, group: int, dim: int) -> dict[str, Any]:
    heads, padded = prompt_plan.padded_sizes(group, dim)
    shape = {"KV_HEADS": kv_heads, "GROUP": group, "DIM": dim, "HEADS": heads, "PADDED": padded}
    return shape | {"TOKENS": queries // heads}


def prompt_constants(keys: int, queries: int, kv_heads: int, group: int, dim: int, block: int) -> dict[str, Any]:
    return prompt_shape(queries, kv_heads, group, dim) | {"KEYS": min(keys, block), "BLOCK_TOKENS": block}


def prompt_arguments(kv: str) -> dict[str, str]:
    arguments = {"q": "*bf16", "kv": kv, "out": "*bf16", "block_tables": "*i32", "tiles": "*i32", "parts": "*fp32"}
    return arguments | {"table_stride": "i32", "q_stride": "i32", "scale": "fp32"}


def prompt_jobs(tile: prefill.PromptTile) -> list[Job]:
    arguments = prompt_arguments("*bf16") | {"window": "i32"}
    own = {"STAGES": tile.stages}
    return [
        (
            prefill.prompt_attention_kernel,
            arguments,
            prompt_constants(tile.keys, tile.queries, *shape) | own | {"WINDOW": window, "CUT": cut},
            {"num_warps": tile.warps},
        )
        for shape, window, cut in (
            (PROMPT_SHAPES[0], False, False),
            (PROMPT_SHAPES[0], False, True),
            (PROMPT_SHAPES[0], True, False),
            (PROMPT_SHAPES[1], False, False),
            (PROMPT_SHAPES[1], False, True),
        )
    ]


def merge_jobs(queries: int) -> list[Job]:
    arguments = {"out": "*bf16", "tiles": "*i32", "parts": "*fp32"}
    at_once = {"AT_ONCE": prompt_plan.MERGED_QUERIES, "PIECES": prompt_plan.MERGED_PIECES}
    return [
        (
            prompt_plan.merge_pieces_kernel,
            arguments,
            prompt_shape(queries, *shape[:3]) | at_once,
            {"num_warps": 4},
        )
        for shape in PROMPT_SHAPES
    ]


def hopper_prompt_jobs(tile: prefill_hopper.HopperTile) -> list[Job]:
    jobs: list[Job] = []
    for shape, cut, follows in itertools.product(PROMPT_SHAPES, (False, True), (False, True)):
        constants = prompt_constants(tile.keys, tile.queries, *shape)
        block = [constants["KEYS"], constants["PADDED"]]
        layout = gl.NVMMASharedLayout.get_default_for(block, gl.bfloat16)
        arguments = prompt_arguments(f"tensordesc<bf16{block},{layout!r}>")
        warps = {"num_warps": tile.queries // 16}
        own = {"STAGES": tile.stages, "CUT": cut, "FOLLOWS": follows} | warps
        jobs.append((prefill_hopper.hopper_prompt_attention_kernel, arguments, constants | own, warps))
    return jobs


def read_jobs() -> list[Job]:
    arguments = {"data": "*i32", "out": "*i32", "blocks": "i32"}
    return [
        (read.read_kernel, arguments, {"BLOCK": block, "STAGES": stages}, {"num_warps": warps})
        for block, stages, warps, _ in read.READ_TILES
    ]


def probe_jobs() -> list[Job]:
    """%smid is NVIDIA's; the daemon has a probe of its own for AMD's chips."""
    return [(probe.unit_id_kernel, {"out": "*i32"}, {}, {"num_warps": 1})]


def compiled(job: Job, target: GPUTarget) -> Any:
    kernel, types, constants, options = job
    names = list(kernel.arg_names)
    signature = {name: types.get(name, "constexpr") for name in names}
    attributes = {
        (names.index(name),): ALIGNED
        for name, of in types.items()
        if name not in UNALIGNED_ARGUMENTS and not of.startswith("tensordesc")
    }
    if target.backend == "cuda" and (constants.get("CHAINED") or constants.get("FOLLOWS")):
        options = options | {"launch_pdl": True}
    source_type = GluonASTSource if isinstance(kernel, GluonJITFunction) else ASTSource
    source = source_type(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=target, options=options)


def spilled_bytes(binary: Any, target: GPUTarget, folder: Path) -> int:
    if target.backend == "hip":
        # Scalars are spilled to lanes of vector registers; what goes to memory is counted.
        counts = r"\.(?:vgpr_spill_count|private_segment_fixed_size):\s+(\d+)"
        found = re.findall(counts, binary.asm["amdgcn"])
        assert len(found) == 2  # of the kernel's metadata
        return sum(map(int, found))
    usage = told_by(["cuobjdump", "-res-usage"], binary, folder)
    return sum(map(int, re.findall(r"STACK:(\d+)", usage)))


def told_by(command: list[str], binary: Any, folder: Path) -> str:
    """What one of NVIDIA's tools, which triton brings, says of compiled code."""
    cubin = folder / f"{binary.hash}.cubin"
    cubin.write_bytes(binary.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin" / command[0]
    return subprocess.run([tool, *command[1:], cubin], capture_output=True, text=True, check=True).stdout


def check(jobs: list[Job], target: GPUTarget, folder: Path) -> None:
    """One after another: Python 3.11 may fail to parse in two threads at once ("AST constructor recursion depth")."""
    assert jobs
    for job in jobs:
        binary = compiled(job, target)
        case = job[0].__name__, job[2]
        assert binary.metadata.shared <= SHARED_BYTES[target.arch], case
        assert spilled_bytes(binary, target, folder) == 0, case


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result from an earlier run's cache would prove nothing."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


SLIM_TILES = {tuning.SLIM, tuning.SLIM_NARROW, tuning.SLIM_PAIR}


def test_hopper_matmul_of_the_fewest_rows(tmp_path: Path) -> None:
    """Tiles for two programs a unit leave room for both, in shared memory and in its 65,536 registers."""
    for tile, gated in itertools.product(sorted(SLIM_TILES, key=str), (False, True)):
        if tile.block_n // (1 + gated) < 64:
            continue
        jobs = slim_matmul_jobs(tile, gated)
        check(jobs, HOPPER, tmp_path)
        if tile.memory <= matmul_hopper.SHARING_BYTES:
            binary = compiled(jobs[0], HOPPER)
            assert 2 * (binary.metadata.shared + 1024) <= 228 * 1024
            assert ".maxnreg 128" in binary.asm["ptx"]


def test_hopper_matmul(tmp_path: Path) -> None:
    tiles = {tuning.WIDE, tuning.MIDDLE, tuning.BROAD, tuning.NARROW, tuning.SPREAD, tuning.TALL}
    chosen = {
        tuning.tile_for(rows, n, units, gated, hopper, parts)
        for rows in (1, 16, 17, 64, 65, 128, 129)
        for n in (4096, 6144, 28672, 128256)
        for units in range(8, 133)
        for gated, hopper, parts in itertools.product((False, True), repeat=3)
    }
    assert chosen - {None} == tiles | SLIM_TILES
    jobs = [job for tile in sorted(tiles, key=str) for job in matmul_jobs(tile, gated=True)]
    check(jobs, HOPPER, tmp_path)


def test_hopper_attention(tmp_path: Path) -> None:
    """Two programs of the tile share a unit's 228 KiB of shared memory, each with 1 KiB of the system's."""
    tile = tuning.decode_tile_for(32)
    jobs = [job for shape in ((8, 4, 128), (1, 16, 256), (4, 2, 8)) for job in attention_jobs(tile, *shape)]
    check(jobs, HOPPER, tmp_path)
    assert tile.per_unit * (compiled(jobs[0], HOPPER).metadata.shared + 1024) <= 228 * 1024


def test_hopper_prompt_attention(tmp_path: Path) -> None:
    """Two programs share a unit, so that one computes while the other takes its softmax."""
    jobs = hopper_prompt_jobs(tuning.HOPPER_PROMPT)
    check(jobs, HOPPER, tmp_path)
    for job in jobs[:2]:
        binary = compiled(job, HOPPER)
        assert 2 * (binary.metadata.shared + 1024) <= 228 * 1024
        assert "wgmma.wait_group.sync.aligned 1" in binary.asm["ptx"]  # the softmax does not wait for the values


def test_hopper_other_kernels(tmp_path: Path) -> None:
    check(
        [
            *other_jobs(chained=True),
            *prompt_jobs(tuning.PROMPT),
            *merge_jobs(tuning.PROMPT.queries),
            *read_jobs(),
        ],
        HOPPER,
        tmp_path,
    )


@pytest.mark.parametrize("target", [HOPPER, AMPERE], ids=["hopper", "ampere"])
def test_a_probing_program_stays_on_its_unit(target: GPUTarget, tmp_path: Path) -> None:
    """Its wait was a sum that was multiplied by 0 in the end, so the compiler left it out.

    Programs ended at once, and the units that were offered work first could run all of them.
    """
    jobs = probe_jobs()
    check(jobs, target, tmp_path)
    code = told_by(["nvdisasm", "-c"], compiled(jobs[0], target), tmp_path)
    loops = re.findall(r"^(\.L_\w+):(.*?)BRA `\(\1\)", code, re.MULTILINE | re.DOTALL)
    assert any("SR_CLOCKLO" in body and f"{probe.STAY_CYCLES:#x}" in body for _, body in loops), code


def check_tiles_by_pointers(target: GPUTarget, folder: Path) -> None:
    jobs = matmul_jobs(tuning.AMD, gated=True)
    jobs += [job for shape in ((8, 4, 128), (1, 16, 256)) for job in attention_jobs(tuning.AMD_DECODE, *shape)]
    jobs += other_jobs(chained=False) + merge_jobs(tuning.PROMPT.queries) + read_jobs()
    check(jobs + prompt_jobs(tuning.PROMPT), target, folder)


BY_POINTERS = {str(target.arch): target for target in (AMPERE, *CDNA)}


class Beside:
    """This file as a program, for some chips. ``problem``: what it says of one, once it comes to that."""

    def __init__(self, chips: list[str]) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = ["nice", sys.executable, __file__, *chips]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self._problems: dict[str, str] = {}

    def problem(self, chip: str) -> str:
        assert self.process.stdout is not None
        while chip not in self._problems:
            line = self.process.stdout.readline()
            assert line, "it ended early"
            self._problems.update(json.loads(line))
        return self._problems[chip]


@pytest.fixture(scope="session", autouse=True)
def beside(request: pytest.FixtureRequest) -> Iterator[Beside]:
    """Begins with the first test of this file."""
    asked = [item.name for item in request.session.items if item.name.startswith("test_tiles_by_pointers")]
    begun = Beside([chip for chip in BY_POINTERS if f"test_tiles_by_pointers[{chip}]" in asked])
    yield begun
    begun.process.kill()
    begun.process.communicate()


@pytest.mark.timeout(480)
@pytest.mark.parametrize("chip", BY_POINTERS)
def test_tiles_by_pointers(chip: str, beside: Beside) -> None:
    assert beside.problem(chip) == ""


def test_a_tile_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """The check itself: this tile compiles, and would fail on the first launch."""
    large = matmul.Tile(64, 256, 64, 4, 4, bulk=False)
    with pytest.raises(AssertionError, match="skinny_matmul_kernel"):
        check(matmul_jobs(large, gated=False)[:1], CDNA[1], tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        os.environ["TRITON_CACHE_DIR"] = place
        for chip in sys.argv[1:]:
            try:
                check_tiles_by_pointers(BY_POINTERS[chip], Path(place))
                found = ""
            except Exception:  # whatever it is, it is told
                found = traceback.format_exc()
            print(json.dumps({chip: found}), flush=True)

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
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction  # noqa: E402

from rapid_kernels.gpu import matmul, matmul_hopper, probe, tuning  # noqa: E402
from support.gpu_jobs import (  # noqa: E402
    Job,
    attention_jobs,
    hopper_attention_jobs,
    hopper_prompt_jobs,
    matmul_jobs,
    merge_jobs,
    other_jobs,
    probe_jobs,
    prompt_jobs,
    read_jobs,
    slim_matmul_jobs,
)

pytestmark = pytest.mark.timeout(480)  # of compiling, on cores that others use too

HOPPER = GPUTarget("cuda", 90, 32)
CDNA = [GPUTarget("hip", arch, 64) for arch in ("gfx90a", "gfx942", "gfx950")]
AMPERE = GPUTarget("cuda", 86, 32)
SHARED_BYTES = {"gfx90a": 65536, "gfx942": 65536, "gfx950": 163840, 86: 101376, 90: 232448}
"""Shared memory that a program may use."""
ALIGNED = [["tt.divisibility", 16]]
UNALIGNED_ARGUMENTS = {"m", "rows", "programs", "window", "eps", "scale", "table_stride", "first_row", "blocks"}
UNALIGNED_ARGUMENTS |= {"wave", "tokens"}


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


@pytest.mark.parametrize(("alone", "a_unit"), [(False, 2), (True, 1)])
def test_hopper_attention(alone: bool, a_unit: int, tmp_path: Path) -> None:
    """So many programs of the tile share a unit's 228 KiB of shared memory, each with 1 KiB of the system's.

    On a whole device two programs could crowd on one unit while others have none.
    """
    tile = tuning.decode_tile_for(tuning.ALONE_UNITS, alone, hopper=False)
    jobs = [job for shape in ((8, 4, 128), (1, 16, 256), (4, 2, 8)) for job in attention_jobs(tile, *shape)]
    check(jobs, HOPPER, tmp_path)
    assert 228 * 1024 // (compiled(jobs[0], HOPPER).metadata.shared + 1024) == a_unit


@pytest.mark.parametrize(("units", "a_unit"), [(32, 2), (tuning.ALONE_UNITS, 1)])
def test_hopper_attention_of_its_own(units: int, a_unit: int, tmp_path: Path) -> None:
    """As above; the tensor cores take keys and values from shared memory and no more queries than there are, by 8."""
    tile = tuning.decode_tile_for(units, alone=True, hopper=True)
    jobs = [job for shape in ((8, 4, 128), (1, 16, 128), (3, 3, 64)) for job in hopper_attention_jobs(tile, *shape)]
    check(jobs, HOPPER, tmp_path)
    binary = compiled(jobs[0], HOPPER)
    assert 228 * 1024 // (binary.metadata.shared + 1024) == a_unit
    assert "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16" in binary.asm["ptx"]
    assert "wgmma.mma_async.sync.aligned.m64n16k16" not in binary.asm["ptx"]


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

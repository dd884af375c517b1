"""The placement probe of AMD's GPUs compiles for each of them and reads the registers that tell where a program runs.

That a program on hardware finds the truth there is not shown: no AMD GPU has run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed: the probe cannot be compiled")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from rapidd.partition import hip_probe  # noqa: E402
from rapidd.partition.hip_probe import HipProbe, place_kernel  # noqa: E402


@pytest.mark.parametrize(("architecture", "has_xcc_id"), [("gfx90a", False), ("gfx942", True), ("gfx950", True)])
def test_it_compiles_for_the_chip_and_reads_where_it_runs(
    architecture: str, has_xcc_id: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # a result from an earlier run would prove nothing
    source = ASTSource(
        fn=place_kernel,
        signature={"out": "*i32", "HAS_XCC_ID": "constexpr"},
        constexprs={"HAS_XCC_ID": has_xcc_id},
    )
    text = triton.compile(source, target=GPUTarget("hip", architecture, 64), options={"num_warps": 1}).asm["amdgcn"]
    assert "hwreg(HW_REG_HW_ID)" in text
    assert ("hwreg(HW_REG_XCC_ID)" in text) == has_xcc_id
    assert text.count("s_sleep 127") == 8, "a program that ends at once leaves its unit to the next one"
    assert ".vgpr_spill_count: 0" in text
    assert ".private_segment_fixed_size: 0" in text


def test_all_of_it_is_on_the_stream_that_it_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for while lanes run, it is run by a launching thread, whose own stream is the NULL stream. What it had
    found was copied there, for which both lanes had to end what they were doing."""
    current = "NULL"
    used: list[str] = []

    @contextmanager
    def on(stream: str) -> Iterator[None]:
        nonlocal current
        before, current = current, stream
        yield
        current = before

    def read() -> list[list[int]]:
        used.append(current)
        return [[0, 0]]

    class Kernel:
        def __getitem__(self, grid: tuple[int]) -> Kernel:
            return self

        def __call__(self, *arguments: object, **options: object) -> None:
            used.append(current)

    zeros = lambda shape, dtype, device: SimpleNamespace(tolist=read)  # noqa: E731
    stand_in = SimpleNamespace(zeros=zeros, int32=None, cuda=SimpleNamespace(stream=on))
    monkeypatch.setattr(hip_probe, "torch", stand_in)
    monkeypatch.setattr(hip_probe, "place_kernel", Kernel())
    probe = HipProbe("whole", 1, "gfx942")  # type: ignore[arg-type]
    assert probe("lane") == [0]  # type: ignore[arg-type]
    assert used == ["whole", "whole", "lane", "lane"]

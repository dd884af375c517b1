"""The same compilation by the triton that torch 2.11 brings: what compiles and fits is a matter of the version."""

import subprocess
import sys

import pytest

from support.older_triton import COMPILE_S, FETCH_S, VERSION, Compilation, environment

pytest.importorskip("triton", reason="triton is not installed: GPU kernels cannot be compiled")


@pytest.mark.timeout(FETCH_S + COMPILE_S + 20)
def test_every_kernel_compiles_and_fits_by_an_older_triton(older_compilation: Compilation) -> None:
    """Without an index in reach that triton cannot be fetched, and this is skipped and says so."""
    if older_compilation.skipped:
        pytest.skip(older_compilation.skipped)
    version = [sys.executable, "-c", "import triton; print(triton.__version__)"]
    assert subprocess.check_output(version, env=environment(), text=True).strip() == VERSION
    status, output = older_compilation.result()
    assert status == 0, output[-4000:]
    assert "skipped" not in output

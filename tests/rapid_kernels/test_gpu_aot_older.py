"""The same compilation by the triton that torch 2.11 brings: what compiles and fits is a matter of the version.

That triton is fetched once, into `.cache`; without an index in reach this is skipped and says so.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.process import ROOT

pytest.importorskip("triton", reason="triton is not installed: GPU kernels cannot be compiled")

VERSION = "3.6.0"
FETCH_S, COMPILE_S = 90, 480
CHOSEN = "hopper or gfx"
"""sm_90 and AMD's chips; one NVIDIA chip shows what the others would."""


@pytest.fixture(scope="module")
def older_triton() -> Path:
    """A folder to put first on the path."""
    folder = ROOT / ".cache" / f"triton-{VERSION}"
    if not folder.is_dir():
        _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--retries", "0"]
    command += ["--no-deps", "--no-compile", "--only-binary", ":all:", "--target", str(made), f"triton=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
        reason = done.stderr.strip().splitlines()[-1] if done.returncode else None
    except subprocess.TimeoutExpired:
        reason = f"not there after {FETCH_S} s"
    if reason is not None:
        shutil.rmtree(made)
        pytest.skip(f"triton {VERSION} could not be fetched: {reason}")
    made.rename(folder)  # whole, or not at all


@pytest.mark.timeout(FETCH_S + COMPILE_S + 20)
def test_every_kernel_compiles_and_fits(older_triton: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(older_triton)}
    version = [sys.executable, "-c", "import triton; print(triton.__version__)"]
    assert subprocess.check_output(version, env=environment, text=True).strip() == VERSION
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN]
    tests += [str(Path(__file__).with_name("test_gpu_aot.py"))]
    done = subprocess.run(
        tests, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=COMPILE_S, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout

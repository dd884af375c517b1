"""The kernels' compilation by the triton that torch 2.11 brings, in a process beside the tests.

That triton is fetched once, into `.cache`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from support.beside import Program
from support.process import ROOT

VERSION = "3.6.0"
FETCH_S, COMPILE_S = 90, 480
CHOSEN = "hopper or gfx"
"""sm_90 and AMD's chips; one NVIDIA chip shows what the others would."""
FOLDER = ROOT / ".cache" / f"triton-{VERSION}"
TESTS = [ROOT / "tests" / name for name in ("rapid_kernels/test_gpu_aot.py", "rapidd/partition/test_hip_probe.py")]


class Compilation:
    """Begun when made, on what the tests leave of the cores. ``skipped``: why there is none."""

    def __init__(self) -> None:
        self.skipped = None if FOLDER.is_dir() else fetch()
        self._program: Program | None = None
        if self.skipped is None:
            options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
            command = [sys.executable, "-m", "pytest", *options, "-k", CHOSEN, *map(str, TESTS)]
            self._program = Program(command, environment())

    def result(self) -> tuple[int, str]:
        """Exit status and output. Raises TimeoutExpired."""
        assert self._program is not None
        return self._program.result(COMPILE_S)

    def stop(self) -> None:
        """For a session that ends early."""
        if self._program is not None:
            self._program.stop()


def environment() -> dict[str, str]:
    """In which that triton is found first."""
    return os.environ | {"PYTHONPATH": str(FOLDER)}


def fetch() -> str | None:
    """Bring it to its folder; why not, if not."""
    FOLDER.parent.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=FOLDER.parent))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--retries", "0"]
    command += ["--no-deps", "--no-compile", "--only-binary", ":all:", "--target", str(made), f"triton=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
        reason = done.stderr.strip().splitlines()[-1] if done.returncode else None
    except subprocess.TimeoutExpired:
        reason = f"not there after {FETCH_S} s"
    if reason is not None:
        shutil.rmtree(made)
        return f"triton {VERSION} could not be fetched: {reason}"
    made.rename(FOLDER)  # whole, or not at all
    return None

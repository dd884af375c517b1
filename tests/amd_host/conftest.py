"""The real ROCm host libraries on a fake GPU, set up once a session, or the reason why not (see docs/amd.md).

Needs root, gcc and a Debian archive. The first run downloads 66 MB into .cache/amd_host, where later ones find it;
AMD_KIT_DEBS names a folder of packages kept from a good run, and then no network is needed.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.process import ROOT, environment

HERE = Path(__file__).parent
FOLDER = ROOT / ".cache" / "amd_host"
SOURCES = ("setup_fake_amd.sh", "mkfake.sh", "mkmetrics.py", "fakekfd.c")
SETUP_S, SCRIPT_S = 100.0, 60.0
SKIPPED = 77
"""Exit status of the setup for what this machine lacks; its last line says what."""

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def fake_amd() -> Run:
    """``fake_amd(script, *arguments, chip=...)``: the JSON that a script of this folder prints on the fake GPU."""
    if os.geteuid() != 0:
        pytest.skip("fake AMD stack: needs root (private mount namespace)")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _set_up()

    def run(script: str, *arguments: str, chip: str = "mi300x", host: bool = True) -> Any:
        """``host`` False: the same libraries without the fake GPU."""
        loader = FOLDER / "hip7/usr/lib/x86_64-linux-gnu"
        alone = [str(loader / "ld-linux-x86-64.so.2"), "--library-path", str(loader), os.path.realpath(sys.executable)]
        answer = subprocess.run(
            [*([str(FOLDER / "run")] if host else alone), str(HERE / script), *arguments],
            env=_environment(CHIP=chip, FAKEKFD_PKT="2", PY=sys.executable, TRITON_CACHE_DIR=str(FOLDER / "triton")),
            capture_output=True,
            text=True,
            timeout=SCRIPT_S,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        return json.loads(answer.stdout)

    return run


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one kernel compiled for each chip."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: no kernel to launch")
    folder = tmp_path_factory.mktemp("kernels")
    subprocess.run([sys.executable, str(HERE / "kernel.py"), str(folder)], timeout=SCRIPT_S, check=True)
    return folder


def _set_up() -> None:
    stamp, done = FOLDER / "stamp", hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()
    if stamp.is_file() and stamp.read_text() == done:
        return
    command = ["bash", str(HERE / "setup_fake_amd.sh"), str(FOLDER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as setup:
        try:
            output, _ = setup.communicate(timeout=SETUP_S)
        except subprocess.TimeoutExpired:
            os.killpg(setup.pid, signal.SIGKILL)
            pytest.skip(f"fake AMD stack: not downloaded and unpacked within {SETUP_S:.0f} s")
    text = output.decode(errors="replace")
    if setup.returncode == SKIPPED:
        pytest.skip(text.strip().rpartition("\n")[2].removeprefix("SKIP: "))
    assert setup.returncode == 0, text[-3000:]
    stamp.write_text(done)


def _environment(**extra: str) -> dict[str, str]:
    """The packages and this folder for a Python that knows no environment, and no mask of this machine's own."""
    inherited = environment(**extra)
    inherited["PYTHONPATH"] = os.pathsep.join((inherited["PYTHONPATH"], str(ROOT / "tests"), _site_packages()))
    return {name: value for name, value in inherited.items() if not name.endswith("_CU_MASK")}


def _site_packages() -> str:
    import msgspec

    return str(Path(msgspec.__file__).parents[1])

"""Makes the development environment: ``python3 scripts/make_venv.py .venv``. Standard library only.

A torch that this interpreter already has (2.11 or newer: a ROCm or CUDA build, usually) is kept and made visible
in the environment; elsewhere the one pinned in constraints.txt is installed. Running it again updates.
"""

from __future__ import annotations  # an old interpreter must get as far as being told so

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 11)
ROOT = Path(__file__).resolve().parents[1]
PROBE = (
    "import torch, pathlib; print(torch.__version__); print(pathlib.Path(torch.__file__).parents[1]); "
    "print(torch.version.cuda or '')"
)


def main() -> int:
    """Make or update the environment named on the command line."""
    folder = Path(sys.argv[1]).resolve()
    if sys.version_info < OLDEST_PYTHON:
        return fail(f"Python {sys.version.split()[0]} is too old: make setup PYTHON=python3.11 (or newer)")
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"making {folder} with Python {sys.version.split()[0]}")
        try:
            venv.create(folder, with_pip=True, symlinks=True)
        except subprocess.CalledProcessError:
            return fail("this Python cannot make environments: on Debian, install the package python3-venv")
    site_packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    if not site_packages.exists():
        return fail(f"{folder} was made by another Python than {sys.version.split()[0]}: make clean, then again")
    constraints = ROOT / "constraints.txt"
    with tempfile.TemporaryDirectory() as scratch:
        own = own_torch(folder)
        if own is None:
            extras = "daemon,http,dev,aot"
            say("installing the packages and the pinned torch: 800 MB, or several GB if pip's index has no CPU build")
        else:
            version, site, is_cuda = own
            extras = "daemon,http,dev,nvidia" if is_cuda else "daemon,http,dev"
            say(f"installing the packages; keeping torch {version} of {site}")
            (site_packages / "own-torch.pth").write_text(f"{site}\n")
            constraints = Path(scratch) / "constraints.txt"
            constraints.write_text(f"torch=={version}\n")
        command = [
            str(python), "-m", "pip", "install", "--disable-pip-version-check",
            "--constraint", str(constraints), "--editable", f"{ROOT}[{extras}]",
        ]  # fmt: skip
        if subprocess.run(command, check=False).returncode != 0:
            return fail("pip could not install the packages: its message is above")
        if own is None and (advice := large_torch(str(python))):
            say(advice)
    return 0


def own_torch(folder: Path) -> tuple[str, Path, bool] | None:
    """`torch_of` this interpreter, unless it is the environment's own or too old."""
    own = torch_of(sys.executable)
    if own is None or folder in own[1].resolve().parents:
        return None
    version, site, _ = own
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TORCH:
        say(f"not using torch {version} of {site}: too old")
        return None
    return own


def torch_of(python: str) -> tuple[str, Path, bool] | None:
    """Of the torch that an interpreter imports: version, site directory, and whether it is built for CUDA."""
    probe = subprocess.run([python, "-P", "-c", PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return None
    version, site, cuda = probe.stdout.splitlines()
    return version, Path(site), bool(cuda)


def large_torch(python: str) -> str | None:
    """What to do about an environment whose pinned torch came as a CUDA build; null where it is none."""
    found = torch_of(python)
    if found is None or not found[2]:
        return None
    return (
        f"torch {found[0]} is a CUDA build of several GB: pip's index has no other. It works without a GPU too. "
        "For the CPU build: make clean, then make setup with PIP_EXTRA_INDEX_URL set to PyTorch's index of CPU builds"
    )


def say(line: str) -> None:
    """A line of progress."""
    print(f"== {line}", flush=True)


def fail(line: str) -> int:
    """Why it did not work; the exit status."""
    print(f"error: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""What a profile belongs to: this device, driver, model shape and these kernels. Read, not configured."""

from __future__ import annotations

import ast
import hashlib
import io
import platform
import re
import tokenize
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch

import rapid_kernels
from rapidctl import __version__
from rapidctl.wire import DeviceInfo
from rapidd.model.config import ModelSpec
from rapidd.policy.profile import ProfileKey, shape_digest

SHAPE: Final = (
    "vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
    "tied_head", "qkv_bias", "o_bias", "mlp_bias", "qk_norm",
)  # fmt: skip
"""Fields of a `ModelSpec` that decide how much is computed; its windows do as well."""
NVIDIA_VERSION: Final = Path("/proc/driver/nvidia/version")
AMD_VERSION: Final = Path("/sys/module/amdgpu/version")


def profile_key(device: DeviceInfo, spec: ModelSpec, dtype: torch.dtype, block_tokens: int) -> ProfileKey:
    """Of what is being served."""
    on_gpu = device.kind != "cpu"
    by_triton = on_gpu and dtype.itemsize == 2  # else plain torch: rapid_kernels.select
    windows = [window for window in spec.windows if window is not None]
    return ProfileKey(
        device=device.name,
        device_kind=device.kind,
        units_total=device.units,
        driver=driver_version(device.kind),
        model=spec.name,
        shape=shape_digest({**{name: getattr(spec, name) for name in SHAPE}, "windows": windows}),
        dtype=str(dtype).removeprefix("torch."),
        kernels=code_digest(kernel_files(by_triton)),
        torch=str(torch.__version__),
        triton=_triton_version() if on_gpu else "",
        block_tokens=block_tokens,
        build=__version__,
    )


def driver_version(kind: str, nvidia: Path = NVIDIA_VERSION, amd: Path = AMD_VERSION) -> str:
    """Of the kernel's driver; empty on a CPU, and where the driver does not tell."""
    if kind == "cuda":
        match = re.search(r"\b\d{3,}(\.\d+)+\b", _read(nvidia))
        return match[0] if match else ""
    if kind == "hip":  # the driver that comes with the kernel has no version of its own
        return _read(amd).strip() or platform.release()
    return ""


def kernel_files(by_triton: bool) -> list[Path]:
    """Sources of the kernels in Triton, or of those in plain torch, and of what both share."""
    root = Path(rapid_kernels.__file__).parent
    own = root.glob("gpu/*.py") if by_triton else (root / name for name in ("packed.py", "reference.py"))
    return sorted([*own, *(root / name for name in ("api.py", "layout.py"))])


def code_digest(files: Iterable[Path]) -> str:
    """Of what the files do: comments, docstrings and blank lines may change. The same under every version of Python."""
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        source = file.read_text(encoding="utf-8")
        digest.update(f"{file.name}\n{_code(source)}\n".encode())
    return digest.hexdigest()


def _code(source: str) -> str:
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and _is_text(node):
            lines[node.lineno - 1 : node.end_lineno] = [""] * len(lines[node.lineno - 1 : node.end_lineno])
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _is_text(statement: ast.stmt) -> bool:
    """A string that stands alone: a docstring of a module, class, function or constant."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _triton_version() -> str:
    if find_spec("triton") is None:
        return ""
    import triton

    return str(triton.__version__)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

"""Weight matrices in the layout that the CPU's matrix library reads fastest, made once at load.

A plain matrix product packs its weights again at every call; with that done, a product of 4 to 1,024 tokens takes a
fifth to a third less time, and of one token no more (kernels/bench/linear_cpu.py). oneDNN for bfloat16, and for float32
MKL on Intel's processors and oneDNN on others, where it takes an eighth less for a prompt and half for eight rows (and
MKL where oneDNN must not write the machine code that it runs). Both through the operators that `torch.compile` freezes
models with. Without them, and in other dtypes, weights stay as they are. The packed weights replace the plain ones.
"""

import functools
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import linear

from rapid_kernels.layout import Layout, Matrix

CPU_INFO: Final = Path("/proc/cpuinfo")
HINT_TOKENS: Final = 256
"""The product that a layout is chosen for; it serves every number of tokens."""
TRANSPOSED_TOKENS: Final = range(4, 65)
"""For so many tokens ``W x^T`` beats ``x W^T`` on plain weights (kernels/bench/linear_cpu.py)."""

KEPT_KERNELS: Final = 128
"""A batch needs about five: these are of the last two dozen numbers of tokens, and take some 90 MiB."""
CACHE_SIZES: Final = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Of oneDNN, and of torch's layer above it, which has one a thread."""


def bound_kernel_caches(environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep few of the kernels that oneDNN makes for each number of tokens; who has chosen a number keeps it.

    By default there are twice a thousand, some 700 MiB, which a server fills in an hour of prompts of all lengths.
    Counts in a process that has not multiplied yet: the libraries look once.
    """
    for name in CACHE_SIZES:
        environ.setdefault(name, str(KEPT_KERNELS))


def pack(weight: Tensor) -> Matrix:
    """The fastest layout there is for this dtype and device."""
    return pack_as(weight, _layout(weight.dtype) if weight.device.type == "cpu" else "plain")


def pack_as(weight: Tensor, layout: Layout) -> Matrix:
    """This layout; "mkl" takes float32 only, "onednn" float32 and bfloat16."""
    like = weight.new_empty(1).expand(weight.shape)
    match layout:
        case "mkl":
            return Matrix(layout, torch.ops.mkl._mkl_reorder_linear_weight(weight, HINT_TOKENS), like)
        case "onednn":
            return Matrix(layout, torch.ops.mkldnn._reorder_linear_weight(weight, HINT_TOKENS), like)
        case "plain":
            return Matrix(layout, weight, weight)


@functools.cache
def _layout(dtype: torch.dtype) -> Layout:
    """Always the same on one machine, never measured: the last bits of a sum depend on it."""
    if dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "onednn"
    if dtype == torch.float32 and torch._C.has_mkl:
        return "mkl" if is_intel(CPU_INFO) or not _onednn_works() else "onednn"
    return "plain"


def _onednn_works() -> bool:
    """It writes its kernels as machine code, which a process may be forbidden (systemd: MemoryDenyWriteExecute=)."""
    if not torch._C._has_mkldnn:
        return False
    try:
        pack_as(torch.ones(16, 16), "onednn")
    except RuntimeError:
        return False
    return True


def is_intel(cpu_info: Path) -> bool:
    """Whether this /proc/cpuinfo tells of a processor of Intel's, or of none at all."""
    try:
        makers = [line.split()[-1] for line in cpu_info.read_text().splitlines() if line.startswith("vendor_id")]
    except OSError:
        makers = []
    return not makers or makers[0] == "GenuineIntel"


def multiply(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """x [T, in] by weight [out, in], plus bias [out]: [T, out]."""
    out: Tensor
    match weight.layout:
        case "mkl":  # asks how many tokens the weights were packed for, and would not use them for another number
            out = torch.ops.mkl._mkl_linear(x, weight.data, weight.like, bias, x.shape[0])
        case "onednn":
            out = torch.ops.mkldnn._linear_pointwise(x, weight.data, bias, "none", [], "")
        case "plain":
            out = _multiply_plain(x, weight.data, bias)
    return out


def _multiply_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The result of a few tokens is a transposed view."""
    if x.shape[0] not in TRANSPOSED_TOKENS:
        return linear(x, weight, bias)
    return (torch.mm(weight, x.t()) if bias is None else torch.addmm(bias[:, None], weight, x.t())).t()

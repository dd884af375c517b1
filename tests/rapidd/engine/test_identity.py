"""What a profile belongs to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from rapidctl.wire import DeviceInfo
from rapidd.engine.identity import code_digest, driver_version, kernel_files, profile_key
from rapidd.model.resolve import SHAPES

SPEC = SHAPES["llama-3.1-8b"]
DEVICE = DeviceInfo(kind="cpu", name="Some CPU", units=2, unit_name="core", memory_total_bytes=None)
NVRM = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""


def digest(path: Path, source: str) -> str:
    path.write_text(source)
    return code_digest([path])


def test_comments_docstrings_and_blank_lines_do_not_change_what_code_does(tmp_path: Path) -> None:
    file = tmp_path / "k.py"
    bare = digest(file, "N = 4\ndef f(x):\n    return x + N\n")
    assert bare == digest(
        file, '"""Doc."""\nN = 4  # why\n"""Unit."""\n\ndef f(x):\n    """Doc,\n\n    long."""\n    return x + N\n'
    )
    assert bare != digest(file, "N = 4\ndef f(x):\n    return x - N\n")
    assert digest(file, 's = "a # b"\n') != digest(file, 's = "a # c"\n')


def test_a_gpu_depends_on_its_kernels_and_a_cpu_does_not() -> None:
    shared = {"api.py", "layout.py"}
    assert {path.name for path in kernel_files(False)} == shared | {"packed.py", "reference.py"}
    assert {path.name for path in kernel_files(True)} > shared | {"matmul.py", "kernels.py"}
    assert code_digest(kernel_files(True)) != code_digest(kernel_files(False))


def test_in_float32_a_gpu_depends_on_the_kernels_in_plain_torch() -> None:
    """A profile of theirs stayed valid when they changed, and ended when Triton's did."""
    gpu = msgspec.structs.replace(DEVICE, kind="cuda")
    keys = {
        dtype: profile_key(gpu, SPEC, dtype, 64).kernels for dtype in (torch.float32, torch.float16, torch.bfloat16)
    }
    assert keys[torch.float32] == code_digest(kernel_files(False))
    assert keys[torch.float16] == keys[torch.bfloat16] == code_digest(kernel_files(True))


def test_the_key_depends_on_the_shape_and_not_on_names_and_ids() -> None:
    key = profile_key(DEVICE, SPEC, torch.bfloat16, 16)
    same = msgspec.structs.replace(
        SPEC, name="other", eos_token_ids=(1,), file_dtype="Q4_1", max_position=4096, windows=(None,) * 32
    )
    assert key.differences(profile_key(DEVICE, same, torch.bfloat16, 16)) == []
    for field, value in {"num_layers": 31, "tied_head": True, "windows": (4096,) * 32}.items():
        other = msgspec.structs.replace(SPEC, **{field: value})
        assert key.differences(profile_key(DEVICE, other, torch.bfloat16, 16)) == ["shape"]
    assert key.differences(profile_key(DEVICE, SPEC, torch.float32, 64)) == ["dtype", "block_tokens"]
    assert (key.device, key.driver, key.triton, key.dtype) == ("Some CPU", "", "", "bfloat16")


@pytest.mark.parametrize(("text", "version"), [(NVRM, "580.95.05"), ("no driver", ""), (None, "")])
def test_the_drivers_version_is_the_kernels(tmp_path: Path, text: str | None, version: str) -> None:
    file = tmp_path / "version"
    if text is not None:
        file.write_text(text)
    assert driver_version("cuda", nvidia=file) == version


def test_an_amd_driver_without_a_version_goes_by_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert driver_version("hip", amd=file) != ""
    file.write_text("6.12.12\n")
    assert driver_version("hip", amd=file) == "6.12.12"
    assert driver_version("cpu") == ""

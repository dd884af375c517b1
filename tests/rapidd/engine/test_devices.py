"""Which device serves, and what is said when it is not there."""

import warnings
from typing import Literal

import pytest
import torch

from rapidd.config import EngineConfig
from rapidd.engine.cpu import CpuBackend
from rapidd.engine.devices import Build, choose_kind, open_backend
from rapidd.errors import DeviceError
from rapidd.partition.cuda import check_units

Wanted = Literal["auto", "cpu", "cuda", "hip"]


@pytest.mark.parametrize(
    ("wanted", "build", "kind"),
    [
        ("auto", Build(None, False), "cpu"),
        ("auto", Build("cuda", False), "cpu"),
        ("auto", Build("cuda", True), "cuda"),
        ("auto", Build("hip", True), "hip"),
        ("cpu", Build("cuda", True), "cpu"),
        ("cuda", Build("cuda", True), "cuda"),
        ("hip", Build("hip", True), "hip"),
    ],
)
def test_the_device_that_is_there(wanted: Wanted, build: Build, kind: str) -> None:
    assert choose_kind(wanted, build) == kind


@pytest.mark.parametrize(
    ("wanted", "build", "message", "hint"),
    [
        ("cuda", Build(None, False), "--device cuda: the installed torch is built for the CPU only", "--device cpu"),
        ("hip", Build("cuda", True), "--device hip: the installed torch is built for CUDA", "--device cuda"),
        ("cuda", Build("hip", True), "--device cuda: the installed torch is built for ROCm", "--device hip"),
        ("cuda", Build("cuda", False), "--device cuda: torch finds no such device", "nvidia-smi"),
        (
            "cuda",
            Build("cuda", False, "The NVIDIA driver on your system is too old"),
            "--device cuda: torch finds no such device: The NVIDIA driver on your system is too old",
            "check that the driver works",
        ),
    ],
)
def test_a_device_that_is_not_there(wanted: Wanted, build: Build, message: str, hint: str) -> None:
    with pytest.raises(DeviceError) as error:
        choose_kind(wanted, build)
    assert str(error.value) == message
    assert hint in error.value.hint


def test_what_torch_warns_of_is_kept_as_the_reason_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_available() -> bool:
        warnings.warn("CUDA initialization: the driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert Build.of_torch() == Build("cuda", False, "CUDA initialization: the driver is too old")
    assert isinstance(open_backend(EngineConfig(device="auto"), lambda: None), CpuBackend)
    assert capsys.readouterr().err == "rapidd: no GPU is used: CUDA initialization: the driver is too old\n"


def test_more_units_than_exist() -> None:
    check_units(132, 132)
    check_units(None, 132)
    with pytest.raises(DeviceError, match="133 compute units were asked for and the device has 132 SMs") as error:
        check_units(133, 132)
    assert error.value.hint == "lower --compute-units to at most 132"

"""Which device the engine runs on: what was asked for against what this torch and this machine have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from msgspec import Struct

from rapidd import log
from rapidd.config import EngineConfig
from rapidd.engine.backend import Backend
from rapidd.engine.cpu import CpuBackend
from rapidd.engine.gpu import GpuBackend
from rapidd.engine.gpu_streams import GpuKind
from rapidd.errors import DeviceError
from rapidd.partition.look import find_gpu

Kind = Literal["cpu", "cuda", "hip"]


class Build(Struct, frozen=True):
    """What the installed torch was built for, and whether it finds a device."""

    gpu_kind: GpuKind | None
    has_device: bool
    why_not: str = ""
    """What torch says about a device that it cannot use."""

    @classmethod
    def of_torch(cls) -> Build:
        """This process's torch."""
        kind: GpuKind | None = "hip" if torch.version.hip else "cuda" if torch.version.cuda else None
        return cls(kind, *find_gpu())


def choose_kind(wanted: Literal["auto", "cpu", "cuda", "hip"], build: Build) -> Kind:
    """The kind of device to use. Raises DeviceError when it is not there, saying what is missing."""
    if wanted == "cpu" or (wanted == "auto" and not build.has_device):
        return "cpu"
    if build.gpu_kind is None or (wanted != "auto" and wanted != build.gpu_kind):
        has = {None: "for the CPU only", "cuda": "for CUDA", "hip": "for ROCm"}[build.gpu_kind]
        other = f", --device {build.gpu_kind}" if build.has_device else ""
        raise DeviceError(
            f"--device {wanted}: the installed torch is built {has}",
            f"install the torch build for this device, or use --device cpu{other}",
        )
    if not build.has_device:
        raise DeviceError(
            f"--device {wanted}: torch finds no such device" + (f": {build.why_not}" if build.why_not else ""),
            "check that the driver works (nvidia-smi, rocminfo) and that this user may open the device, "
            "or use --device cpu",
        )
    return build.gpu_kind


def open_backend(config: EngineConfig, on_done: Callable[[], None]) -> Backend:
    """The device of the configuration. ``on_done`` is called, from other threads, when a batch has ended."""
    build = Build.of_torch()
    kind = choose_kind(config.device, build)
    if config.device == "auto" and build.why_not:
        log.warning(f"no GPU is used: {build.why_not}")
    if kind == "cpu":
        return CpuBackend(config.compute_units, on_done)
    return GpuBackend(kind, config.compute_units, on_done)

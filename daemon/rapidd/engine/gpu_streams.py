"""Torch streams for every partition of a GPU, over the raw ones that `partition/cuda.py` and `partition/hip.py` make.

The streams, and the contexts they belong to, live until the process ends. The HIP half was never run on hardware.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from msgspec import Struct

from rapidd.partition.cuda import CudaPartitions
from rapidd.partition.hip import HipStreams, describe, hip_table
from rapidd.partition.hip_runtime import HipRuntime
from rapidd.partition.table import PartitionTable

GpuKind = Literal["cuda", "hip"]


class GpuStreams(Struct, frozen=True):
    """Streams by unit count, all units included; ``decode``'s have the higher priority where there are priorities."""

    table: PartitionTable
    pci_bus_id: str
    decode: dict[int, torch.cuda.Stream]
    prefill: dict[int, torch.cuda.Stream]
    owners: list[Any]
    """What must live as long as the streams."""


def open_streams(kind: GpuKind, ordinal: int, compute_units: int | None) -> GpuStreams:
    """All streams of a device. Raises DeviceError for a device that cannot be used or lacks the units asked for."""
    torch.cuda.init()  # type: ignore[no-untyped-call]  # torch's copy of the library is loaded, and has the device open
    return _open_cuda(ordinal, compute_units) if kind == "cuda" else _open_hip(ordinal, compute_units)


def _open_cuda(ordinal: int, compute_units: int | None) -> GpuStreams:
    partitions = CudaPartitions(ordinal, compute_units)
    groups = partitions.open()
    return GpuStreams(
        partitions.table,
        partitions.pci_bus_id,
        {decode.units: _external(decode.stream, ordinal) for decode, _ in groups.values()},
        {prefill.units: _external(prefill.stream, ordinal) for _, prefill in groups.values()},
        [partitions, groups],
    )


def _external(handle: int, ordinal: int) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.ExternalStream(handle, device=ordinal)  # type: ignore[no-untyped-call]
    return stream


def _open_hip(ordinal: int, compute_units: int | None) -> GpuStreams:
    runtime = HipRuntime.load()
    device = describe(runtime, ordinal)
    table = hip_table(runtime, device, compute_units)
    streams = HipStreams(runtime, device, table)
    return GpuStreams(
        table,
        device.pci_bus_id,
        {units: stream.torch_stream() for units, stream in streams.decode.items()},
        {units: stream.torch_stream() for units, stream in streams.prefill.items()},
        [runtime, streams],
    )

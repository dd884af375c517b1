"""What torch sees of this machine, and what the driver lets a daemon have of its GPU: `rapidd doctor` asks.

``python -P -m rapidd.partition.look [UNITS]`` prints a `TorchView` as JSON. It opens the GPU as `rapidd serve` does,
its streams included, and loads nothing. It is a process of its own, because importing torch takes seconds and may
crash on a broken driver, and because an opened GPU holds memory until its process ends.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from rapidd.errors import DeviceError
from rapidd.partition.cuda import CudaPartitions
from rapidd.partition.hip import HipStreams, describe, hip_table
from rapidd.partition.hip_runtime import HipRuntime
from rapidd.partition.table import PartitionTable

if TYPE_CHECKING:
    from rapidd.telemetry.watch import Kind


class GpuView(Struct, kw_only=True):
    """A GPU as the daemon would have it. ``problem``: why it would not start there, with what to do in ``hint``."""

    table: PartitionTable | None = None
    problem: str | None = None
    hint: str = ""
    no_sensors: str | None = None
    """Why nothing would be known of its temperature, power and faults."""


class TorchView(Struct):
    """``devices``: their names, the first being the one that serves. ``gpu``: that one; null where there is none.

    ``why_not``: what torch says about a device that it cannot use.
    """

    version: str
    cuda: str | None
    hip: str | None
    devices: list[str]
    gpu: GpuView | None = None
    why_not: str = ""


def find_gpu() -> tuple[bool, str]:
    """Whether torch finds a GPU; else what it says about one that it cannot use, such as a driver that is too old."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    return found, "" if found else " ".join(str(warning.message) for warning in said)


def look_at_gpu(kind: Kind, compute_units: int | None, driver: Any = None) -> GpuView:
    """Open it. ``driver``: a stand-in for `cuda.bindings.driver` or for `HipRuntime`."""
    from rapidd.telemetry.watch import ORDINAL, sensors_for  # needs psutil, which the doctor may find missing

    try:
        if kind == "cuda":
            partitions = CudaPartitions(ORDINAL, compute_units, driver)
            partitions.open()
            table, pci_bus_id = partitions.table, partitions.pci_bus_id
        else:
            runtime = driver or HipRuntime.load()
            device = describe(runtime, ORDINAL)
            table, pci_bus_id = hip_table(runtime, device, compute_units), device.pci_bus_id
            HipStreams(runtime, device, table)
    except DeviceError as error:
        return GpuView(problem=str(error), hint=error.hint)
    sensors = sensors_for(kind, ORDINAL, pci_bus_id)
    sensors.close()
    return GpuView(table=table, no_sensors=sensors.why_not)


def look(compute_units: int | None) -> TorchView:
    """This machine, by the torch that is installed."""
    import torch

    found, why_not = find_gpu()
    count = torch.cuda.device_count() if found else 0
    view = TorchView(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        devices=[torch.cuda.get_device_name(index) for index in range(count)],
        why_not=why_not,
    )
    if count:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # its copy of the library is the one to ask
        view.gpu = look_at_gpu("hip" if view.hip else "cuda", compute_units)
    return view


def main() -> None:
    """Print it."""
    compute_units = int(sys.argv[1]) if len(sys.argv) > 1 else None
    print(msgspec.json.encode(look(compute_units)).decode(), flush=True)
    os._exit(0)  # HIP may wait for ever for streams that are let go (docs/amd.md)


if __name__ == "__main__":
    main()

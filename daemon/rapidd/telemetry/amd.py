"""Sensors of an AMD GPU: amdsmi where the node's ROCm brings one that works, sysfs for all that it does not tell.

`AmdSensors` never raises and never prints: where amdsmi cannot be used, ``why_no_amdsmi`` says why, and a value that
nobody tells is None. Units are SI, shares are 0 to 1. Does not know who reads, nor when.

amdsmi 6 to 10: absent values are the string 'N/A' (or all bits set), and units differ from field to field.
"""

import contextlib
import importlib
import io
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from rapidd.telemetry.kfd import SYS, KfdNode, find_node, processes, read_int
from rapidd.telemetry.sensors import DeviceSensors

KFD_DEVICE: Final = Path("/dev/kfd")
_ABSENT: Final = frozenset({0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF})
"""What amdsmi before 7 hands through from the firmware's tables in place of 'N/A'."""
_MEGA: Final = 1e6


class AmdSensors:
    """The sensors of the GPU at a PCI address (`HipDevice.pci_bus_id`), never of an index: tools count differently."""

    def __init__(self, pci_bus_id: str, *, root: Path = SYS, kfd_device: Path = KFD_DEVICE) -> None:
        self._folder = root / "bus/pci/devices" / pci_bus_id
        self._root = root
        self._node = find_node(pci_bus_id, root)
        opened = _open_amdsmi(pci_bus_id, kfd_device)
        self._amdsmi = opened if isinstance(opened, _Amdsmi) else None
        self.why_no_amdsmi = opened if isinstance(opened, str) else None

    def read(self) -> DeviceSensors:
        """All sensors now; a few dozen small reads. ``utilization``: a kernel ran, not units in use."""
        sensors = _read_sysfs(self._folder, self._node, self._root)
        if self._amdsmi is None:
            return sensors
        told = {name: value for name, value in self._amdsmi.values().items() if value is not None}
        return structs.replace(sensors, **told)

    def close(self) -> None:
        """Let amdsmi go; sysfs goes on."""
        amdsmi, self._amdsmi = self._amdsmi, None
        if amdsmi is not None:
            amdsmi.shut_down()


class _Amdsmi:
    """amdsmi's view of one GPU. A function that this amdsmi lacks, or that fails now, is a None."""

    def __init__(self, module: Any, handle: Any) -> None:
        self._module = module
        self._handle = handle
        # Looked up while failing is still allowed: another version may not have them.
        self._vram = module.AmdSmiMemoryType.VRAM
        self._graphics_clock = module.AmdSmiClkType.GFX
        self._hotspot = (module.AmdSmiTemperatureType.HOTSPOT, module.AmdSmiTemperatureMetric.CURRENT)

    def values(self) -> dict[str, float | int | None]:
        """Fields of `Reading`."""
        activity = self._ask("amdsmi_get_gpu_activity")
        power = self._ask("amdsmi_get_power_info")
        watts = _number(_field(power, "current_socket_power"))  # MI300 on; MI200 has an average
        clock = _number(_field(self._ask("amdsmi_get_clock_info", self._graphics_clock), "clk"))
        return {
            "utilization": _share(_field(activity, "gfx_activity")),
            "memory_utilization": _share(_field(activity, "umc_activity")),
            "clock_hz": None if clock is None else clock * _MEGA,
            "power_w": _number(_field(power, "average_socket_power")) if watts is None else watts,
            "temperature_c": _number(self._ask("amdsmi_get_temp_metric", *self._hotspot)),
            "memory_total_bytes": _whole(self._ask("amdsmi_get_gpu_memory_total", self._vram)),
            "memory_used_bytes": _whole(self._ask("amdsmi_get_gpu_memory_usage", self._vram)),
        }

    def shut_down(self) -> None:
        with contextlib.suppress(Exception):  # as below
            self._module.amdsmi_shut_down()

    def _ask(self, name: str, *arguments: object) -> object:
        call = getattr(self._module, name, None)
        if call is None:
            return None
        try:
            return call(self._handle, *arguments)
        except Exception:
            # NOT_SUPPORTED, a driver that does not answer, or a node's amdsmi that trips over what its library gave:
            # one value less, not the end of whoever reads.
            return None


def _open_amdsmi(pci_bus_id: str, kfd_device: Path) -> _Amdsmi | str:
    """amdsmi on this GPU, or why not."""
    if not kfd_device.exists():
        return f"no {kfd_device}: no driver, or it is not passed into this container"
    try:
        with _rocm_on_path(), contextlib.redirect_stdout(io.StringIO()):  # it prints when its library is missing
            module = importlib.import_module("amdsmi")
            module.amdsmi_init(module.AmdSmiInitFlags.INIT_AMD_GPUS)
            return _Amdsmi(module, module.amdsmi_get_processor_handle_from_bdf(pci_bus_id))
    except Exception as error:
        # Code of the node's making: KeyError without its library, AttributeError beside one of another version,
        # OSError, ImportError, AmdSmiLibraryException without a driver. None of them may cost us the daemon.
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


@contextlib.contextmanager
def _rocm_on_path() -> Iterator[None]:
    """The copy that came with the node's ROCm first: the package index has an older one without a library."""
    folder = str(Path(os.environ.get("ROCM_PATH") or "/opt/rocm") / "share/amd_smi")
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _read_sysfs(folder: Path, node: KfdNode | None, root: Path) -> DeviceSensors:
    sensors = next(iter(sorted(folder.glob("hwmon/hwmon*"))), folder / "hwmon")
    power = read_int(sensors / "power1_input")
    return DeviceSensors(
        utilization=_share(read_int(folder / "gpu_busy_percent")),
        memory_utilization=_share(read_int(folder / "mem_busy_percent")),
        clock_hz=_number(read_int(sensors / "freq1_input")),
        memory_clock_hz=_number(read_int(sensors / "freq2_input")),
        power_w=_scaled(read_int(sensors / "power1_average") if power is None else power, 1e-6),
        power_limit_w=_scaled(read_int(sensors / "power1_cap"), 1e-6),
        temperature_c=_scaled(read_int(sensors / "temp2_input"), 1e-3),  # the junction, amdsmi's HOTSPOT
        memory_total_bytes=read_int(folder / "mem_info_vram_total"),
        memory_used_bytes=read_int(folder / "mem_info_vram_used"),
        processes=processes(node.gpu_id, root) if node else None,
    )


def _field(answer: object, name: str) -> object:
    return answer.get(name) if isinstance(answer, dict) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value in _ABSENT or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _share(percent: object) -> float | None:
    number = _number(percent)
    return number / 100 if number is not None and 0 <= number <= 100 else None


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor

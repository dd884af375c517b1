"""Sensors of an NVIDIA GPU through NVML: nvidia-ml-py, which is imported when a GPU is opened, not before.

Every value is asked for on its own: what this driver or this GPU does not tell is null and costs the others nothing.
NVML makes no CUDA context and needs no torch; a call takes well under a millisecond, yet a GPU that hangs may hang it.
Knows neither who reads nor when.
"""

import importlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rapidctl.wire import DeviceProcess
from rapidd.telemetry.sensors import REMEDIES, DeviceSensors, NoSensors, Remedy, Sensors

_MEGA: Final = 1e6
_MILLI: Final = 1e-3
_MAX_EVENTS: Final = 256
"""Events read at once: a fault may raise one a channel, and the reader has other work."""
_SLOWDOWNS: Final = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
"""Bits of nvml.h's nvmlClocksEventReason*. Idle clocks and clocks that somebody set are no slowdown."""
_XIDS: Final = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "a channel stopped",
    45: "a channel was torn down",
    46: "the GPU stopped processing",
    48: "double-bit ECC error",
    62: "its power controller halted",
    63: "a memory row was remapped",
    64: "a memory row could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    94: "contained memory error",
    95: "uncontained memory error",
    109: "context switch timeout",
    119: "its firmware does not answer",
    120: "firmware error",
    140: "unrecovered ECC error",
    143: "the GPU does not initialise",
    151: "key rotation error",
    154: "what the driver asks for has changed",
    156: "a resource was retired",
    158: "fatal timeout",
}
"""The commonest of NVIDIA's Xid catalog; the number alone is told of others."""
_STOP: Final = (46, 48, 62, 64, 79, 95, 109, 110, 119, 120, 140, 143, 151, 156, 158)
"""Xids whose immediate action in NVIDIA's "Analyzing Xid Errors with the Xid Catalog" is RESET_GPU, or to start the
machine anew (79: RESTART_BM, 151: RESTART_VM). 48 has a workflow of its own, which ends in a reset however it goes.

Left out are those of NVLink (74, 136, 144 to 150, 155): what they ask for depends on the link and on registers that
NVML does not tell, and the daemon runs on one GPU. The driver's own word, `_RECOVERIES`, covers what the table lacks.
"""
_REMEDIES: Final[dict[int, Remedy]] = dict.fromkeys(_STOP, "stop")
_REMEDIES[94] = "restart"
"""RESTART_APP. So is the action of faults of one process's own channels (13, 31, copy engines): they end ours by
themselves when they are ours, and may be another process's. 43 and 63 are to be ignored; 45 follows another Xid."""
_RECOVERIES: Final = {
    1: "reset the GPU",
    2: "reboot the machine",
    4: "drain and reset the GPU",
    6: "reset the GPU's bus",
    7: "reboot the machine",
}
"""nvml.h's nvmlDeviceGpuRecoveryAction_t, which Xid 154 announces: what the driver itself asks for, since release 560.
Those for peers (3: drain peer-to-peer, 5: an IMEX domain) are left out: the daemon uses one GPU."""


def open_nvidia(ordinal: int, pci_bus_id: str | None, environ: Mapping[str, str] = os.environ) -> Sensors:
    """The GPU at a PCI address; without one, the one that CUDA calls ``ordinal``, if that can be known for certain."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return NoSensors("nvidia-ml-py is not installed: pip install 'rapid-serve[nvidia]'")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return NoSensors(f"NVML does not start: {error}")
    try:
        return NvidiaSensors(nvml, _find(nvml, ordinal, pci_bus_id, environ))
    except (nvml.NVMLError, LookupError) as error:
        nvml.nvmlShutdown()
        return NoSensors(f"NVML does not know the GPU: {error}")


class NvidiaSensors:
    """One GPU of an initialised NVML, which `close` shuts down."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.why_not: str | None = None
        self._nvml = nvml
        self._handle = handle
        self._fatal = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED)
        # No subclass of the other: raised for a call whose newest version this driver is too old for.
        self._refusals = (nvml.NVMLError, getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError))
        self._lost: list[str] = []
        """What the driver said in the last reading when it had no GPU any more."""
        mode = self._ask("nvmlDeviceGetMigMode")
        self._is_sliced = mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE
        """MIG: the engine has a slice, and the whole GPU's memory is not the engine's to fill."""
        self._events = self._register()
        self._lost.clear()  # that is for the first reading to tell

    def read(self) -> DeviceSensors:
        """Some fifteen calls of the driver."""
        nvml, was_lost = self._nvml, bool(self._lost)
        self._lost.clear()
        xids = self._xids()
        recovery = self._recovery() if xids else None
        share = self._ask("nvmlDeviceGetUtilizationRates")
        memory = None if self._is_sliced else self._ask("nvmlDeviceGetMemoryInfo")
        sensors = DeviceSensors(
            memory_total_bytes=None if memory is None else int(memory.total),
            memory_used_bytes=None if memory is None else int(memory.used),
            utilization=None if share is None else share.gpu / 100,
            memory_utilization=None if share is None else share.memory / 100,
            clock_hz=_scaled(self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM), _MEGA),
            memory_clock_hz=_scaled(self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM), _MEGA),
            power_w=_scaled(self._ask("nvmlDeviceGetPowerUsage"), _MILLI),
            power_limit_w=_scaled(self._ask("nvmlDeviceGetEnforcedPowerLimit"), _MILLI),
            temperature_c=_scaled(self._ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU), 1.0),
            slowdowns=self._slowdowns(),
            processes=self._processes(),
            faults=(
                *map(_xid_text, xids, xids.values()),
                *([] if recovery is None else [f"the driver asks to {recovery}"]),
            ),
            remedy="stop" if recovery else _remedy(xids),
        )
        if not self._lost:
            return sensors
        news = () if was_lost else (f"the driver lost the GPU: {self._lost[0]}",)
        return DeviceSensors(faults=(*sensors.faults, *news), remedy="stop" if news else sensors.remedy)

    def close(self) -> None:
        """Let NVML go; the handle is dead after it."""
        if self._events is not None:
            self._call("nvmlEventSetFree", self._events)
        self._call("nvmlShutdown")

    def _slowdowns(self) -> list[str] | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # the name before drivers of version 535
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return None if bits is None else [name for bit, name in _SLOWDOWNS.items() if bits & bit]

    def _processes(self) -> list[DeviceProcess] | None:
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if found is None:
            return None
        return [DeviceProcess(pid=process.pid, memory_bytes=process.usedGpuMemory) for process in found]

    def _register(self) -> Any:
        """A set of events that gets this GPU's Xids; None where the driver tells none."""
        events = self._call("nvmlEventSetCreate")
        if events is None:
            return None
        try:
            self._nvml.nvmlDeviceRegisterEvents(self._handle, self._nvml.nvmlEventTypeXidCriticalError, events)
        except self._nvml.NVMLError:
            self._call("nvmlEventSetFree", events)
            return None
        return events

    def _xids(self) -> Counter[int]:
        """Xids since the reading before, and how often."""
        numbers: Counter[int] = Counter()
        for _ in range(_MAX_EVENTS if self._events is not None else 0):
            event = self._call("nvmlEventSetWait_v2", self._events, 0)
            if event is None:  # NVML_ERROR_TIMEOUT: no more
                break
            if event.eventType == self._nvml.nvmlEventTypeXidCriticalError:
                numbers[int(event.eventData)] += 1
        return numbers

    def _recovery(self) -> str | None:
        """What the driver asks operators to do with the GPU; None: nothing, or it is too old to say."""
        field = getattr(self._nvml, "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", None)
        values = None if field is None else self._ask("nvmlDeviceGetFieldValues", [field])
        if values is None or values[0].nvmlReturn != 0:  # each value has a status of its own
            return None
        return _RECOVERIES.get(int(values[0].value.uiVal))

    def _ask(self, name: str, *arguments: object) -> Any:
        return self._call(name, self._handle, *arguments)

    def _call(self, name: str, *arguments: object) -> Any:
        """A function's answer; None when this binding lacks it or the driver refuses."""
        function = getattr(self._nvml, name, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._refusals as error:
            if getattr(error, "value", None) in self._fatal:
                self._lost.append(str(error))
            return None


def _find(nvml: Any, ordinal: int, pci_bus_id: str | None, environ: Mapping[str, str]) -> Any:
    """A handle. Raises NVMLError, or LookupError where a guess would be needed.

    CUDA counts what CUDA_VISIBLE_DEVICES leaves, and counts the fastest first unless CUDA_DEVICE_ORDER says otherwise;
    NVML counts all, by PCI address.
    """
    if pci_bus_id is not None:
        return nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    name = str(ordinal) if visible is None else _entry(visible, ordinal)
    if not name.isdecimal():
        return nvml.nvmlDeviceGetHandleByUUID(name)
    if nvml.nvmlDeviceGetCount() > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise LookupError("there are several, and the engine did not tell its PCI address")
    return nvml.nvmlDeviceGetHandleByIndex(int(name))


def _entry(visible: str, ordinal: int) -> str:
    entries = [entry.strip() for entry in visible.split(",")]
    if ordinal >= len(entries) or not entries[ordinal]:
        raise LookupError(f"CUDA_VISIBLE_DEVICES={visible} leaves no device {ordinal}")
    return entries[ordinal]


def _remedy(xids: Iterable[int]) -> Remedy:
    return max((_REMEDIES.get(number, "none") for number in xids), key=REMEDIES.index, default="none")


def _xid_text(number: int, times: int) -> str:
    meaning = f", {_XIDS[number]}" if number in _XIDS else ""
    return f"Xid {number}{meaning}{f' ({times} times)' if times > 1 else ''}"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor

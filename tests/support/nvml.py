"""A stand-in for the driver below nvidia-ml-py: a module with the names, constants, errors and units of the real one.

Names and numbers are those of nvidia-ml-py 12 and 13 (and nvml.h): memory in bytes, clocks in MHz, power in mW.
"""

from collections import deque
from types import ModuleType, SimpleNamespace
from typing import Any

BUS_ID = "0000:c1:00.0"
UUID = "GPU-ffc79498-8ff3-c2dc-3b0d-fafd804516ae"
ERRORS = {
    "UNINITIALIZED": (1, "Uninitialized"),
    "NOT_SUPPORTED": (3, "Not Supported"),
    "NO_PERMISSION": (4, "Insufficient Permissions"),
    "NOT_FOUND": (6, "Not Found"),
    "DRIVER_NOT_LOADED": (9, "Driver Not Loaded"),
    "TIMEOUT": (10, "Timeout"),
    "LIBRARY_NOT_FOUND": (12, "NVML Shared Library Not Found"),
    "FUNCTION_NOT_FOUND": (13, "Function Not Found"),
    "GPU_IS_LOST": (15, "GPU is lost"),
    "RESET_REQUIRED": (16, "GPU requires restart"),
}
ANSWERS: dict[str, Any] = {
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=41),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=85_520_809_984, free=20_000_000_000, used=65_520_809_984),
    "nvmlDeviceGetClockInfo": {1: 1980, 2: 2619},
    "nvmlDeviceGetPowerUsage": 312_345,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetTemperature": {0: 61},
    "nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x40,
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetComputeRunningProcesses": [
        SimpleNamespace(pid=4242, usedGpuMemory=64_000_000_000),
        SimpleNamespace(pid=4243, usedGpuMemory=None),
    ],
}


class NVMLError(Exception):
    """As the binding's: ``value`` is the code of nvml.h."""

    def __init__(self, name: str) -> None:
        self.value, text = ERRORS[name]
        super().__init__(text)


class NVMLLibraryMismatchError(Exception):
    """The driver is too old for the newest version of a call. As the binding's, it is no `NVMLError`."""


class Nvml(ModuleType):
    """One H100 that a test may break. ``fails``: error names by function; "*" is every function of a device."""

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    nvmlEventTypeXidCriticalError = 8  # noqa: N815 - the binding's name

    def __init__(self, *, gpus: int = 1) -> None:
        super().__init__("pynvml")
        self.gpus = gpus
        self.fails: dict[str, str] = {}
        self.events: deque[tuple[int, int]] = deque()
        """Type and data of events that have happened."""
        self.registered: list[tuple[str, int]] = []
        self.num_inits = 0
        self.recovery_action = 0
        """Of nvmlDeviceGpuRecoveryAction_t."""
        self.field_error = 0
        """The status of the only value of `nvmlDeviceGetFieldValues`, which may fail while the call does not."""
        self.asked_for: object = None
        for name, answer in ANSWERS.items():
            setattr(self, name, self._answer(name, answer))

    def _answer(self, name: str, answer: Any) -> Any:
        def call(handle: str, *arguments: int) -> Any:
            assert handle == "handle"
            self._check(name, of_device=True)
            return answer[arguments[0]] if isinstance(answer, dict) else answer

        return call

    def _check(self, name: str, *, of_device: bool = False) -> None:
        error = self.fails.get(name) or (self.fails.get("*") if of_device else None)
        if error == "MISMATCH":
            raise NVMLLibraryMismatchError("use a versioned function")
        if error is not None:
            raise NVMLError(error)

    def nvmlInit(self) -> None:  # noqa: N802
        self._check("nvmlInit")
        self.num_inits += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.num_inits -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def _handle(self, asked_for: object, known: bool) -> str:
        self.asked_for = asked_for
        if not known:
            raise NVMLError("NOT_FOUND")
        return "handle"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return self._handle(index, index < self.gpus)

    def nvmlDeviceGetHandleByPciBusId(self, pci_bus_id: str) -> str:  # noqa: N802
        return self._handle(pci_bus_id, pci_bus_id == BUS_ID)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return self._handle(uuid, uuid == UUID)

    def nvmlEventSetCreate(self) -> str:  # noqa: N802
        self._check("nvmlEventSetCreate")
        return "events"

    def nvmlDeviceRegisterEvents(self, handle: str, types: int, events: str) -> None:  # noqa: N802
        self._check("nvmlDeviceRegisterEvents")
        assert events == "events"
        self.registered.append((handle, types))

    def nvmlEventSetWait_v2(self, events: str, timeout_ms: int) -> SimpleNamespace:  # noqa: N802
        assert (events, timeout_ms) == ("events", 0), "it must not wait"
        self._check("nvmlEventSetWait_v2", of_device=True)
        if not self.events:
            raise NVMLError("TIMEOUT")
        kind, data = self.events.popleft()
        return SimpleNamespace(device="handle", eventType=kind, eventData=data)

    def nvmlEventSetFree(self, events: str) -> None:  # noqa: N802
        assert events == "events"
        self.registered.clear()

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> list[SimpleNamespace]:  # noqa: N802
        assert (handle, fields) == ("handle", [self.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
        self._check("nvmlDeviceGetFieldValues", of_device=True)
        value = SimpleNamespace(uiVal=self.recovery_action)
        return [SimpleNamespace(nvmlReturn=self.field_error, value=value)]

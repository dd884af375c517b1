"""NVIDIA sensors: units, every call that may fail on its own, which GPU is meant, Xids, and a GPU that is lost."""

import sys
from collections.abc import Mapping

import pytest
from msgspec import structs

from rapidctl.wire import DeviceProcess
from rapidd.telemetry.nvidia import NvidiaSensors, open_nvidia
from rapidd.telemetry.sensors import DeviceSensors, Sensors
from support.nvml import BUS_ID, ERRORS, UUID, Nvml

XID = Nvml.nvmlEventTypeXidCriticalError
TOLD = DeviceSensors(
    memory_total_bytes=85_520_809_984,
    memory_used_bytes=65_520_809_984,
    utilization=0.97,
    memory_utilization=0.41,
    clock_hz=1.98e9,
    memory_clock_hz=2.619e9,
    power_w=312.345,
    power_limit_w=700.0,
    temperature_c=61.0,
    slowdowns=["power cap", "hardware thermal"],
    processes=[
        DeviceProcess(pid=4242, memory_bytes=64_000_000_000),
        DeviceProcess(pid=4243, memory_bytes=None),
    ],
)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    fake = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def opened(environ: Mapping[str, str], ordinal: int = 0) -> Sensors:
    return open_nvidia(ordinal, None, environ)


def test_everything_is_told_in_si_units_and_shares(nvml: Nvml) -> None:
    sensors = open_nvidia(0, BUS_ID)
    assert sensors.why_not is None
    reading = sensors.read()
    assert reading.power_w == pytest.approx(312.345)
    assert structs.replace(reading, power_w=312.345) == TOLD


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("nvmlDeviceGetUtilizationRates", {"utilization", "memory_utilization"}),
        ("nvmlDeviceGetMemoryInfo", {"memory_total_bytes", "memory_used_bytes"}),
        ("nvmlDeviceGetClockInfo", {"clock_hz", "memory_clock_hz"}),
        ("nvmlDeviceGetPowerUsage", {"power_w"}),
        ("nvmlDeviceGetEnforcedPowerLimit", {"power_limit_w"}),
        ("nvmlDeviceGetTemperature", {"temperature_c"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"slowdowns"}),
        ("nvmlDeviceGetComputeRunningProcesses", {"processes"}),
    ],
)
@pytest.mark.parametrize("how", ["NOT_SUPPORTED", "NO_PERMISSION", "FUNCTION_NOT_FOUND", "MISMATCH", "absent"])
def test_what_the_driver_does_not_tell_is_null_and_costs_nothing_else(
    nvml: Nvml, function: str, fields: set[str], how: str
) -> None:
    if how == "absent":
        delattr(nvml, function)
    else:
        nvml.fails[function] = how
    reading = structs.asdict(open_nvidia(0, BUS_ID).read())
    assert {name for name, value in reading.items() if value is None} == fields


def test_an_older_driver_names_slowdowns_differently(nvml: Nvml) -> None:
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x20  # type: ignore[attr-defined]
    nvml.fails["nvmlDeviceGetCurrentClocksEventReasons"] = "FUNCTION_NOT_FOUND"
    assert open_nvidia(0, BUS_ID).read().slowdowns == ["software thermal"]


def test_idle_clocks_are_no_slowdown(nvml: Nvml) -> None:
    nvml.nvmlDeviceGetCurrentClocksEventReasons = lambda handle: 0x1  # type: ignore[attr-defined]
    assert open_nvidia(0, BUS_ID).read().slowdowns == []


def test_the_memory_of_a_sliced_gpu_is_not_the_engines(nvml: Nvml) -> None:
    nvml.nvmlDeviceGetMigMode = lambda handle: [1, 1]  # type: ignore[attr-defined]
    reading = open_nvidia(0, BUS_ID).read()
    assert (reading.memory_total_bytes, reading.memory_used_bytes) == (None, None)
    assert reading.temperature_c == 61.0


@pytest.mark.parametrize("how", ["NOT_SUPPORTED", "absent"])
def test_a_gpu_that_cannot_be_sliced_is_whole(nvml: Nvml, how: str) -> None:
    if how == "absent":
        del nvml.nvmlDeviceGetMigMode
    else:
        nvml.fails["nvmlDeviceGetMigMode"] = how
    assert open_nvidia(0, BUS_ID).read().memory_used_bytes == 65_520_809_984


# --- no NVML ----------------------------------------------------------------------------------------------------


def test_without_the_binding_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sensors = open_nvidia(0, BUS_ID)
    assert sensors.why_not is not None
    assert "pip install 'rapid-serve[nvidia]'" in sensors.why_not
    assert sensors.read() == DeviceSensors()
    sensors.close()


@pytest.mark.parametrize("error", ["LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED", "NO_PERMISSION"])
def test_without_a_driver_the_reason_is_kept(nvml: Nvml, error: str) -> None:
    nvml.fails["nvmlInit"] = error
    sensors = open_nvidia(0, BUS_ID)
    assert sensors.why_not is not None
    assert sensors.why_not.startswith("NVML does not start: ")
    assert sensors.read() == DeviceSensors()


# --- which GPU --------------------------------------------------------------------------------------------------


def test_the_pci_address_decides_whatever_cuda_leaves_visible(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.gpus = 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert open_nvidia(1, BUS_ID).why_not is None
    assert nvml.asked_for == BUS_ID


@pytest.mark.parametrize(
    ("gpus", "environ", "ordinal", "asked_for"),
    [
        (1, {}, 0, 0),
        (1, {"CUDA_VISIBLE_DEVICES": "0"}, 0, 0),
        (8, {"CUDA_VISIBLE_DEVICES": f"2, {UUID}"}, 1, UUID),
        (8, {"CUDA_VISIBLE_DEVICES": "5,3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1, 3),
    ],
)
def test_without_an_address_cudas_count_is_translated(
    nvml: Nvml, gpus: int, environ: dict[str, str], ordinal: int, asked_for: object
) -> None:
    nvml.gpus = gpus
    assert opened(environ, ordinal).why_not is None
    assert nvml.asked_for == asked_for


@pytest.mark.parametrize(
    ("gpus", "environ", "why"),
    [
        (2, {}, "did not tell its PCI address"),
        (2, {"CUDA_VISIBLE_DEVICES": "1,0"}, "did not tell its PCI address"),
        (1, {"CUDA_VISIBLE_DEVICES": ""}, "leaves no device 0"),
        (1, {"CUDA_VISIBLE_DEVICES": "GPU-ffc7"}, "Not Found"),
    ],
)
def test_another_gpus_values_are_worse_than_none(nvml: Nvml, gpus: int, environ: dict[str, str], why: str) -> None:
    nvml.gpus = gpus
    sensors = opened(environ)
    assert why in (sensors.why_not or "")
    assert nvml.num_inits == 0, "NVML is let go"


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xids", "remedy"),
    [
        ((), "none"),
        ((31, 43, 63, 4711), "none"),
        ((94,), "restart"),
        ((94, 79, 31), "stop"),
        ((48,), "stop"),
        ((46, 119), "stop"),
        ((13, 74, 92), "none"),
        ((151,), "stop"),
        ((154,), "none"),
    ],
)
def test_the_worst_of_the_xids_decides_what_is_done(nvml: Nvml, xids: tuple[int, ...], remedy: str) -> None:
    sensors = open_nvidia(0, BUS_ID)
    nvml.events.extend((XID, number) for number in xids)
    assert sensors.read().remedy == remedy
    assert sensors.read().remedy == "none"


@pytest.mark.parametrize(
    ("action", "text"),
    [(1, "reset the GPU"), (2, "reboot the machine"), (4, "drain and reset the GPU"), (7, "reboot the machine")],
)
def test_what_the_driver_asks_for_outweighs_what_an_xid_alone_would(nvml: Nvml, action: int, text: str) -> None:
    sensors = open_nvidia(0, BUS_ID)
    nvml.recovery_action = action
    assert sensors.read().remedy == "none", "it is asked when something happened"
    nvml.events.extend([(XID, 94), (XID, 154)])
    reading = sensors.read()
    assert (reading.faults[-1], reading.remedy) == (f"the driver asks to {text}", "stop")


@pytest.mark.parametrize("action", [0, 3, 5, 99])
def test_an_action_that_is_none_of_ours_changes_nothing(nvml: Nvml, action: int) -> None:
    sensors = open_nvidia(0, BUS_ID)
    nvml.recovery_action = action
    nvml.events.append((XID, 94))
    reading = sensors.read()
    assert (len(reading.faults), reading.remedy) == (1, "restart")


@pytest.mark.parametrize("how", ["refused", "no such value", "an older binding", "no such function"])
def test_a_driver_that_does_not_know_the_action_leaves_it_to_the_table(nvml: Nvml, how: str) -> None:
    nvml.recovery_action = 1
    if how == "refused":
        nvml.fails["nvmlDeviceGetFieldValues"] = "NOT_SUPPORTED"
    elif how == "no such value":
        nvml.field_error = ERRORS["NOT_SUPPORTED"][0]
    elif how == "an older binding":
        nvml.__class__ = type("OlderNvml", (Nvml,), {"NVML_FI_DEV_GET_GPU_RECOVERY_ACTION": None})
    else:
        nvml.nvmlDeviceGetFieldValues = None  # type: ignore[assignment, method-assign]
    sensors = open_nvidia(0, BUS_ID)
    nvml.events.append((XID, 94))
    assert sensors.read().remedy == "restart"


def test_xids_are_told_once_and_the_same_one_in_one_line(nvml: Nvml) -> None:
    sensors = open_nvidia(0, BUS_ID)
    assert nvml.registered == [("handle", XID)]
    nvml.events.extend([(XID, 31), (XID, 31), (XID, 79), (XID, 4711), (1, 5)])
    assert sensors.read().faults == (
        "Xid 31, memory page fault (2 times)",
        "Xid 79, the GPU has fallen off the bus",
        "Xid 4711",
    )
    assert sensors.read().faults == ()


def test_a_storm_of_events_does_not_hold_the_reader(nvml: Nvml) -> None:
    sensors = open_nvidia(0, BUS_ID)
    nvml.events.extend([(XID, 31)] * 10_000)
    sensors.read()
    assert 9_000 < len(nvml.events) < 10_000


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_a_driver_without_events_tells_the_rest(nvml: Nvml, function: str) -> None:
    nvml.fails[function] = "NOT_SUPPORTED"
    sensors = open_nvidia(0, BUS_ID)
    assert sensors.read().utilization == 0.97
    sensors.close()


@pytest.mark.parametrize("error", ["GPU_IS_LOST", "RESET_REQUIRED"])
def test_a_lost_gpu_has_no_values_and_is_told_once(nvml: Nvml, error: str) -> None:
    sensors = open_nvidia(0, BUS_ID)
    sensors.read()
    nvml.fails["*"] = error
    text = {"GPU_IS_LOST": "GPU is lost", "RESET_REQUIRED": "GPU requires restart"}[error]
    assert sensors.read() == DeviceSensors(faults=(f"the driver lost the GPU: {text}",), remedy="stop")
    assert sensors.read() == DeviceSensors()
    nvml.fails.clear()
    assert sensors.read().utilization == 0.97
    nvml.fails["*"] = error
    assert len(sensors.read().faults) == 1


@pytest.mark.parametrize("error", ["GPU_IS_LOST", "RESET_REQUIRED"])
def test_a_gpu_that_was_lost_before_anybody_looked_is_told_too(nvml: Nvml, error: str) -> None:
    """As when the front starts anew on it: what opening it found out passed for told, and the daemon went on."""
    nvml.fails["*"] = error
    sensors = open_nvidia(0, BUS_ID)
    assert sensors.why_not is None
    assert (len(sensors.read().faults), sensors.read()) == (1, DeviceSensors())


def test_a_gpu_that_is_lost_half_way_through_a_reading_has_no_values(nvml: Nvml) -> None:
    sensors = open_nvidia(0, BUS_ID)
    nvml.fails["nvmlDeviceGetComputeRunningProcesses"] = "GPU_IS_LOST"
    assert sensors.read() == DeviceSensors(faults=("the driver lost the GPU: GPU is lost",), remedy="stop")


def test_closing_gives_events_and_library_back(nvml: Nvml) -> None:
    sensors = open_nvidia(0, BUS_ID)
    assert isinstance(sensors, NvidiaSensors)
    sensors.close()
    assert (nvml.registered, nvml.num_inits) == ([], 0)
